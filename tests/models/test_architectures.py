"""Every architecture of transformers: rows, losses and decode steps are eager attention's, or it is refused by name.

`python -m tests.models.test_architectures` writes docs/models.md, which a test compares with what it finds.
"""

import re
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import transformers

from experiments.errors import UserError
from experiments.models.context import Context
from experiments.models.language_model import check_cache, open_language_model
from experiments.models.loss import token_losses
from experiments.models.probe import watch
from experiments.sources import MatrixRequest
from experiments.sources.checkpoint import Checkpoint
from tests.models import small, zoo

CPU = torch.device("cpu")
LENGTHS = (20, 48)
TOKENS = torch.randint(3, small.VOCABULARY - 5, (max(LENGTHS),), generator=torch.manual_seed(3))
ROW_GAP = 1e-3  # in probability, in float32; random weights make some rows peaked
LOSS_GAP = 1e-4  # nats
DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "models.md"
# Tried by the short test suite; the long one tries all.
# fmt: off
COMMON = (
    "llama", "mistral", "mixtral", "qwen2", "qwen3", "qwen3_moe", "gemma", "gemma2", "gemma3_text", "gemma4_text",
    "phi", "phi3", "gpt2", "gpt_neox", "gpt_oss", "opt", "falcon", "bloom", "olmo2", "granite", "cohere2", "starcoder2",
    "deepseek_v3", "deepseek_v32", "llama4_text", "bert", "roberta", "modernbert", "bigbird_pegasus", "mamba", "bart",
    "laguna", "blenderbot", "falcon_h1",
)
# fmt: on


@dataclass(frozen=True)
class Line:
    """What became of an architecture: gaps to eager attention, or in which words it is refused."""

    name: str
    kind: str = ""
    rows: float | None = None
    language: float | None = None
    decoding: float | None = None
    refused: str = ""
    not_built: str = ""


class Read(Checkpoint):
    """A checkpoint that reads the same tokens whatever its tokenizer makes of a text."""

    def _token_samples(self, seed=0):
        return TOKENS[None, : max(self.lengths)]


def examine(name, folder):
    """Build a tiny model of an architecture and compare what is measured with its eager attention."""
    try:
        zoo.save(name, folder)
    except Exception as error:
        return Line(name, not_built=type(error).__name__)
    source = Read(model=str(folder), lengths=list(LENGTHS), rows=5, samples=1)
    try:
        rows, both_ways = measured_rows(source)
        gap = max(rows_gap(name, folder, part) for part in rows)
    except UserError as refusal:
        return Line(name, refused=words(refusal).replace(f"{folder.name}: ", ""))
    if both_ways:
        return Line(name, "encoder", gap)
    try:
        model = open_language_model(source, CPU, TOKENS, [LENGTHS], "language", cached=False)
    except UserError as refusal:
        return Line(name, "decoder", gap, refused=f"language: {words(refusal)}")
    losses = language_gap(model)
    try:
        check_cache(model, TOKENS[:12])
    except UserError as refusal:
        return Line(name, "decoder", gap, losses, refused=f"decoding: {words(refusal)}")
    return Line(name, "decoder", gap, losses, decoding_gap(name, folder, model))


def words(refusal):
    """Return what a refusal says, without its advice and the library's own words."""
    assert "\n" not in str(refusal)
    return re.split(r"; |, so that | \(", str(refusal))[0]


def measured_rows(source):
    """Return the rows of a source as (layer, head, length, positions, probabilities), and whether it sees both ways."""
    found = []

    def keep(groups):
        for rows in (part for group in groups for part in group.of_each_head()):
            probability_RN = keys_of(rows.logits(), rows.sink_R)
            found.append((rows.layer, *rows.heads, rows.length, rows.position_R, probability_RN))

    source.batches()
    source.resident_bytes()
    source.stream(keep, seed=0, device=CPU, matrices=MatrixRequest([], []), record=lambda rows: None, runs=pytest.fail)
    assert found
    return found, bool((found[0][3] != torch.arange(LENGTHS[0] - 5, LENGTHS[0])).any())


