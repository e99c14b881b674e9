"""What an approximation would leave, estimated from a sketch of what it approximates (arXiv 2408.08494).

Shape letters: R rows, N entries, H hash rows, B buckets, T rows of a Gaussian sketch, C columns, K entries of the
head of a row.
"""

from __future__ import annotations

import torch
from torch import Tensor

HASHES = 5


class CountSketch:
    """Signed sums of the entries of vectors in buckets, once per hash row; linear in the vectors."""

    def __init__(self, entries: int, buckets: int, draw: int, device: torch.device | None = None) -> None:
        """Draw a bucket and a sign for every entry, in each of five hash rows."""
        generator = torch.Generator().manual_seed(draw)
        shape = HASHES, entries
        self.bucket_HN = torch.randint(buckets, shape, generator=generator).to(device)
        self.sign_HN = (2.0 * torch.randint(2, shape, generator=generator) - 1).double().to(device)
        self._buckets = buckets

    def of(self, vector_RN: Tensor) -> Tensor:
        """Return the sketch [R, H, B] of vectors, float64."""
        signed_RHN = vector_RN.double()[:, None] * self.sign_HN
        sketch_RHB = signed_RHN.new_zeros(len(vector_RN), HASHES, self._buckets)
        return sketch_RHB.scatter_add_(2, self.bucket_HN.expand_as(signed_RHN), signed_RHN)

    def entries(self, sketch_RHB: Tensor) -> Tensor:
        """Return estimates of all entries [R, N]: the median over hash rows of the signed buckets."""
        found_RHN = sketch_RHB.gather(2, self.bucket_HN.expand(len(sketch_RHB), -1, -1)) * self.sign_HN
        return found_RHN.median(1).values

    def tail(self, sketch_RHB: Tensor, k: int) -> Tensor:
        """Return the estimated L2 norm [R] of what is left without the k largest entries, by their estimates."""
        estimate_RN = self.entries(sketch_RHB)
        kept_RK = estimate_RN.abs().topk(k, dim=-1).indices
        head_RN = torch.zeros_like(estimate_RN).scatter_(1, kept_RK, estimate_RN.gather(1, kept_RK))
        left_RHB = sketch_RHB - self.of(head_RN)
        return left_RHB.square().sum(-1).median(1).values.clamp(min=0).sqrt()


def tail_norm(vector_RN: Tensor, k: int) -> Tensor:
    """Return the L2 norm [R] of vectors without their k largest entries."""
    magnitude_RN = vector_RN.double().abs().sort(dim=-1, descending=True).values
    return magnitude_RN[:, k:].square().sum(-1).sqrt()


def rank_tail(matrix_RN: Tensor, rank: int) -> Tensor:
    """Return the Frobenius norm of what the best matrix of a rank leaves of a matrix."""
    return torch.linalg.svdvals(matrix_RN.double())[rank:].norm()


def sketched_rank_tail(matrix_RN: Tensor, rank: int, size: int, draw: int) -> Tensor:
    """Estimate `rank_tail` from S A T, S and T Gaussian of `size` rows and columns of variance 1 / size."""
    generator = torch.Generator().manual_seed(draw)
    rows, entries = matrix_RN.shape
    left_TR, right_NT = (
        torch.randn(shape, generator=generator, dtype=torch.float64).to(matrix_RN.device) / size**0.5
        for shape in ((size, rows), (entries, size))
    )
    return rank_tail(left_TR @ matrix_RN.double() @ right_NT, rank)


def column_tail(output_RC: Tensor, k: int) -> Tensor:
    """Return per output column the share of its L2 norm that its k largest rows leave [C] (after arXiv 2311.14652).

    A recovery from a sketch of every column errs by at least that.
    """
    return tail_norm(output_RC.T, k) / output_RC.double().norm(dim=0).clamp(min=1e-300)
