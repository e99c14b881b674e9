"""The Gaussian source (theory.md section 3): iid keys, an orthogonal W, logits iid N(0, sigma^2) given the query.

Shape letters: R rows, N keys, D head dimension, C rows of a chunk.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar

from experiments.cache import Earlier
from experiments.errors import UserError
from experiments.lazy import np, torch
from experiments.ranges import MOST_LOGIT, check_range
from experiments.rows import Rows
from experiments.sources import NO_MATRICES, Batch, MatrixRequest, ignore
from experiments.sources.sampling import check_sampling

if TYPE_CHECKING:
    from torch import Tensor

    from experiments.machine import Machine

DEFAULT_S = 0.5
NORMALS_PER_SECOND = 1e8
MOST_DIMENSIONS = 1024
CHUNK = 131_072  # keys that are normalised at once, in place


@dataclass
class Gaussian:
    """Keys' inputs iid N(0, I_d), W = (sigma / sqrt d) times a random orthogonal matrix, values iid N(0, I_d).

    Either `sigma` fixes the deviation of the logits, or `s` lets it grow as sigma = s sqrt(ln n); with neither, s =
    0.5. With inputs=layernorm every input is layer-normed, as in the paper's model: the logits are then bounded by
    sigma sqrt d and the closed forms hold only well inside that bound.
    """

    lengths: list[int]
    rows: int
    samples: int
    name: str = "gaussian"
    s: float | None = None
    sigma: float | None = None
    inputs: str = "gaussian"
    head_dim: int = 64
    dtype: str = "float32"
    version: ClassVar[int] = 1
    draws: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_sampling(self.lengths, self.rows, self.samples)
        if self.s is not None and self.sigma is not None:
            raise UserError(
                f"source.s={self.s} and source.sigma={self.sigma} both set the logit scale: give one of them"
            )
        if self.s is None and self.sigma is None:
            self.s = DEFAULT_S
        check_range("source.s", self.s, least=0, most=MOST_LOGIT)
        check_range("source.sigma", self.sigma, least=0, most=MOST_LOGIT)
        if self.inputs not in ("gaussian", "layernorm"):
            raise UserError(f"source.inputs={self.inputs}: choose gaussian or layernorm")
        check_range("source.head_dim", self.head_dim, least=2, most=MOST_DIMENSIONS)
        if self.dtype not in ("float32", "float64"):
            raise UserError(f"source.dtype={self.dtype}: the Gaussian source draws float32 or float64")

    @property
    def label(self) -> str:
        """The distribution, as a figure names it."""
        scale = f"s = {self.s:g}" if self.s is not None else f"sigma = {self.sigma:g}"
        return f"Gaussian, {scale}" + (", layer-normed" if self.inputs == "layernorm" else "")

    def identity(self) -> dict[str, object]:
        """Return every field but the name."""
        return {name: value for name, value in asdict(self).items() if name != "name"}

    def hashes(self) -> dict[str, str | None]:
        """Return no hashes: nothing is read from files."""
        return {"model": None, "text": None}

    def layers_and_heads(self) -> tuple[list[int], list[int]]:
        """Return layer 0 and head 0."""
        return [0], [0]

    def batches(self) -> list[Batch]:
        """Return one batch per length, once per draw."""
        return [Batch(self.samples, self.rows, n, self.head_dim) for n in self.lengths]

    def resident_bytes(self) -> int:
        """Return the size of the longest context's keys and values, and of the earlier queries that a selector may see.

        What is drawn besides, and what drawing copies, is a chunk of them and the queries of the rows.
        """
        size = torch.finfo(getattr(torch, self.dtype)).bits // 8
        context, chunk = max(self.lengths), min(max(self.lengths), CHUNK)
        vectors = 3 * context + 2 * chunk + 4 * self.rows + 4 * self.head_dim
        return vectors * self.head_dim * size

    def seconds(self, machine: Machine) -> float:
        """Estimate the drawing time, which is one core's."""
        return 2 * self.head_dim * sum(self.lengths) * self.samples / NORMALS_PER_SECOND

    def logit_deviation(self, length: int) -> float:
        """Return sigma at context length `length`: fixed, or s sqrt(ln n)."""
        if self.sigma is not None:
            return self.sigma
        assert self.s is not None  # __post_init__ has set one of the two
        return self.s * math.sqrt(math.log(length))

    def stream(
        self,
        measure: Callable[[Sequence[Rows]], None],
        *,
        seed: int,
        device: torch.device,
        matrices: MatrixRequest = NO_MATRICES,
        record: Callable[[Rows], None] = ignore,
        runs: Callable[[Sequence[Rows]], None] = ignore,
    ) -> None:
        """Push one group of rows per draw and length; `layer` and `head` are 0. No row comes before another."""
        for sample in range(self.samples):
            for length in self.lengths:
                rows = self.draw(length, sample, seed, device)
                measure([rows])
                if matrices.wants(0, 0, sample):
                    record(rows)
                del rows  # before the next ones are drawn

    def context(self, normal: Callable[..., Tensor], length: int) -> tuple[Tensor, Tensor]:
        """Draw the inputs of the keys, and the values [N, D]."""
        return normal(length, self.head_dim), normal(length, self.head_dim)

    def draw(self, length: int, sample: int, seed: int, device: torch.device) -> Rows:
        """Draw one context of `length` keys with its queries.

        The stream of random numbers depends on seed, draw and length alone, so that logit scales are compared on the
        same inputs, and always runs on the CPU, so that a device does not change the data.
        """
        entropy = np.random.SeedSequence([seed, sample, length])
        generator = torch.Generator().manual_seed(int(entropy.generate_state(1, np.uint64)[0]))
        dtype = getattr(torch, self.dtype)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=dtype)

        orthogonal_DD = _random_orthogonal(normal(self.head_dim, self.head_dim))
        key_ND, value_ND = self.context(normal, length)
        query_input_RD = normal(self.rows, self.head_dim)  # last, so that more rows leave the rest as it was
        if self.inputs == "layernorm":
            _normalise(query_input_RD)
            _normalise(key_ND)
        scale = self.logit_deviation(length) / math.sqrt(self.head_dim)

        def queries(input_RD: Tensor) -> Tensor:
            norm_R1 = input_RD.norm(dim=-1, keepdim=True)
            return (input_RD * (math.sqrt(self.head_dim) / norm_R1)) @ orthogonal_DD

        @lru_cache(maxsize=1)
        def earlier_queries() -> Tensor:
            """Draw a query for every position before the last, from a stream of its own, once it is asked for."""
            before = torch.Generator().manual_seed(int(entropy.spawn(1)[0].generate_state(1, np.uint64)[0]))
            query_ND = torch.randn(length, self.head_dim, generator=before, dtype=dtype)
            if self.inputs == "layernorm":
                _normalise(query_ND)
            for part_CD in query_ND.split(CHUNK):
                part_CD.copy_(queries(part_CD)).mul_(scale)
            return query_ND.to(device)

        keys_ND = key_ND.to(device)

        def earlier(start: int, stop: int) -> Tensor:
            position_R = torch.arange(start, stop, device=device)
            hidden_RN = torch.arange(stop, device=device) > position_R[:, None]
            return (earlier_queries()[start:stop] @ keys_ND[:stop].T).masked_fill_(hidden_RN, -torch.inf)[None]

        return Rows(
            layer=0,
            head_R=torch.zeros(self.rows, dtype=torch.int64, device=device),
            sample=sample,
            variant="plain",
            length=length,
            position_R=torch.full((self.rows,), length - 1, device=device),
            query_RD=queries(query_input_RD).to(device),
            key_ND=keys_ND,
            value_NV=value_ND.to(device),
            scale=scale,
            earlier=Earlier(earlier, lambda start, stop: earlier_queries()[None, start:stop]),
        )


def _normalise(input_ND: Tensor) -> None:
    """Layer-norm every input in place, a chunk at a time."""
    for part_CD in input_ND.split(CHUNK):
        part_CD.copy_(torch.nn.functional.layer_norm(part_CD, part_CD.shape[1:], eps=0.0))


def _random_orthogonal(normal_DD: Tensor) -> Tensor:
    """Return a Haar-distributed orthogonal matrix; the signs of R's diagonal make the QR factor unique."""
    q_DD, r_DD = torch.linalg.qr(normal_DD)
    return q_DD * r_DD.diagonal().sign()
