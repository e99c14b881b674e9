"""Logits of a part of the channels: those of the query, fixed ones, and the principal components of the keys."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from experiments.cache import Earlier
from experiments.errors import UserError
from experiments.selectors.double_sparsity import DoubleSparsity
from experiments.selectors.pca_keys import PcaKeys, principal
from experiments.selectors.sparq import SparQ
from tests.selectors.test_quantised_keys import WIDE, wide_rows
from tests.selectors.test_sinks import order, rows_at


def asked(rows, seed=7):
    """Return rows whose earlier queries, of two heads, have channels of different sizes."""
    query_SND = torch.randn(2, len(rows.key_ND), WIDE, generator=torch.manual_seed(seed)) * torch.rand(WIDE).exp()
    return replace(rows, earlier=Earlier(lambda start, stop: None, lambda start, stop: query_SND[:, start:stop]))


def own_first(score_N, own):
    return [own] + [key for key in np.argsort(-score_N, kind="stable").tolist() if key != own]


def test_sparq_goes_by_the_largest_channels_of_each_query():
    rows = wide_rows()
    order_RN, _ = order(SparQ(channels=5), rows)
    for r, query_D in enumerate(rows.query_RD.double().numpy()):
        channels = np.argsort(-np.abs(query_D))[:5]
        expected = own_first(rows.key_ND.double().numpy()[:, channels] @ query_D[channels], len(rows.key_ND) - 1)
        assert order_RN[r].tolist() == expected


@pytest.mark.parametrize(
    "selector",
    [SparQ(channels=WIDE), SparQ(channels=999), DoubleSparsity(channels=WIDE), PcaKeys(components=WIDE)],
)
def test_all_channels_give_the_order_of_the_oracle(selector):
    rows = replace(asked(wide_rows(2)), position_R=torch.tensor([300] * 8 + [519] * 8), visible_RN=None, causal=True)
    order_RN, exact = order(selector, rows)
    for r, position in enumerate(rows.position_R.tolist()):
        exact_N = exact.order_RN[r].tolist()
        expected = [position] + [key for key in exact_N[: position + 1] if key != position]
        assert order_RN[r, : position + 1].tolist() == expected


def test_principal_components_are_those_of_the_singular_values():
    key_ND = torch.randn(80, 10, generator=torch.manual_seed(0)) * torch.arange(1, 11)
    basis_DC = principal(key_ND, 4).double().numpy()
    centred = key_ND.double().numpy() - key_ND.double().numpy().mean(0)
    _, _, right = np.linalg.svd(centred, full_matrices=False)
    assert np.abs(right[:4] @ basis_DC) == pytest.approx(np.eye(4), abs=1e-5)


def test_keys_in_a_plane_are_known_by_two_components_but_for_their_mean():
    generator = torch.manual_seed(3)
    plane_2D = torch.randn(2, WIDE, generator=generator)
    mean_D = torch.randn(WIDE, generator=generator)
    rows = wide_rows()
    rows = replace(rows, key_ND=torch.randn(len(rows.key_ND), 2, generator=generator) @ plane_2D + mean_D)
    order_RN, exact = order(PcaKeys(components=2), rows)
    logits_RN = exact.logits_RN.gather(1, order_RN)[:, 1:]
    assert (logits_RN.diff(dim=1) <= 1e-4).all()


def test_components_are_the_prompts_and_newer_keys_are_projected_on_them():
    rows = wide_rows()
    rows = replace(rows, position_R=torch.tensor([400] + [519] * 15), causal=True, visible_RN=None)
    cache = replace(rows.cache(), prompt=400)
    order_RN = PcaKeys(components=6).prepare(cache)(rows.questions()).order()
    key_ND = rows.key_ND.double().numpy()
    _, _, right = np.linalg.svd(key_ND[:400] - key_ND[:400].mean(0), full_matrices=False)
    part = (key_ND @ right[:6].T) @ (right[:6] @ rows.query_RD[1].double().numpy())
    assert order_RN[1].tolist() == own_first(part, 519)


def test_double_sparsity_goes_by_the_channels_that_are_largest_over_the_prompt():
    rows = asked(wide_rows())
    rows = replace(rows, position_R=torch.tensor([400] + [519] * 15), causal=True, visible_RN=None)
    order_RN = DoubleSparsity(channels=5).prepare(replace(rows.cache(), prompt=400))(rows.questions()).order()
    key_ND = rows.key_ND.double().numpy()
    query_XD = rows.earlier.queries(0, 400).double().numpy().reshape(-1, WIDE)
    sizes = np.mean([np.abs(query_XD * key_D).mean(0) for key_D in key_ND[:400]], axis=0)
    channels = np.argsort(-sizes)[:5]
    for r in (1, 2):
        part = key_ND[:, channels] @ rows.query_RD[r].double().numpy()[channels]
        assert order_RN[r].tolist() == own_first(part, 519)


@pytest.mark.parametrize("selector", [PcaKeys(components=2), DoubleSparsity(channels=2)])
def test_a_prompt_of_no_keys_is_answered(selector):
    order_RN, _ = order(selector, rows_at([0, 9], 10))
    assert order_RN[:, 0].tolist() == [0, 9]


def test_parts_cost_what_they_read():
    n, k = torch.tensor([4096.0]), torch.tensor([256.0])
    for selector in (SparQ(channels=16), DoubleSparsity(channels=16), PcaKeys(components=16)):
        assert selector.keys_read(n, k, 64).tolist() == [256 + 4096 / 8]
        assert selector.keys_read(n, k, 8).tolist() == [256 + 4096 / 2]  # all of the channels that there are


@pytest.mark.parametrize(
    ("part", "options"), [(SparQ, {"channels": 0}), (DoubleSparsity, {"channels": 0}), (PcaKeys, {"components": 0})]
)
def test_options_out_of_range_are_refused_by_name(part, options):
    with pytest.raises(UserError, match=f"selector.{next(iter(options))}"):
        part(**options)
