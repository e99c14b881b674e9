"""Expected attention: the expectation itself, and what is kept at the end of a prompt."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from experiments.errors import UserError
from experiments.selectors.expected_attention import ExpectedAttention, expected
from tests.selectors.test_sinks import rows_at

PROMPT = 50


def order_at(position, selector, rows):
    cache = replace(rows.cache(), prompt=PROMPT)
    return selector.prepare(cache)(rows.questions()).order()[rows.position_R.tolist().index(position)].tolist()


def test_the_expectation_is_that_of_gaussian_queries():
    generator = torch.manual_seed(0)
    query_STD = 0.5 * torch.randn(2, 40, 3, generator=generator, dtype=torch.float64) + 0.3
    key_ND = torch.randn(6, 3, generator=generator, dtype=torch.float64)
    for query_TD, share_N in zip(query_STD, expected(query_STD, key_ND), strict=True):
        mean_D, covariance_DD = query_TD.numpy().mean(0), np.cov(query_TD.numpy().T, bias=True)
        drawn = np.random.default_rng(1).multivariate_normal(mean_D, covariance_DD, 400_000)
        weight_N = np.exp(drawn @ key_ND.numpy().T).mean(0)
        assert share_N.numpy() == pytest.approx(weight_N / weight_N.sum(), rel=0.02)


@pytest.mark.parametrize("value_norm", [True, False])
def test_newer_keys_come_first_then_the_first_then_the_prompts_by_their_score(value_norm):
    rows = rows_at([50, 60], 64)
    value_NV = torch.randn(64, 3, generator=torch.manual_seed(2))
    rows = replace(rows, value_NV=value_NV)
    selector = ExpectedAttention(window=20, sinks=3, value_norm=value_norm)
    key_ND = rows.key_ND[3:PROMPT].double().numpy()
    score_N = np.zeros(len(key_ND))
    for query_TD in rows.earlier.queries(PROMPT - 20, PROMPT).double().numpy():
        centred = query_TD - query_TD.mean(0)
        exponent = key_ND @ query_TD.mean(0) + np.square(key_ND @ centred.T).mean(1) / 2
        score_N += np.exp(exponent) / np.exp(exponent).sum()
    if value_norm:
        score_N *= np.linalg.norm(value_NV[3:PROMPT].double().numpy(), axis=1)
    of_prompt = [0, 1, 2, *(3 + np.argsort(-score_N)).tolist()]
    assert order_at(50, selector, rows)[:51] == [50, *of_prompt]
    assert order_at(60, selector, rows)[:61] == [*range(60, 49, -1), *of_prompt]


def test_what_is_asked_after_the_prompt_changes_nothing():
    rows = rows_at([60], 64)

    def late(start, stop):
        query_STD = rows.earlier.queries(start, stop).clone()
        query_STD[:, torch.arange(start, stop) >= PROMPT] *= -3
        return query_STD

    other = replace(rows, earlier=replace(rows.earlier, queries=late))
    assert order_at(60, ExpectedAttention(), rows) == order_at(60, ExpectedAttention(), other)


@pytest.mark.parametrize("options", [{"window": 0}, {"sinks": -1}])
def test_options_out_of_range_are_refused_by_name(options):
    with pytest.raises(UserError, match=f"selector.{next(iter(options))}"):
        ExpectedAttention(**options)