def keys_of(logits_RN, sink_R):
    """Return the probabilities of keys, beside that of a learned sink if there is one."""
    weight_RN = (logits_RN.double() - logits_RN.amax(-1, keepdim=True)).exp()
    if sink_R is None:
        return (weight_RN / weight_RN.sum(-1, keepdim=True)).float()
    sink_R1 = (sink_R.double()[:, None] - logits_RN.amax(-1, keepdim=True)).exp()
    return (weight_RN / (weight_RN.sum(-1, keepdim=True) + sink_R1)).float()


_eager: dict[tuple, list] = {}


def eager(name, folder, length):
    """Return the attentions of a model that transformers runs eagerly over the first tokens, a layer each."""
    if (folder, length) not in _eager:
        _eager.clear()
        auto = getattr(transformers, zoo.architectures()[name])
        model = auto.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32).eval()
        with torch.inference_mode():
            output = model(input_ids=TOKENS[None, :length], output_attentions=True, use_cache=False)
        _eager[folder, length] = [layer[0] for layer in output.attentions]
    return _eager[folder, length]


def rows_gap(name, folder, part):
    layer, head, length, position_R, probability_RN = part
    return float((eager(name, folder, length)[layer][head, position_R] - probability_RN).abs().max())


def language_gap(model):
    """Return how far dense losses are from the model's own cross-entropy; those within all keys are dense."""
    with torch.inference_mode():
        logits = model(input_ids=TOKENS[None], use_cache=False).logits[0].double()
    true = torch.nn.functional.cross_entropy(logits[:-1], TOKENS[1:], reduction="none")
    dense = token_losses(model, TOKENS)
    with small.attend_to_top_k(model, lambda rows, *_: rows.n_R):
        all_keys = token_losses(model, TOKENS)
    # rounding differs between attention kernels, and these models amplify it
    torch.testing.assert_close(all_keys, dense, rtol=0, atol=1e-3)
    return float((dense - true).abs().max())


def decoding_gap(name, folder, model):
    """Return how far the rows of a decode step are from the last eager ones."""
    context, gaps = Context(model), []
    context.read(TOKENS[:-1])

    def compare(attention):
        keys = attention.key_GND.shape[1]
        for head in range(len(attention.query_HND)):
            logits_RN = attention.query_HND[head] @ attention.key_GND[attention.kv_head(head)].T * attention.scale
            if attention.softcap is not None:
                logits_RN = attention.softcap * torch.tanh(logits_RN / attention.softcap)
            visible_RN = attention.visible(head, torch.tensor([keys - 1]), keys)
            if visible_RN is not None:
                logits_RN = logits_RN.masked_fill(~visible_RN, -torch.inf)
            expected_N = eager(name, folder, max(LENGTHS))[attention.layer][head, -1]
            sink_R = None if attention.sink_H is None else attention.sink_H[head : head + 1]
            gaps.append(float((keys_of(logits_RN, sink_R)[0] - expected_N).abs().max()))

    with watch(model, compare):
        context.read(TOKENS[-1:])
    return max(gaps)


def check(line):
    """Fail unless an architecture was measured as it is, or refused by name."""
    assert "\n" not in line.refused
    if line.not_built or (line.refused and not line.rows):
        return
    assert line.rows < ROW_GAP
    assert line.kind == "encoder" or line.refused.startswith("language") or line.language < LOSS_GAP
    assert line.kind == "encoder" or line.refused or line.decoding < ROW_GAP


NAMES = [pytest.param(name, marks=() if name in COMMON else pytest.mark.long) for name in zoo.architectures()]


@pytest.fixture(scope="module")
def lines():
    """What became of each architecture that was tried."""
    return {}


