"""The pruning runner: what rows and losses become when most query and key weights are zero.

Shape letters besides those of `experiments.rows`: O output channels, I input channels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from rich.table import Table

from experiments.errors import UserError
from experiments.lazy import np, pd, torch
from experiments.machine import Machine
from experiments.plan import Plan, memory_of
from experiments.ranges import MOST_KEYS, check_range
from experiments.records.folder import Record
from experiments.runners import ROW_FIELDS, Findings, without
from experiments.sources import ReadsText
from experiments.tables import Table as RecordTable
from experiments.tables.pruning import CRITERIA, DENSE, GRADIENT, HEAD_SALIENCY, PRUNING, PRUNING_LOSSES, SALIENCY

if TYPE_CHECKING:
    from torch import Tensor

    from experiments.models.pruned import LayerInput, Pair

GRADIENT_BYTES = 0.5e9  # for what gradients of a layer need beside: 1.6 to 1.9 GB were seen of SmolLM2
LINE_BYTES = 40
STEP = 1.0  # seconds of a step of descent in one layer, over those of the layer's plain forward pass
LEAST_STEP = 8e-3  # seconds of the reference machine's core that a step takes besides, however small the layer


@dataclass
class Pruning:
    """Prune W_Q and W_K of each layer by each criterion on the first tokens of a sample, and judge on the next ones.

    Both stretches have `tokens` tokens and are contexts of their own. Each layer is judged alone, at the input that the
    dense model gives it; then the loss of the held-out tokens is that of the model with all `source.layers` pruned.

    `steps` and `penalty` are of the criterion `gradient`, `probes` is of both saliencies.
    """

    criteria: list[str]
    shares: list[float]
    tokens: int = 256
    steps: int = 80
    penalty: float = 1e-3
    probes: int = 16
    name: str = "pruning"
    tables: ClassVar[tuple[RecordTable, ...]] = (PRUNING, PRUNING_LOSSES)
    version: ClassVar[int] = 2  # agreement and KL
    draws: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not self.criteria or len(set(self.criteria)) < len(self.criteria) or not set(self.criteria) <= set(CRITERIA):
            raise UserError(f"runner.criteria={self.criteria}: give each once, of {', '.join(CRITERIA)}")
        if not self.shares or len(set(self.shares)) < len(self.shares):
            raise UserError(f"runner.shares={self.shares}: give at least one share of the weights, each once")
        check_range("runner.shares", self.shares, above=0, most=1)
        check_range("runner.tokens", self.tokens, least=2, most=MOST_KEYS)
        check_range("runner.steps", self.steps, least=1)
        check_range("runner.penalty", self.penalty, least=0, most=1e6)
        check_range("runner.probes", self.probes, least=1)

    def deciding(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Return the fields but for those of rows, and of criteria that are not asked for.

        Of the lengths the longest alone is read: it says where samples begin.
        """
        unread = set(ROW_FIELDS - {"source.layers"})
        unread |= set() if GRADIENT in self.criteria else {"runner.steps", "runner.penalty"}
        unread |= set() if {SALIENCY, HEAD_SALIENCY} & set(self.criteria) else {"runner.probes"}
        fields = without(fields, unread)
        return fields | {"source.lengths": [max(fields["source.lengths"])]}

    def check(self, source: Any, selector: Any, windows: Any) -> None:
        """Raise UserError if the source is no language model, its weights are fused, or its samples are too short."""
        if not isinstance(source, ReadsText):
            raise UserError(f"source={source.name}: runner={self.name} needs a language model, e.g. source=smollm2")
        source.check_causal(self.name)
        sized: Any = source
        _check_prunable(sized)
        if max(sized.lengths) < 2 * self.tokens:
            raise UserError(
                f"source.lengths has samples of {max(sized.lengths)} tokens, but runner.tokens={self.tokens} are read "
                "to prune and as many to judge: give a longer length or fewer tokens"
            )

    def groups(self, source: Any, selector: Any, windows: Any) -> int:
        """Return how often `run` will call `advance`: once per sample, criterion and layer."""
        return source.samples * len(self.criteria) * len(source.layers_and_heads()[0])

    def plan(self, source: Any, selector: Any, windows: Any, machine: Machine) -> Plan:
        """Return what a job costs: steps and probes in each layer, and forward passes."""
        from experiments.models.load import load_config

        layers, heads = source.layers_and_heads()
        total = load_config(source.located).num_hidden_layers
        steps = {GRADIENT: self.steps, SALIENCY: self.probes, HEAD_SALIENCY: self.probes}
        count = sum(steps.get(criterion, 0) for criterion in self.criteria) * len(layers)
        passes = 3 + len(self.criteria) * len(self.shares) + STEP * count / total
        besides = machine.seconds(source.samples * count * LEAST_STEP, source.dtype)
        lines = source.samples * len(self.criteria) * len(self.shares) * len(layers) * len(heads)
        return Plan(
            rows=source.samples * len(layers) * len(heads) * self.tokens,
            windows=0,
            seconds=source.seconds(machine) * passes * self.tokens / max(source.lengths) + besides,
            memory_bytes=memory_of(source) + GRADIENT_BYTES + 8 * len(heads) * self.tokens**2 * 4,
            disk_bytes=lines * LINE_BYTES,
        )

    def run(
        self,
        source: Any,
        selector: Any,
        windows: Any,
        machine: Machine,
        seed: int,
        record: Record,
        advance: Callable[[], None],
    ) -> None:
        """Measure rows and losses of every sample by every criterion and share.

        Raises
        ------
        UserError
            If the model is no causal language model, or a layer has not W_Q and W_K each as a matrix of its own.
        """
        from experiments.models.language_model import open_language_model
        from experiments.models.loss import DensePass, Quality
        from experiments.models.probe import forward
        from experiments.models.pruned import keep, layer_inputs, pruned, scores

        _check_prunable(source)
        documents, layers = source.documents(seed), source.layers_and_heads()[0]
        contexts = [[self.tokens]]
        model = open_language_model(
            source, machine.device, next(iter(documents.values())), contexts, self.name, cached=False
        )
        for sample, token_N in documents.items():
            first_N, next_N = token_N[: self.tokens], token_N[self.tokens : 2 * self.tokens]
            calibrated, judged = layer_inputs(model, first_N, layers), layer_inputs(model, next_N, layers)

            def add_loss(criterion: str, share: float, quality: Quality) -> None:
                facts = {"sample": sample, "length": self.tokens, "criterion": criterion, "share": share}  # noqa: B023
                means = {"loss": quality.loss_N, "agreement": quality.agreement_N, "kl": quality.kl_N}
                facts |= {name: float(values_N.double().mean()) for name, values_N in means.items()}
                record.append(PRUNING_LOSSES, _columns(facts | {"layers": len(layers)}, 1))

            dense = DensePass(model, forward(model, next_N)[0], next_N)
            add_loss(DENSE, 1.0, dense.itself())
            for criterion in self.criteria:
                masks: dict[float, dict[int, Pair]] = {share: {} for share in self.shares}
                for layer in layers:
                    score = scores(
                        criterion,
                        calibrated[layer],
                        steps=self.steps,
                        penalty=self.penalty,
                        probes=self.probes,
                        generator=torch.Generator().manual_seed(sample),
                    )
                    for share in self.shares:
                        masks[share][layer] = keep(criterion, calibrated[layer], score, share)
                        facts = {"layer": layer, "sample": sample, "length": self.tokens}
                        facts |= {"criterion": criterion, "share": share, "rows": self.tokens}
                        record.append(PRUNING, _lines(facts, judged[layer], masks[share][layer]))
                    advance()
                for share in self.shares:
                    with pruned(model, masks[share]):
                        state_NW = forward(model, next_N)[0]
                    add_loss(criterion, share, dense.beside(state_NW))

    def findings(self, folder: Path, manifest: dict[str, Any]) -> Findings:
        """Return a table of both errors and of the loss, by criterion and share."""
        lines, losses = pd.read_parquet(folder / PRUNING.file), pd.read_parquet(folder / PRUNING_LOSSES.file)
        layers, samples = lines["layer"].nunique(), lines["sample"].nunique()
        title = (
            f"{manifest['label']}: query and key weights pruned on {self.tokens} tokens, judged on the next; "
            f"{samples} samples\nmeans over the heads of {layers} layers, each pruned alone; loss with all pruned"
        )
        table = Table(title=title, title_justify="left", title_style="bold")
        for name in ("criterion", "kept", "TV", "output error", "loss"):
            table.add_column(name, justify="left" if name == "criterion" else "right", no_wrap=True)
        loss: dict[Any, float] = losses.groupby(["criterion", "share"])["loss"].mean().to_dict()
        table.add_row(DENSE, "100%", "0", "0", f"{loss[DENSE, 1.0]:.3f}")
        for (criterion, share), part in lines.groupby(["criterion", "share"], sort=False):
            errors = (f"{part[name].mean():.3f}" for name in ("tv", "output_error"))
            table.add_row(str(criterion), f"{share:.0%}", *errors, f"{loss[criterion, share]:.3f}")
        return Findings([table], {})

    def curves(self, folder: Path) -> pd.DataFrame:
        """Return the mean total variation over the share of the weights that is kept, a column per criterion."""
        lines = pd.read_parquet(folder / PRUNING.file)
        wide = lines.pivot_table("tv", "share", "criterion")
        wide.columns = pd.Index([f"tv/{name}" for name in wide.columns])
        return wide


def _check_prunable(source: Any) -> None:
    from experiments.models.load import load_config
    from experiments.models.pruned import check_prunable

    check_prunable(source.located.label, load_config(source.located))


def _lines(facts: dict[str, Any], layer: LayerInput, masks: Pair) -> dict[str, np.ndarray]:
    """Return one line per head of a layer whose weights are masked."""
    from experiments.models.pruned import masked, row_errors, rows_of

    with torch.no_grad():
        attention = layer.attend(layer.weights)
        tv_H, error_H = row_errors(attention, rows_of(attention), layer.rows(masked(layer.weights, masks)))
    facts |= {"kept_query": _share(masks.query_OI), "kept_key": _share(masks.key_OI)}
    heads = {"head": np.arange(len(tv_H)), "tv": tv_H.double().cpu().numpy(), "output_error": error_H.cpu().numpy()}
    return _columns(facts, len(tv_H)) | heads


def _share(mask_OI: Tensor) -> float:
    return float(mask_OI.double().mean())


def _columns(facts: dict[str, Any], count: int) -> dict[str, np.ndarray]:
    return {name: np.repeat(fact, count) for name, fact in facts.items()}
