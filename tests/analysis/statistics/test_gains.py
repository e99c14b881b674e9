"""What units lose alone, shared out: closed forms of losses that are straight lines."""

import numpy as np
import pandas as pd
import pytest

from analysis.statistics.gains import LAYER, Measured, unit_of
from experiments.errors import UserError

N, FLOOR = 100.0, 10.0
STEEP, FLAT = 3.0, 1.0  # nats over all keys of a layer


def lines(samples=3, points=(10.0, 40.0, 70.0), heads=4, kv_heads=2):
    """Two layers that lose slope (1 - k / n) alone, and sample s (1 + s) times as much."""
    place = {"label": "m", "rule": "linear", "scale": 1.0, "kv_head": -1, "n": N, "heads": heads, "kv_heads": kv_heads}
    return pd.DataFrame(
        place
        | {"layer": layer, "sample": sample, "parameter": k / N, "keys": k, "dense_loss": 2.0}
        | {"kl": (1 + sample) * slope * (1 - k / N), "loss": 2.0 + 2 * slope * (1 - k / N)}
        for layer, slope in enumerate((STEEP, FLAT))
        for sample in range(samples)
        for k in points
    )


def test_alike_and_by_gains_have_their_closed_forms():
    measured = Measured.of(lines(), "kl")
    assert measured.bounds() == (FLOOR, N)
    for mean in (20.0, 50.0, 90.0):
        steep = min(N, 2 * mean - FLOOR)  # the steeper layer takes all that the other's floor leaves
        times_S = 1.0 + np.arange(3)
        alike = (STEEP + FLAT) * (1 - mean / N)
        gains = STEEP * (1 - steep / N) + FLAT * (1 - (2 * mean - steep) / N)
        np.testing.assert_allclose(measured.judged("uniform", mean), times_S * alike)
        np.testing.assert_allclose(measured.judged("gains", mean), times_S * gains)


def test_a_sample_is_judged_by_the_others():
    """The second of two samples loses in the other layer: each is served worst by what the other asks for."""
    table = lines(samples=2)
    swapped = table.assign(layer=np.where(table["sample"] == 1, 1 - table["layer"], table["layer"]))
    swapped["kl"] /= 1 + swapped["sample"]
    measured = Measured.of(swapped, "kl")
    worst = STEEP * (1 - FLOOR / N) + FLAT * (1 - 90 / N)
    np.testing.assert_allclose(measured.judged("gains", 50.0), [worst, worst])


def test_the_other_objective_is_the_loss_over_dense():
    kl, loss = (Measured.of(lines(), name).judged("uniform", 50.0) for name in ("kl", "loss"))
    np.testing.assert_allclose(loss, 2 * kl[0])


def test_a_kv_head_weighs_its_query_heads():
    table = lines()
    table = pd.concat([table.assign(kv_head=head) for head in (0, 1)])
    assert not (unit_of(table) == LAYER).any()
    assert Measured.of(table, "kl").weights.tolist() == [2.0] * 4
    assert Measured.of(lines(), "kl").weights.tolist() == [4.0] * 2


def test_units_that_were_measured_in_part_are_refused():
    with pytest.raises(UserError, match="measured in part"):
        Measured.of(lines().iloc[1:], "kl")