@pytest.mark.parametrize("name", NAMES)
def test_an_architecture_is_measured_as_it_is_or_refused_by_name(name, tmp_path, lines):
    lines[name] = examine(name, tmp_path)
    check(lines[name])


@pytest.mark.long
def test_the_table_of_architectures_is_what_was_found(lines):
    assert len(lines) == len(zoo.architectures())
    tried = [line for line in lines.values() if not line.not_built]
    assert len(tried) >= 150
    assert sum(line.rows is not None for line in tried) >= 100
    written = DOCUMENT.read_text(encoding="utf-8")
    if f"transformers {transformers.__version__}" in written:  # another version has other architectures
        assert kinds(written.splitlines()) == kinds(document(lines).splitlines())


def kinds(rows):
    """Return what a table says of each architecture, without the gaps, which rounding moves."""
    cells = [row.split("|") for row in rows if row.startswith("| `")]
    return {cell[1]: (cell[2], *(bool(part.strip()) for part in cell[3:6]), cell[6]) for cell in cells}


def document(lines):
    """Return docs/models.md."""
    tried = [line for line in lines.values() if not line.not_built]
    measured = [line for line in tried if line.rows is not None]
    whole = [line for line in measured if line.language is not None]
    left = ", ".join(f"`{line.name}`" for line in lines.values() if line.not_built)
    table = [
        "| architecture | kind | rows | language | decoding | refused |",
        "|---|---|---|---|---|---|",
    ]
    for line in tried:
        gaps = (f"{gap:.0e}" if gap is not None else "" for gap in (line.rows, line.language, line.decoding))
        table.append(f"| `{line.name}` | {line.kind} | {' | '.join(gaps)} | {line.refused.replace('|', '/')} |")
    return HEADING.format(
        version=transformers.__version__, tried=len(tried), measured=len(measured), whole=len(whole), left=left
    ) + "\n".join([*table, ""])


HEADING = """# Which models are measured

Made by `python -m tests.models.test_architectures` with transformers {version}; `make test-all` compares it with what
it finds. Of each architecture that transformers loads as a decoder or an encoder of text, a tiny model with random
weights is built, saved, loaded and measured: {tried} were built, the rows of {measured} are measured, {whole} of them
as language models too, and the others are refused in the words of the last column.

- **rows**: largest gap in probability between the rows of every layer and head at 20 and 48 tokens, and those of the
  model's own eager attention, in float32.
- **language**: largest gap in nats between the dense loss of a token and the cross-entropy of the model's own logits.
  Within windows of all keys it is the dense one.
- **decoding**: largest gap in probability between the rows of a decode step from a cache, and the last eager ones.

Soft-capped logits (Gemma 2) are measured after the cap, and a learned sink (gpt-oss) as a key without a value that
every window keeps and that costs no key ([theory.md](theory.md), section 1): `learned_sink_mass` of `rows.parquet` is
what it holds. Methods that estimate whole rows (`mean_value`, `sharpened`) and `runner.score_power` are refused beside
a sink. No fused kernel of torch knows either, so that such a layer attends in blocks of rows, and a decode step's
timings are of products and a softmax, dense and over the kept keys alike.

A model is refused if a layer does not go through transformers' attention interface once, or if its row is not the
softmax of scaled, possibly capped products over visible keys and a possible sink. Checkpoints are refused, too, whose
tensors are not exactly those of their configuration, whose weights are quantised, or which bring code of their own
(unless `source.trust_remote_code=true`). A GGUF file is dequantised to float32 and measured as such.

No tiny model was built of: {left}.

"""


def main():
    """Write docs/models.md."""
    found = {}
    for name in zoo.architectures():
        with tempfile.TemporaryDirectory() as folder:
            found[name] = examine(name, Path(folder))
            print(found[name], file=sys.stderr)
            check(found[name])
    DOCUMENT.write_text(document(found), encoding="utf-8")


if __name__ == "__main__":
    main()
