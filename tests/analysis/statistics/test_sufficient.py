"""The smallest C from which an error falls."""

import numpy as np
import pandas as pd
import pytest

from analysis.statistics.sufficient import falls_from, smallest_exponents

C = np.array([0.2, 0.4, 0.6, 0.8])


@pytest.mark.parametrize(
    ("rates", "smallest"),
    [
        ([0.1, 0.1, -0.1, -0.2], 0.5),
        ([-0.1, -0.2, -0.3, -0.4], 0.2),
        ([0.1, 0.1, 0.1, 0.1], 1.0),
        ([-0.1, 0.1, -0.1, -0.2], 0.5),
        ([-0.1, -0.1, -0.1, 0.0], 1.0),
    ],
)
def test_it_is_where_the_rate_falls_below_nought_for_good(rates, smallest):
    assert falls_from(C, np.array(rates)) == pytest.approx(smallest)


def test_the_interval_holds_every_c_whose_rate_may_be_nought():
    rate = np.array([0.2, 0.1, -0.1, -0.2])
    frame = pd.DataFrame({"label": "A", "measure": "tv", "parameter": C, "rate": rate, "heads": 1, "clusters": 4})
    frame["rate_low"], frame["rate_high"] = rate - 0.2, rate + 0.15
    line = smallest_exponents(frame.sample(frac=1, random_state=0)).iloc[0]
    assert line["C"] == pytest.approx(0.5)
    assert line["C_low"] == pytest.approx(0.2)
    assert line["C_high"] == pytest.approx(0.7)
    assert not line["at_most"]
    assert np.isnan(smallest_exponents(frame.assign(rate_low=np.nan))["C_low"].item())
    assert smallest_exponents(frame.assign(rate=-1.0))["at_most"].item()
