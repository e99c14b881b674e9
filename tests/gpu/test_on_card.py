"""On a real card, `make gpu`: its numbers are those of the CPU's reference, and the same again each time."""

from dataclasses import fields, replace

import pandas as pd
import pytest
import torch

from experiments.launch import main
from experiments.measures import together
from experiments.records.table_file import read
from experiments.reference import top_k
from experiments.tables.rows import ROWS
from experiments.tables.windows import WINDOWS
from tests.measures.test_together import KINDS, WITHIN, layer, one_by_one, windows_of
from tests.models import small

pytestmark = pytest.mark.gpu
CARD = "cuda"
BOTH = pytest.mark.parametrize("triton", [False, True], ids=["torch", "triton"])


def on_card(rows):
    tensors = {field.name: getattr(rows, field.name) for field in fields(rows)}
    return replace(rows, **{name: part.to(CARD) for name, part in tensors.items() if isinstance(part, torch.Tensor)})


def measured(groups, triton):
    return together.measure_together([on_card(rows) for rows in groups], windows_of(), WITHIN, triton=triton)


def in_float64(groups):
    """Products of a card and of a CPU round otherwise; in float64 that decides no k."""
    parts = ("query_RD", "key_ND", "value_NV")
    return [replace(rows, **{name: getattr(rows, name).double() for name in parts}) for rows in groups]


@BOTH
@pytest.mark.parametrize("keys", [1, 300, 20_000])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "ties"])
def test_rows_of_a_card_are_those_of_the_reference(kind, keys, triton):
    groups = in_float64(KINDS[kind](keys))
    for rows, result in zip(groups, measured(groups, triton), strict=True):
        for found, expected in zip((result.statistics, result.measures), one_by_one(rows, windows_of()), strict=True):
            for name, values in expected.items():
                if values.dtype == torch.int64:
                    assert torch.equal(found[name], values), name
                torch.testing.assert_close(found[name].double(), values.double(), rtol=1e-5, atol=1e-6, equal_nan=True)


@BOTH
def test_a_card_gives_the_same_bits_again(triton):
    groups = layer(20_000, causal=True)
    first, again = measured(groups, triton), measured(groups, triton)
    for one, other in zip(first, again, strict=True):
        for table in ("statistics", "measures"):
            for name, values in getattr(one, table).items():
                assert torch.equal(values.nan_to_num(), getattr(other, table)[name].nan_to_num()), name


@pytest.mark.parametrize("k", [1, 17, 300])
def test_the_top_k_of_ties_are_those_of_the_cpu(k):
    logits_RN = torch.randn(8, 4000, generator=torch.Generator().manual_seed(k)).round(decimals=1)
    k_R = torch.full((8,), k)
    assert torch.equal(top_k.top_k_mask(logits_RN.to(CARD), k_R.to(CARD)).cpu(), top_k.top_k_mask(logits_RN, k_R))


@pytest.mark.parametrize("runner", ["approximation", "language"])
@pytest.mark.parametrize("family", ["llama", "mistral", "gemma2", "gpt_oss"])
def test_a_job_has_the_tables_of_the_cpu(family, runner, tmp_path, monkeypatch):
    folder = small.save(family, tmp_path / family)
    (tmp_path / "text.txt").write_text(small.text())
    files = [f"source.model={folder}", f"source.text={tmp_path / 'text.txt'}"]
    few = ["source.lengths=[32,96]", "source.rows=4", "source.samples=2", "tracking=disabled", f"runner={runner}"]
    records = []
    for number, device in enumerate(("cpu", CARD)):
        outputs = tmp_path / str(number)
        command = ["run.py", "source=checkpoint", *files, *few, f"device={device}", f"outputs={outputs}"]
        monkeypatch.setattr("sys.argv", [*command, "memory_gb=auto", "force=true"])
        assert main() == 0
        (record,) = (outputs / "runs").iterdir()
        records.append(record)
    if runner == "language":
        tables = [pd.read_parquet(record / "losses.parquet") for record in records]
        pd.testing.assert_frame_equal(*[table[["position", "loss"]] for table in tables], rtol=1e-3, atol=1e-3)
        return
    for table in (ROWS, WINDOWS):
        cpu, card = (read(record / table.file, table) for record in records)
        assert len(cpu) == len(card)
        columns = [name for name in ("entropy", "logsumexp", "tv") if name in cpu]
        pd.testing.assert_frame_equal(card[columns], cpu[columns], rtol=1e-3, atol=1e-3)
