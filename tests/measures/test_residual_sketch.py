"""Sketches of tails against cases whose answer is known."""

import math

import pytest
import torch

from experiments.measures.residual_sketch import (
    CountSketch,
    column_tail,
    rank_tail,
    sketched_rank_tail,
    tail_norm,
)


def test_a_sparse_vector_leaves_nothing_and_its_entries_are_recovered():
    vector_RN = torch.zeros(3, 1000)
    vector_RN[torch.arange(3)[:, None], torch.tensor([[1, 50], [7, 999], [3, 4]])] = torch.tensor([0.7, -0.3])
    sketch = CountSketch(1000, 64, 0)
    sketch_RHB = sketch.of(vector_RN)
    assert float(sketch.tail(sketch_RHB, 2).max()) < 1e-9
    torch.testing.assert_close(sketch.entries(sketch_RHB)[0, [1, 50]], vector_RN[0, [1, 50]].double())


def test_equal_entries_leave_the_root_of_their_number():
    flat_RN = torch.full((1, 500), 1 / 500)
    assert float(tail_norm(flat_RN, 20)[0]) == pytest.approx(math.sqrt(480) / 500)


def test_the_sketch_is_linear_and_its_squares_are_unbiased():
    first_RN, second_RN = torch.randn(1, 300, generator=torch.manual_seed(0)), torch.randn(1, 300)
    sketch = CountSketch(300, 32, 1)
    first_RN, second_RN = first_RN.double(), second_RN.double()
    torch.testing.assert_close(sketch.of(first_RN) + sketch.of(second_RN), sketch.of(first_RN + second_RN))
    squares = torch.stack([CountSketch(300, 32, draw).of(first_RN).square().sum(-1).mean() for draw in range(400)])
    assert float(squares.mean()) == pytest.approx(float(first_RN.square().sum()), rel=0.03)


def test_a_wide_sketch_tells_the_tail_and_a_narrow_one_says_more():
    vector_RN = torch.softmax(2 * torch.randn(64, 2000, generator=torch.manual_seed(2)), -1)
    true_R = tail_norm(vector_RN, 16)
    ratios = {}
    for width in (64, 4096):
        sketch = CountSketch(2000, width, 0)
        ratios[width] = float((sketch.tail(sketch.of(vector_RN), 16) / true_R).median())
    assert ratios[4096] == pytest.approx(1, abs=0.05)
    assert ratios[64] > ratios[4096]


def test_a_gaussian_sketch_of_rank_nothing_is_unbiased_and_finds_low_rank():
    generator = torch.manual_seed(3)
    matrix_RN = torch.randn(60, 200, generator=generator).double()
    squares = [float(sketched_rank_tail(matrix_RN, 0, 40, draw)) ** 2 for draw in range(200)]
    assert sum(squares) / 200 == pytest.approx(float(matrix_RN.square().sum()), rel=0.05)
    low = torch.randn(60, 3, generator=generator).double() @ torch.randn(3, 200, generator=generator).double()
    assert float(rank_tail(low, 3)) < 1e-9
    assert float(sketched_rank_tail(low, 3, 30, 0)) < 1e-9


def test_a_column_of_few_tokens_leaves_nothing():
    output_RC = torch.zeros(100, 4)
    output_RC[[3, 60]] = torch.randn(2, 4)
    assert float(column_tail(output_RC, 2).max()) == 0
    assert float(column_tail(torch.ones(100, 4), 25).max()) == pytest.approx(math.sqrt(0.75))
