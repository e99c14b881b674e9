"""The run id changes with what decides the numbers, and with nothing else."""

import pytest

from experiments.records.identity import run_id


@pytest.mark.parametrize(
    "override",
    [
        "outputs=elsewhere",
        "tracking=disabled",
        "memory_gb=1",
        "threads=1",
        "force=true",
        "plan=true",
    ],
)
def test_circumstances_do_not_change_the_run_id(job, override):
    assert run_id(job(override)) == run_id(job())


@pytest.mark.parametrize(
    "override",
    [
        "seed=1",
        "source.s=0.7",
        "source.sigma=2",
        "source.rows=8",
        "source.lengths=[64]",
        "source.dtype=float64",
        "source.inputs=layernorm",
        "windows.exponents=[0.5]",
        "selector=sinks",
        "runner.matrix_layers=[0]",
    ],
)
def test_what_decides_the_numbers_changes_the_run_id(job, override):
    assert run_id(job(override)) != run_id(job())


def test_the_default_scale_is_the_same_run_as_the_scale_given(job):
    assert run_id(job("source.s=0.5")) == run_id(job())


def test_a_preset_of_the_same_model_and_text_is_the_same_run(job, smollm2):
    path = smollm2.folder / smollm2.gguf
    assert run_id(job("source=smollm2")) == run_id(job("source=checkpoint", f"source.model={path}"))
