"""Load a checkpoint's configuration, tokenizer and weights: safetensors and GGUF only, no remote code.

A GGUF file takes 15 s to dequantise, so a float32 copy is kept in a cache and loads in a fraction of a second.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import os
import shutil
import tempfile
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import platformdirs
import torch

from experiments.errors import UserError
from experiments.models.locate import Checkpoint

CACHE_VARIABLE = "NC_SPARSE_CACHE"


def cache_folder() -> Path:
    """Return the folder of dequantised models: $NC_SPARSE_CACHE, or the user's cache folder."""
    return Path(os.environ.get(CACHE_VARIABLE) or platformdirs.user_cache_dir("nc-sparse-attention"))


@lru_cache(maxsize=8)
def context_length(checkpoint: Checkpoint) -> int | None:
    """Return the longest context of the model in tokens, None if it names none; reads no weights."""
    if checkpoint.gguf and not _copy_of(checkpoint).exists():
        from gguf import GGUFReader

        fields = GGUFReader(checkpoint.folder / checkpoint.gguf).fields
        architecture = fields["general.architecture"].contents()
        field = fields.get(f"{architecture}.context_length")
        return int(field.contents()) if field else None
    return getattr(load_config(checkpoint), "max_position_embeddings", None)


@lru_cache(maxsize=8)
def load_config(checkpoint: Checkpoint) -> Any:
    """Return the text part of the model's configuration."""
    transformers = _quiet_transformers()
    try:
        return transformers.AutoConfig.from_pretrained(_readable_folder(checkpoint)).get_text_config()
    except (OSError, ValueError) as error:
        raise UserError(
            f"{checkpoint.label}: transformers cannot read its config.json ({_first_line(error)})"
        ) from error


@lru_cache(maxsize=64)
def encode(checkpoint: Checkpoint, text: str) -> list[int]:
    """Return the token ids of a piece of text that stands within another: no token is added to mark its ends."""
    tokenizer = _quiet_transformers().AutoTokenizer.from_pretrained(_readable_folder(checkpoint))
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


@lru_cache(maxsize=4)
def tokenize(checkpoint: Checkpoint, text: str) -> torch.Tensor:
    """Return the token ids [T] of the whole text, encoded as the tokenizer encodes plain text by default."""
    tokenizer = _quiet_transformers().AutoTokenizer.from_pretrained(_readable_folder(checkpoint))
    return torch.tensor(tokenizer(text, verbose=False)["input_ids"])


def load_model(checkpoint: Checkpoint, dtype: torch.dtype, device: torch.device, auto: str = "AutoModel") -> Any:
    """Return the model in evaluation mode on `device`, with the attention that transformers gives it by default.

    Parameters
    ----------
    auto
        The transformers class to load with: `AutoModel` has no language-model head, which rows do not need.

    Raises
    ------
    UserError
        If the weights are not safetensors (pickles run code when they are loaded) or cannot be read.
    """
    try:
        model = getattr(_quiet_transformers(), auto).from_pretrained(
            _readable_folder(checkpoint), dtype=dtype, use_safetensors=True
        )
    except OSError as error:
        raise UserError(
            f"{checkpoint.label}: no weights in safetensors or GGUF ({_first_line(error)}); convert the checkpoint, "
            "pickles are not loaded"
        ) from error
    return model.to(device).eval()


def _readable_folder(checkpoint: Checkpoint) -> Path:
    """Return a folder that transformers reads at once: the checkpoint's own, or its dequantised copy."""
    return _dequantised(checkpoint) if checkpoint.gguf else checkpoint.folder


def _copy_of(checkpoint: Checkpoint) -> Path:
    # A new transformers may dequantise or name tensors differently, so it makes its own copy.
    name = f"{checkpoint.sha256()[:16]}-transformers-{importlib.metadata.version('transformers')}"
    return cache_folder() / "models" / name


def _dequantised(checkpoint: Checkpoint) -> Path:
    copy = _copy_of(checkpoint)
    if copy.exists():
        return copy
    transformers = _quiet_transformers()
    copy.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=copy.parent))
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # a progress bar that no setting of transformers silences
            model = transformers.AutoModelForCausalLM.from_pretrained(
                checkpoint.folder, gguf_file=checkpoint.gguf, dtype=torch.float32
            )
        # The weights are plain float32 now; what says otherwise would make the copy load as a quantised model.
        model.hf_quantizer = None
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
        model.save_pretrained(partial)
        tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint.folder, gguf_file=checkpoint.gguf)
        tokenizer.save_pretrained(partial)
        try:
            partial.rename(copy)
        except OSError:
            if not copy.exists():  # otherwise another job was quicker, and its copy is as good
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return copy


def _quiet_transformers() -> ModuleType:
    """Return transformers without its own progress bars, which would interleave with ours."""
    import transformers

    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    return transformers


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
