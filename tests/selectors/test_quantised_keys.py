"""Quantised keys: how far a copy may be from its key, and what that says of the order."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from experiments.errors import UserError
from experiments.selectors.quantised_keys import QuantisedKeys, quantised
from tests.selectors.test_sinks import order, rows_at

WIDE, KEYS = 64, 520


def wide_rows(seed=0, rows=16):
    generator = torch.manual_seed(seed)
    key_ND = torch.randn(KEYS, WIDE, generator=generator)
    query_RD = torch.randn(rows, WIDE, generator=generator)
    last = rows_at([KEYS - 1] * rows, KEYS)
    return replace(last, key_ND=key_ND, value_NV=key_ND, query_RD=query_RD, scale=WIDE**-0.5)


@pytest.mark.parametrize("bits", [8, 4, 2])
def test_a_copy_is_the_nearest_of_its_steps_between_least_and_largest(bits):
    key_GND = torch.randn(2, 50, 3, generator=torch.manual_seed(0))
    copy_GND = quantised(key_GND, bits, 16).numpy()
    for g in range(2):
        for start in range(0, 48, 16):
            for channel in range(3):
                x = key_GND[g, start : start + 16, channel].numpy()
                steps = np.linspace(x.min(), x.max(), 2**bits)
                nearest = steps[np.abs(x[:, None] - steps).argmin(1)]
                assert copy_GND[g, start : start + 16, channel] == pytest.approx(nearest, abs=1e-6)
    assert (copy_GND[:, 48:] == key_GND[:, 48:].numpy()).all()  # no whole group


def test_a_constant_channel_is_its_own_copy():
    key_GND = torch.full((1, 8, 2), 3.5)
    assert torch.equal(quantised(key_GND, 2, 4), key_GND)


def test_eight_bits_keep_the_mass_of_the_most_probable_keys():
    """Of each number of keys, beside the own key, which comes first."""
    rows = wide_rows()
    order_RN, exact = order(QuantisedKeys(bits=8), rows)
    p_RN = torch.softmax(exact.logits_RN.double(), -1)
    best_RN = p_RN[:, :-1].sort(descending=True).values.cumsum(-1)
    kept_RN = p_RN.gather(1, order_RN)[:, 1:].cumsum(-1)
    assert (best_RN - kept_RN).max() < 1e-3


@pytest.mark.parametrize("bits", [8, 4, 2])
def test_logits_rise_along_the_order_by_no_more_than_twice_the_error_of_a_copy(bits):
    """The bound is sum over channels of |q| times half a step; probabilities within 1e-3 of falling for 8 bits."""
    rows = wide_rows(1)
    order_RN, exact = order(QuantisedKeys(bits=bits, group=32), rows)
    logits_RN = exact.logits_RN.double().gather(1, order_RN)[:, 1:]
    step_PD = rows.key_ND[:512].unflatten(0, (-1, 32)).double()
    step_PD = (step_PD.amax(1) - step_PD.amin(1)) / (2**bits - 1)
    bound_R = (rows.query_RD.double().abs() @ (step_PD / 2).T).amax(1) * rows.scale
    later_RN = logits_RN.flip(1).cummax(1).values.flip(1)  # the largest logit from here on
    assert ((later_RN - logits_RN).amax(1) <= 2 * bound_R + 1e-5).all()
    if bits == 8:
        p_RN = (logits_RN - exact.logits_RN.double().logsumexp(-1, keepdim=True)).exp()
        assert (p_RN.flip(1).cummax(1).values.flip(1) - p_RN).max() < 1e-3


def test_the_group_of_the_row_is_exact_and_no_later_key_moves_a_range():
    rows = rows_at([21, 22, 40], 64)
    selector = QuantisedKeys(bits=2, group=8)
    order_RN, exact = order(selector, rows)
    own = [key for key in order_RN[0].tolist() if 16 <= key < 21]
    assert own == sorted(range(16, 21), key=lambda key: -float(exact.logits_RN[0, key]))
    for r, position in enumerate([21, 22, 40]):
        key_ND = rows.key_ND.clone()
        key_ND[position + 1 :] *= 50
        changed, _ = order(selector, rows_at([21, 22, 40], 64, key_ND=key_ND))
        assert changed[r, : position + 1].tolist() == order_RN[r, : position + 1].tolist()


def test_fewer_bits_read_less_and_smaller_groups_more():
    n, k = torch.tensor([65536.0]), torch.tensor([256.0])
    read = [float(QuantisedKeys(bits=b, group=g).keys_read(n, k, 64)) for b, g in ((8, 64), (4, 64), (4, 32), (2, 64))]
    assert read[0] > read[2] > read[1] > read[3] > 256
    assert read[1] == 256 + 65536 * (4 + 1) / 64 + 16  # of a key with its value: 4 bits and 64 / 64 bits a channel


@pytest.mark.parametrize("options", [{"bits": 3}, {"group": 1}])
def test_options_out_of_range_are_refused_by_name(options):
    with pytest.raises(UserError, match=f"selector.{next(iter(options))}"):
        QuantisedKeys(**options)
