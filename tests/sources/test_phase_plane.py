"""Over the plane of logit scale s and exponent C, rows agree with [G1], and their local exponents with [G6]."""

import math
from functools import cache

import numpy as np
import pytest
import torch

from analysis.statistics import closed_forms
from experiments.reference.exact import ExactRows
from experiments.reference.subset import measure_subset
from experiments.sources.gaussian import Gaussian

CPU = torch.device("cpu")
SCALES = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]
EXPONENTS = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
ETAS = [0.1, 0.5]
DRAWS = {2**12: 12, 2**14: 6, 2**15: 4}


@cache
def simulated(s, n):
    """Return the mean dropped mass of k = n^C [C], and the mean k_min of each draw [draws, eta]."""
    source = Gaussian(lengths=[n], rows=16, samples=DRAWS[n], s=s, head_dim=32)
    k_RW = torch.tensor([[math.ceil(n**c * (1 - 1e-9)) for c in EXPONENTS]] * source.rows)
    dropped, k_min = [], []
    for sample in range(DRAWS[n]):
        rows = source.draw(n, sample, 0, CPU)
        exact = ExactRows.from_logits(rows.logits())
        measured = measure_subset(exact.order_RN, exact.probability_RN, rows.value_NV, k_RW)
        dropped.append(measured["dropped_mass"].mean(0).numpy())
        k_min.append([exact.k_min(eta).double().mean().item() for eta in ETAS])
    return np.mean(dropped, axis=0), np.array(k_min)


@pytest.mark.parametrize("n", [2**12, 2**15])
@pytest.mark.parametrize("s", SCALES)
def test_dropped_mass_agrees_with_g1_over_the_plane(s, n):
    dropped, _ = simulated(s, n)
    k = np.ceil(n ** np.array(EXPONENTS) * (1 - 1e-9))
    np.testing.assert_allclose(dropped, closed_forms.dropped_mass(k, n, s * math.sqrt(math.log(n))), atol=0.03)


@pytest.mark.parametrize("s", SCALES)
def test_local_exponents_agree_with_g6(s):
    """The slope of ln k_min from n to 4 n is the mean of [G6] between them.

    Allowed are four standard errors over the draws, and 0.01, for [G6] is a limit: at s = 0.8 the largest few keys
    already carry some of the normaliser.
    """
    small, large = 2**12, 2**14
    before, after = simulated(s, small)[1], simulated(s, large)[1]
    measured = np.log(after.mean(0) / before.mean(0)) / math.log(large / small)
    relative = [k.std(0, ddof=1) / k.mean(0) / math.sqrt(len(k)) for k in (before, after)]
    error = np.hypot(*relative) / math.log(large / small)
    between = np.exp(np.linspace(math.log(small), math.log(large), 65))
    expected = [closed_forms.local_exponent_growing(eta, between, s).mean() for eta in ETAS]
    assert (error < 0.025).all()  # so that agreement says something
    assert (np.abs(measured - expected) < 4 * error + 0.01).all()
