"""Rows that have no softmax are refused by name on both paths, and half precision takes the quick one."""

import pytest
import torch

from experiments.errors import UserError
from experiments.launch import configure
from experiments.measures.compute import Compute
from experiments.measures.measure import measure_block
from experiments.reference.exact import ExactRows
from experiments.rows import Rows
from experiments.selectors.oracle import Oracle

GENERATOR = torch.Generator().manual_seed(0)
PATHS = (Compute(), Compute(reference=True))


def rows(query_RD, key_ND, **settings):
    """Return rows of one head, in the middle of a context of 500 keys if nothing else is said."""
    position_R = torch.full((len(query_RD),), len(key_ND) - 1)
    about = {
        "layer": 3,
        "head_R": torch.ones_like(position_R),
        "sample": 0,
        "variant": "plain",
        "length": len(key_ND),
    } | settings
    return Rows(position_R=position_R, query_RD=query_RD, key_ND=key_ND, value_NV=key_ND, scale=0.3, **about)


def draw(*shape):
    return torch.randn(*shape, generator=GENERATOR)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("place", [0, 17, 4999])
def test_a_logit_that_is_no_number_is_refused_wherever_it_stands(path, bad, place):
    logits_RN = draw(6, 5000)
    logits_RN[4, place] = bad
    with pytest.raises(UserError, match="no softmax is defined"):
        path.facts(logits_RN)


@pytest.mark.parametrize("path", PATHS)
def test_a_row_that_sees_no_key_is_refused(path):
    logits_RN = draw(3, 40)
    logits_RN[1] = -torch.inf
    with pytest.raises(UserError, match="a row sees no key"):
        path.facts(logits_RN)


@pytest.mark.parametrize(("of", "bad"), [("query_RD", torch.nan), ("key_ND", torch.inf), ("key_ND", 3e38)])
def test_queries_and_keys_whose_products_are_not_finite_are_refused(of, bad):
    parts = {"query_RD": draw(4, 8), "key_ND": draw(50, 8)}
    parts[of][2, 5] = bad
    with pytest.raises(UserError, match=r"layer 3, head 1: logits up to .* not finite"):
        rows(**parts).logits()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_measured_by_the_quick_path_as_float32_is(dtype, monkeypatch):
    """Logits are float32 whatever the queries are, so nothing keeps a half-precision model from the kernels."""
    windows = configure("windows.top_p=[0.1]", "windows.thresholds=[0.001]").windows.at(500)
    half = rows(draw(16, 64).to(dtype), draw(500, 64).to(dtype))
    whole = rows(half.query_RD.float(), half.key_ND.float())
    monkeypatch.setattr(ExactRows, "from_logits", pytest.fail)
    (statistics, measured), (expected, same) = (
        measure_block(part, [Oracle().prepare(part.cache())], windows.sizes(part.n_R, part.position_R), Compute())
        for part in (half, whole)
    )
    for found, right in ((statistics, expected), (measured[0], same[0])):
        for name, values in right.items():
            torch.testing.assert_close(found[name], values, rtol=1e-6, atol=9e-7)
