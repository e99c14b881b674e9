"""How transformers is called: quietly, and with its errors turned into one line that names the checkpoint."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from types import ModuleType
from typing import Any

import torch

from experiments.errors import UserError
from experiments.models.locate import Checkpoint

# How tensors end that GPTQ, AWQ, bitsandbytes and compressed-tensors keep beside, or in the place of, a weight.
QUANTISED = (".qweight", ".qzeros", ".g_idx", ".SCB", ".absmax", ".quant_map", ".weight_packed", ".weight_scale")


def transformers_quietly() -> ModuleType:
    """Return transformers without its own progress bars, which would interleave with ours."""
    import transformers

    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    return transformers


@contextlib.contextmanager
def reading(checkpoint: Checkpoint, what: str) -> Iterator[None]:
    """Turn any exception of transformers, while it reads a part of a checkpoint, into a UserError.

    A damaged or unknown file fails in many ways inside transformers and the libraries below it.
    """
    try:
        yield
    except (UserError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        if "trust_remote_code" in str(error):
            raise UserError(
                f"{checkpoint.label}: comes with code of its own, which is not run unless source.trust_remote_code=true"
            ) from error
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = f"{type(error).__name__}: {' '.join(lines)[:300]}" if lines else type(error).__name__
        raise UserError(
            f"{checkpoint.label}: transformers cannot read {what} ({reason}); download the checkpoint again, or give "
            "another"
        ) from error


def check_loaded(checkpoint: Checkpoint, model: Any, report: dict[str, Collection[Any]]) -> None:
    """Raise UserError unless every tensor of the model came from the checkpoint and every one there was used.

    Where a tensor is missing, transformers fills in random numbers and says so in a log alone.

    Parameters
    ----------
    report
        What `from_pretrained(..., output_loading_info=True)` says.
    """
    names = [name for key in ("missing_keys", "unexpected_keys") for name in report.get(key, ())]
    if any(str(name).endswith(QUANTISED) for name in names):
        raise UserError(
            f"{checkpoint.label}: its weights are quantised, which is not measured; give the original checkpoint or a "
            "GGUF file"
        )
    for key, fault in (
        ("mismatched_keys", "has another shape than its config.json says"),
        ("missing_keys", "is missing"),
        ("unexpected_keys", "has no place in the model that its config.json describes"),
    ):
        if tensors := sorted(str(key[0] if isinstance(key, tuple) else key) for key in report.get(key, ())):
            more = f" (and {len(tensors) - 1} more)" if len(tensors) > 1 else ""
            raise UserError(
                f"{checkpoint.label}: tensor {tensors[0]}{more} {fault}, as {type(model).__name__}; "
                "another model would be measured: download the checkpoint again"
            )
    if errors := [*report.get("error_msgs", ()), *report.get("conversion_errors", ())]:
        raise UserError(f"{checkpoint.label}: its weights cannot be loaded ({str(errors[0]).splitlines()[0]})")
    for name, tensor in model.named_parameters():
        if tensor.numel() and not all(map(torch.isfinite, tensor.detach().aminmax())):
            raise UserError(
                f"{checkpoint.label}: tensor {name} has values that are not finite in {tensor.dtype}; give "
                "source.dtype=float32, or another checkpoint"
            )
