"""Split-conformal bounds keep their coverage whatever is drawn, and refuse what too few scores cannot promise."""

import numpy as np
import pytest

from analysis.statistics.conformal import conformal, samples_needed


@pytest.mark.parametrize(("share", "needed"), [(0.5, 1), (0.8, 4), (0.9, 9), (0.95, 19), (0.99, 99), (2 / 3, 2)])
def test_as_many_scores_as_the_share_takes(share, needed):
    assert samples_needed(share) == needed
    scores = np.arange(needed, dtype=float)
    assert conformal(scores, share) == scores[-1]
    with pytest.raises(ValueError, match=f"takes {needed}"):
        conformal(scores[1:], share)


@pytest.mark.parametrize("draw", ["lognormal", "standard_cauchy", "uniform"])
@pytest.mark.parametrize(("samples", "share"), [(9, 0.9), (12, 0.8), (6, 0.8), (19, 0.5)])
def test_exchangeable_draws_are_covered_and_not_much_more(draw, samples, share):
    """The coverage is ceil((m + 1) share) / (m + 1) for continuous draws, at least the share."""
    rng = np.random.default_rng(0)
    trials = 20_000
    common = rng.standard_normal((trials, 1))  # of one trial: draws are exchangeable, not independent
    drawn = getattr(rng, draw)(size=(trials, samples + 1)) + common
    covered = np.mean([new <= conformal(scores, share) for scores, new in ((line[:-1], line[-1]) for line in drawn)])
    exact = np.ceil((samples + 1) * share - 1e-9) / (samples + 1)
    assert exact >= share - 1e-12
    assert covered == pytest.approx(exact, abs=4 * np.sqrt(0.25 / trials))
