"""What a sample promises of a row's denominator, against cases whose answer is known."""

import math

import pytest
import torch

from experiments.measures.coverage import measure_coverage


def numbers(rows, keys, seed=0):
    return torch.randint(-(2**62), 2**62, (rows, keys), generator=torch.manual_seed(seed))


def test_a_constant_tail_needs_its_base_sample_alone():
    logits_RN = torch.zeros(3, 200)
    logits_RN[:, :4] = 5.0
    exact_RN = torch.arange(200).expand(3, -1) < 4
    measured = measure_coverage(logits_RN, exact_RN, numbers(3, 200), 0.05, 0.1, 0.1)
    assert measured["covered"].tolist() == [1.0] * 3
    assert measured["keys"].tolist() == [4.0 + math.ceil(0.05 * 196)] * 3
    assert measured["sampled"].tolist() == pytest.approx([10 / 196] * 3)


def test_a_promise_without_slack_samples_all_and_is_exact():
    logits_RN = torch.randn(4, 100, generator=torch.manual_seed(1))
    logits_RN[:, 90:] = -torch.inf
    measured = measure_coverage(logits_RN, torch.zeros(4, 100, dtype=torch.bool), numbers(4, 100), 0.05, 1e-9, 0.1)
    assert (measured["sampled"] == 1).all()
    assert (measured["covered"] == 1).all()
    assert (measured["keys"] == 90).all()


def test_rows_whose_keys_are_all_exact_need_no_sample():
    measured = measure_coverage(torch.randn(2, 5), torch.ones(2, 5, dtype=torch.bool), numbers(2, 5), 0.05, 0.1, 0.1)
    assert (measured["covered"] == 1).all()
    assert (measured["keys"] == 5).all()


def test_a_large_base_of_a_tame_tail_keeps_the_promise_and_a_key_that_the_base_misses_breaks_it():
    tame_RN = 0.5 * torch.randn(4000, 400, generator=torch.manual_seed(2))
    none_RN = torch.zeros_like(tame_RN, dtype=torch.bool)
    measured = measure_coverage(tame_RN, none_RN, numbers(4000, 400), 0.2, 0.05, 0.1)
    # the normal quantile bounds one side: at most 2 delta of rows are outside, fewer without replacement
    assert 0.8 - 0.03 < float(measured["covered"].mean()) < 1
    heavy_RN = torch.zeros(4000, 400)
    heavy_RN[:, 7] = math.log(400.0)  # half of the denominator
    missed = measure_coverage(heavy_RN, none_RN, numbers(4000, 400), 0.01, 0.1, 0.1)
    seen = float((missed["sampled"] > 0.5).double().mean())
    assert float(missed["covered"].mean()) == pytest.approx(seen, abs=0.01)  # where the base has it, all are sampled
    assert seen == pytest.approx(4 / 400, abs=0.01)
