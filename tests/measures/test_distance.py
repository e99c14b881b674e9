"""Ranges of distances, and means by distance on rows of a known law."""

import numpy as np
import pytest
import torch

from experiments.errors import UserError
from experiments.measures.distance import means_of_ranges, ranges, sums_by_distance
from experiments.rows import Rows


def rows_of(logits_RN, position_R, visible_RN=None, sink_S=None):
    """Causal rows with these logits: one-hot keys, and queries that pick them."""
    count, keys = logits_RN.shape
    return Rows(
        layer=0,
        head_R=torch.zeros(count, dtype=torch.long),
        sample=0,
        variant="plain",
        length=keys,
        position_R=torch.as_tensor(position_R),
        query_RD=torch.as_tensor(logits_RN, dtype=torch.float64),
        key_ND=torch.eye(keys, dtype=torch.float64),
        value_NV=torch.zeros(keys, 1),
        scale=1.0,
        visible_RN=visible_RN,
        causal=visible_RN is None,
        sink_S=sink_S,
    )


@pytest.mark.parametrize("distances", [1, 2, 3, 100, 4096])
@pytest.mark.parametrize("per_octave", [1, 4, 8, 64])
def test_ranges_part_all_distances(distances, per_octave):
    start_B = ranges(distances, per_octave)
    assert start_B[0] == 0
    assert (np.diff(start_B) > 0).all()
    assert start_B[-1] < distances
    if distances > 64:
        assert ((start_B >= distances // 2) & (start_B < distances)).sum() <= per_octave + 1
    if per_octave == 1:
        assert start_B.tolist() == [0, *(2**i for i in range(20) if 2**i < distances)]


def test_a_power_law_is_recovered_whatever_the_rows_normalisers():
    keys, exponent = 400, 0.7
    position_R = torch.arange(200, 400)
    distance_RN = position_R[:, None] - torch.arange(keys)
    logits_RN = -exponent * distance_RN.clamp(min=1).double().log()
    sum_D, count_D = sums_by_distance(rows_of(logits_RN, position_R))
    assert count_D.tolist() == [200] * 201 + list(range(199, 0, -1))
    p_RN = torch.where(distance_RN >= 0, logits_RN.exp(), 0.0)
    p_RN /= p_RN.sum(1, keepdim=True)
    for d in (0, 1, 17, 200, 399):
        at_R = p_RN[distance_RN == d]
        assert sum_D[d] == pytest.approx(float(at_R.sum()), rel=1e-12)
    start_B = ranges(keys, 8)
    inside = (start_B >= 10) & (start_B < 150)
    mean_B = means_of_ranges(sum_D, count_D, start_B)
    middle_B = np.sqrt(start_B * (np.append(start_B[1:], keys) - 1))
    slope = np.polyfit(np.log(middle_B[inside]), np.log(mean_B[inside]), 1)[0]
    assert slope == pytest.approx(-exponent, abs=0.005)


def test_hidden_keys_and_learned_sinks_are_no_keys_at_a_distance():
    draw = torch.manual_seed(0)
    logits_RN = torch.randn(3, 6, generator=draw, dtype=torch.float64)
    position_R, window = [3, 4, 5], 3
    visible_RN = torch.tensor([[0 <= i - j < window for j in range(6)] for i in position_R])
    sum_D, count_D = sums_by_distance(rows_of(logits_RN, position_R, visible_RN, torch.tensor([0.5])))
    for d in range(6):
        p = [
            logits_RN[r, i - d].exp() / (logits_RN[r, i - window + 1 : i + 1].exp().sum() + np.exp(0.5))
            for r, i in enumerate(position_R)
            if d < window
        ]
        assert sum_D[d] == pytest.approx(sum(map(float, p)), rel=1e-12)
        assert count_D[d] == len(p)
    assert np.isnan(means_of_ranges(sum_D, count_D, np.array([0, 3]))[1])


def test_a_row_of_no_number_is_refused():
    with pytest.raises(UserError, match="not finite"):
        sums_by_distance(rows_of(torch.full((1, 4), torch.nan, dtype=torch.float64), [3]))
