"""The checkpoint source: rows of a real transformers model on real text.

A causal model runs once per text sample, over the longest length: the row of position i does not depend on later
tokens, so that one pass holds the rows of every length [T8]. An encoder runs once per length, and a model whose rotary
factors change with the length of the pass once per set of factors.

Rows of different lengths are thereby rows of different queries. The variant `truncated_context` is the control: for
each length n the model reads only the last n tokens of the sample, so that the same last tokens ask at every length.
And `no_sink` hides key 0, on which many heads park their attention, from the rows of the ordinary pass.

Shape letters besides those of `experiments.rows`: K kinds of layers.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache, partial
from typing import TYPE_CHECKING, Any, ClassVar

from experiments.errors import UserError
from experiments.lazy import np, torch
from experiments.machine import AUTO
from experiments.models.locate import Checkpoint as Located
from experiments.models.locate import locate
from experiments.ranges import check_range
from experiments.rows import Rows
from experiments.sources import NO_MATRICES, Batch, MatrixRequest, ignore
from experiments.sources.sampling import causal_positions, check_causal_rows, check_runs, check_sampling, stride_of
from experiments.sources.text import corpus_suffix, read_start, text_bytes, text_hash

if TYPE_CHECKING:
    from torch import Tensor

    from experiments.machine import Machine
    from experiments.models.probe import Attention

PLAIN, NO_SINK, TRUNCATED = VARIANTS = ("plain", "no_sink", "truncated_context")
DTYPES = ("float32", "float64", "bfloat16", "float16")
TRIAL_TOKENS = 12
CHARACTERS_PER_TOKEN = 8  # read at first; twice as many until they are enough
CUT = 64  # tokens at the end of a text that is cut off there, whose tokens change if the text goes on
MASK_BYTES = 5  # of one query and one key: a bool, and the float32 that it becomes
MOST_LAYERS = 1024
FLOPS_PER_SECOND = 7.5e10  # of a forward pass, on each core; only an estimate's scale
LEAST_DIM = 32  # heads of fewer dimensions take as long as these: exponentials and memory, not products
MASK_SECONDS = 4.5e-9  # of one core, for one query and one key of a layer's mask
IN_BLOCKS = (
    2.0  # times as long as otherwise takes what one query and one key cost where a block of rows is read by itself
)
SPAN_SECONDS = 2.5e-9  # to find the keys that a block of rows sees, for one of its queries and one key, once per pass


@dataclass
class Checkpoint:
    """Rows of `model` reading `samples` non-overlapping pieces of `text`, at the last positions of each length.

    The seed chooses the pieces: seed s reads the pieces s x samples to (s + 1) x samples - 1.
    """

    model: str
    lengths: list[int]
    rows: int
    samples: int
    name: str = "checkpoint"
    text: str | None = None
    shuffle: bool = False
    layers: list[int] | None = None
    heads: list[int] | None = None
    dtype: str = "float32"
    variants: list[str] = field(default_factory=lambda: [PLAIN])
    stride: int | None = None
    runs: list[int] = field(default_factory=list)
    keep_layers: int = 0
    trust_remote_code: bool = False
    random_weights: int | None = None
    device_map: str | None = None
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        check_sampling(self.lengths, self.rows, self.samples)
        check_causal_rows(self.lengths, self.rows, self.stride)
        check_runs(self.runs, self.lengths)
        check_range("source.keep_layers", self.keep_layers, least=0, most=MOST_LAYERS)
        check_range("source.random_weights", self.random_weights, least=0, most=2**32 - 1)
        for name in ("layers", "heads", "variants"):
            if getattr(self, name) == []:
                raise UserError(f"source.{name} is empty: name at least one, or leave it out for the default")
        if PLAIN not in self.variants or not set(self.variants) <= set(VARIANTS):
            raise UserError(f"source.variants={self.variants}: give {PLAIN}, and {NO_SINK} or {TRUNCATED} beside it")
        if NO_SINK in self.variants and min(self.lengths) - 1 == (self.rows - 1) * self._distance:
            raise UserError(
                f"source.variants has {NO_SINK}, which hides key 0, and that is all that the first row of length "
                f"{min(self.lengths)} sees: give fewer rows or a longer length"
            )
        if self.device_map not in (None, AUTO):
            raise UserError(f"source.device_map={self.device_map}: give {AUTO}, or null for one device")
        if self.dtype not in DTYPES:
            raise UserError(f"source.dtype={self.dtype}: choose one of {', '.join(DTYPES)}")

    @property
    def located(self) -> Located:
        """The checkpoint on disk."""
        checkpoint = locate(self.model, trusted=self.trust_remote_code)
        return replace(checkpoint, random_weights=self.random_weights, spread=self.device_map is not None)

    @property
    def label(self) -> str:
        """The model's name, and its corpus unless that is the default prose."""
        weights = "" if self.random_weights is None else ", random weights"
        return self.located.label + weights + corpus_suffix(self.text, self.shuffle)

    @property
    def _distance(self) -> int:
        """How far apart the rows of a length are."""
        return stride_of(self.stride, self.lengths, self.rows)

    def identity(self) -> dict[str, object]:
        """Return every field but the name, with model, its code and text replaced by their hashes."""
        # they decide no row, or do so by the hash of the model
        others = ("name", "trust_remote_code", "keep_layers", "random_weights", "device_map")
        fields = {name: value for name, value in asdict(self).items() if name not in others}
        return fields | {"stride": self._distance} | self.hashes()

    @property
    def draws(self) -> bool:
        """Whether the seed decides the rows: it chooses the pieces of the text, and the order of shuffled tokens."""
        return True

    def hashes(self) -> dict[str, str | None]:
        """Return the SHA-256 of the model's files and of the text."""
        return {"model": self.located.sha256(), "text": text_hash(self.text)}

    def layers_and_heads(self) -> tuple[list[int], list[int]]:
        """Return the selected layers, and the heads that at least one of them has, all by default."""
        heads_of = self._heads_of_layers(self._checked_config())
        return list(heads_of), sorted(set().union(*heads_of.values()))

    def heads_per_kv_head(self) -> list[int]:
        """Return how many query heads share a KV head, of each layer of the model."""
        from experiments.models.shape import heads_per_kv_head

        return heads_per_kv_head(self._checked_config())

    def batches(self) -> list[Batch]:
        """Check lengths and text against the model before its weights are loaded; one batch per head and length."""
        from experiments.models.positions import by_regime
        from experiments.models.shape import head_dim

        config = self._checked_config()
        by_regime(config, self.lengths)  # refuses lengths at which no row is defined
        count = sum(map(len, self._heads_of_layers(config).values())) * self.samples
        run, width = max(self.runs, default=0), head_dim(config)
        return [
            Batch(count, self.rows, n, width, variant, run if variant == PLAIN else 0)
            for variant in self.variants
            for n in self.lengths
        ]

    def resident_bytes(self) -> int:
        """Return the size of the weights and of a few layers' activations at the longest length, on one device."""
        from experiments.models.tiles import at_once

        config = self._checked_config()
        size = torch.finfo(getattr(torch, self.dtype)).bits // 8
        inner = getattr(config, "intermediate_size", None)
        inner = inner if isinstance(inner, int) else 4 * config.hidden_size
        longest, devices = max(self.lengths), max(1, torch.accelerator.device_count()) if self.device_map else 1
        states = longest * (4 + 2 * self.keep_layers) * config.hidden_size + 3 * at_once(longest) * inner
        return int(size * (_parameters(config) / devices + states))

    def mask_bytes(self) -> int:
        """Return the size of a mask of a pass over the longest length, which only layers that hide keys have."""
        from experiments.models.masks import BLOCK, MOST_ENTRIES

        longest = max(self.lengths)
        seen, _ = self.seen_keys(np.array([longest]))
        rows = longest if longest**2 <= MOST_ENTRIES else BLOCK
        return MASK_BYTES * rows * longest if seen.min() < longest else 0

    def seconds(self, machine: Machine) -> float:
        """Estimate the time of the forward passes."""
        longest = max(self.lengths)
        passes = [longest, *(self.lengths if TRUNCATED in self.variants else [])]
        return machine.seconds(self.samples * sum(map(self._seconds_of_pass, passes)), self.dtype)

    def _seconds_of_pass(self, num_keys: int) -> float:
        """Estimate the seconds of one core of the reference machine for a pass over a context.

        Heads without a mask skip the later half of the keys. With one none is skipped in a short context; in a long
        one those are that a block of rows does not see.
        """
        from experiments.models.masks import BLOCK, MOST_ENTRIES
        from experiments.models.shape import head_dim

        config = self._checked_config()
        seen_KN, heads_K = self.seen_keys(np.array([num_keys]))
        masked_K = seen_KN[:, 0] < num_keys
        layers_K = heads_K * config.num_hidden_layers / heads_K.sum()
        per_entry = 4 * max(head_dim(config), LEAST_DIM) / FLOPS_PER_SECOND
        late = num_keys**2 > MOST_ENTRIES
        read_K = np.minimum(seen_KN[:, 0] + BLOCK, num_keys) if late else np.full(len(seen_KN), num_keys)
        each = IN_BLOCKS if late else 1.0
        entries = num_keys * (heads_K * np.where(masked_K, each * read_K, num_keys / 2)).sum()
        masks = MASK_SECONDS * num_keys * (layers_K * read_K)[masked_K].sum()
        spans = SPAN_SECONDS * num_keys**2 * masked_K.sum() if late else 0.0
        return float(2 * num_keys * _parameters(config) / FLOPS_PER_SECOND + entries * per_entry + masks + spans)

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
        """Push the rows of every selected layer, head and length while the model reads each sample."""
        from experiments.models.below import LayersBelow
        from experiments.models.load import load_model
        from experiments.models.positions import by_regime
        from experiments.models.probe import check_watchable, forward, watch

        config = self._checked_config()
        layers = list(self._heads_of_layers(config))
        documents = self.documents(seed)
        first = min(documents)
        model = load_model(self.located, getattr(torch, self.dtype), device)
        causal = check_watchable(model, documents[first][:TRIAL_TOKENS])
        if not causal:
            self._check_both_ways()
        lengths, longest = sorted(self.lengths), max(self.lengths)
        groups = by_regime(config, lengths) if causal else [[length] for length in lengths]
        measured_heads: set[int] = set()
        of_full_pass = [variant for variant in self.variants if variant != TRUNCATED]

        below = LayersBelow(self.keep_layers) if self.keep_layers else None

        @cache  # what goes to the device goes there once: each copy waits for all that the device has to do
        def positions(length: int, rows: int, stride: int, where: torch.device) -> Tensor:
            of_pass = causal_positions(length, rows, stride) if causal else _spread_positions(length, rows)
            return of_pass.to(where)

        def look(sample: int, lengths: list[int], variants: list[str], attention: Attention) -> None:
            if below is not None:
                below.add(attention)
            if attention.layer not in layers:
                return
            heads = [head for head in range(len(attention.query_HND)) if self.heads is None or head in self.heads]
            measured_heads.update(heads)
            groups: list[Rows] = []
            consecutive: list[Rows] = []

            @cache  # all heads of a layer have one mask, as a rule
            def visible(mask: int, length: int, rows: int, stride: int) -> Tensor | None:
                return _visible(
                    attention, mask, length, positions(length, rows, stride, attention.key_GND.device), causal
                )

            def rows_of(sharing: list[int], length: int, rows: int, stride: int) -> Rows:
                seen = [visible(min(head, attention.masks - 1), length, rows, stride) for head in sharing]
                position_R = positions(length, rows, stride, attention.key_GND.device)
                of_heads = _rows_of(attention, sharing, sample, length, position_R, seen, causal)
                return of_heads if below is None else replace(of_heads, below=below.rows)

            for _, shared in itertools.groupby(heads, attention.kv_head):
                sharing = list(shared)
                if self.runs and len(sharing) * len(attention.key_GND) < len(attention.query_HND):
                    raise UserError(
                        f"source.runs measures all query heads that share a KV head, but source.heads={self.heads} has "
                        f"only {sharing} of one: leave out source.heads, or name the others too"
                    )
                for length in lengths:
                    rows = rows_of(sharing, length, self.rows, self._distance)
                    groups += [
                        _without_first_key(rows) if variant == NO_SINK else replace(rows, variant=variant)
                        for variant in variants
                    ]
                    if self.runs and PLAIN in variants:
                        consecutive.append(rows_of(sharing, length, max(self.runs), 1))
            measure(groups)
            if consecutive:
                runs(consecutive)
            for head in heads if PLAIN in variants and longest in lengths else []:
                if matrices.wants(attention.layer, head, sample - first):
                    record(rows_of([head], longest, longest, 1))

        def read(sample: int, token_N: Tensor, lengths: list[int], variants: list[str]) -> None:
            with watch(model, partial(look, sample, lengths, variants)):
                forward(model, token_N)

        for sample, token_N in documents.items():
            for group in groups:
                read(sample, token_N[: group[-1]], group, of_full_pass)
            if unknown := sorted(set(self.heads or ()) - measured_heads):
                raise UserError(f"source.heads has {unknown[0]}, which no selected layer of {self.located.label} has")
            for length in lengths if TRUNCATED in self.variants else []:
                read(sample, token_N[longest - length :], [length], [TRUNCATED])

    def is_encoder(self) -> bool:
        """Say whether the model is known for one whose rows see later keys, before its weights are loaded."""
        from experiments.models.load import is_encoder

        return is_encoder(self.located)

    def check_causal(self, runner: str) -> None:
        """Raise UserError, naming the runner, if the model is known for no causal language model."""
        from experiments.models.load import check_causal

        check_causal(self.located, runner)

    def documents(self, seed: int) -> dict[int, Tensor]:
        """Return the tokens of each text sample [N], N the largest length, by the number of its piece of the text."""
        return dict(enumerate(self._token_samples(seed), seed * self.samples))

    def seen_keys(self, n_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return how many of n keys rows see in each kind of layer [kinds, N], and the heads of each kind [kinds]."""
        from experiments.models.shape import keys_seen

        return keys_seen(self._checked_config(), n_N)

    def _checked_config(self) -> Any:
        from experiments.models.load import load_config
        from experiments.models.shape import check_config, longest_context

        config, label = load_config(self.located), self.located.label
        check_config(label, config)
        longest, context = max(self.lengths), longest_context(config)
        if context is not None and longest > context:
            raise UserError(
                f"source.lengths has {longest}, but {label} reads at most {context} tokens: give shorter lengths"
            )
        self._check_text(text_bytes(self.text), "bytes")
        return config

    def _check_both_ways(self) -> None:
        """Raise UserError for what has no meaning where rows see later keys too."""
        label = self.located.label
        if TRUNCATED in self.variants:
            raise UserError(f"{label} sees both ways, so no context lies to the left: leave out {TRUNCATED}")
        if self.stride is not None:
            raise UserError(f"{label} sees both ways: its rows are spread over the context; leave out source.stride")
        if self.runs:
            raise UserError(f"{label} sees both ways, so no cache grows along a run of rows: leave out source.runs")

    def _check_text(self, available: int, unit: str, seed: int = 0) -> None:
        needed = (seed + 1) * self.samples * max(self.lengths)
        if available < needed:
            pieces = f" from the {seed * self.samples + 1}th piece on (seed={seed})" if seed else ""
            raise UserError(
                f"source.text has {available} {unit}, but {self.samples} samples of {max(self.lengths)} tokens{pieces} "
                f"need {needed}: give a longer text, fewer samples{', a smaller seed' if seed else ''} or shorter "
                "lengths"
            )

    def _token_samples(self, seed: int = 0) -> Tensor:
        """Return tokens [samples, N]: piece i of the text is its tokens [iN, (i + 1)N).

        A shuffle permutes each sample within itself: it holds the tokens that the plain sample holds, and what is gone
        is their order alone.
        """
        from experiments.models.load import load_config

        longest = max(self.lengths)
        start, stop = (pieces * self.samples * longest for pieces in (seed, seed + 1))
        self._check_text(text_bytes(self.text), "bytes", seed)  # a token is a byte at least: nothing is read in vain
        token_T = first_tokens(self.located, self.text, stop)
        self._check_text(len(token_T), "tokens", seed)
        tokens_SN = token_T[start:stop].view(self.samples, longest)
        vocabulary = load_config(self.located).vocab_size
        if int(tokens_SN.max()) >= vocabulary:
            raise UserError(
                f"{self.located.label}: its tokenizer gives token {int(tokens_SN.max())}, but its config.json names "
                f"{vocabulary} tokens; give the tokenizer of this model"
            )
        if self.shuffle:
            orders = [np.random.default_rng([seed, i]).permutation(longest) for i in range(self.samples)]
            tokens_SN = tokens_SN.gather(1, torch.from_numpy(np.stack(orders)))
        return tokens_SN

    def _heads_of_layers(self, config: Any) -> dict[int, list[int]]:
        """Return the selected heads of each selected layer, as far as the configuration says.

        Raises
        ------
        UserError
            If a selected layer, or a selected head of every layer, is missing.
        """
        from experiments.models.shape import heads_of_layers

        counts = heads_of_layers(config)
        for name, requested, total in (("layers", self.layers, len(counts)), ("heads", self.heads, max(counts))):
            if bad := [index for index in requested or () if not 0 <= index < total]:
                raise UserError(f"source.{name} has {bad[0]}, but {self.located.label} has {name} 0..{total - 1}")
        layers = range(len(counts)) if self.layers is None else sorted(set(self.layers))
        selected = {layer: range(counts[layer]) for layer in layers}
        return {layer: [h for h in heads if self.heads is None or h in self.heads] for layer, heads in selected.items()}


def first_tokens(checkpoint: Located, text: str | None, count: int) -> Tensor:
    """Return the token ids of a text, at least the first `count` if it has so many; no more of it is read than needed.

    Parameters
    ----------
    text
        As `experiments.sources.text.read_start` takes it.
    """
    from experiments.models.load import tokenize

    characters = CHARACTERS_PER_TOKEN * (count + CUT)
    while True:
        start = read_start(text, characters)
        token_T = tokenize(checkpoint, start)
        if len(start) < characters:
            return token_T
        if len(token_T) >= count + CUT:
            return token_T[:-CUT]
        characters *= 2


def _visible(attention: Attention, head: int, length: int, position_R: Tensor, causal: bool) -> Tensor | None:
    """Return which keys of a context the queries of a head see [R, N]; None if all, or those up to each one's own.

    Raises
    ------
    UserError
        If a query of a causal model sees a later key.
    """
    if causal and attention.mask is None:
        return None
    visible_RN = attention.visible(head, position_R, length)
    if causal and visible_RN is not None:
        later_RN = torch.arange(length, device=position_R.device) > position_R[:, None]
        if bool((later_RN & visible_RN).any()):
            raise UserError(
                f"layer {attention.layer} sees later keys in a context of {length}, and none in one of {TRIAL_TOKENS}: "
                "a model that is causal at some lengths alone is not measured"
            )
    return visible_RN


def _rows_of(
    attention: Attention,
    heads: list[int],
    sample: int,
    length: int,
    position_R: Tensor,
    visible: Sequence[Tensor | None],
    causal: bool,
) -> Rows:
    """Return the rows of heads that share a KV head, one head after the other.

    Parameters
    ----------
    visible
        Which keys the queries of each head see; see `_visible`.
    """
    kv_head = attention.kv_head(heads[0])
    positions_R = position_R.repeat(len(heads))
    head_R = torch.cat([torch.full_like(position_R, head) for head in heads])

    from experiments.models.earlier import of_pass

    return Rows(
        layer=attention.layer,
        head_R=head_R,
        sample=sample,
        variant=PLAIN,
        length=length,
        position_R=positions_R,
        query_RD=attention.query_HND[head_R, positions_R],
        key_ND=attention.key_GND[kv_head, :length],
        value_NV=attention.value_GNV[kv_head, :length],
        scale=attention.scale,
        visible_RN=None if visible[0] is None else torch.cat([part_RN for part_RN in visible if part_RN is not None]),
        causal=causal and attention.mask is None and attention.causal,
        earlier=of_pass(attention, kv_head) if causal else None,
        kv_head=kv_head,
        softcap=attention.softcap,
        sink_S=attention.sinks_of(kv_head),
    )


def _without_first_key(rows: Rows) -> Rows:
    """Hide key 0, where a sink would be, from every row; what remains is renormalised by its softmax."""
    visible_RN = rows.visible().clone()
    visible_RN[:, 0] = False
    return replace(rows, variant=NO_SINK, visible_RN=visible_RN, causal=False)


def _spread_positions(length: int, rows: int) -> Tensor:
    """Return positions [R] spread evenly over an encoder's context, where every row sees all keys."""
    return torch.linspace(0, length - 1, rows).round().long()


def _parameters(config: Any) -> int:
    """Return the number of parameters of a configuration's model."""
    from experiments.models.shape import parameters

    return parameters(config)
