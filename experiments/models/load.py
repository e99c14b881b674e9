"""Load a checkpoint's configuration, tokenizer and weights: safetensors and GGUF only, no remote code.

A GGUF file takes 15 s to dequantise, so a float32 copy is kept in a cache and loads in a fraction of a second.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import platformdirs
import torch

from experiments.errors import UserError
from experiments.models.locate import Checkpoint

CACHE_VARIABLE = "NC_SPARSE_CACHE"


def cache_folder() -> Path:
    """Return the folder of dequantised models: $NC_SPARSE_CACHE, or the user's cache folder."""
    return Path(os.environ.get(CACHE_VARIABLE) or platformdirs.user_cache_dir("nc-sparse-attention"))


def context_length(checkpoint: Checkpoint) -> int | None:
    """Return the longest context of the model in tokens, None if it names none; reads no weights."""
    if checkpoint.gguf:
        from gguf import GGUFReader

        fields = GGUFReader(checkpoint.folder / checkpoint.gguf).fields
        architecture = fields["general.architecture"].contents()
        field = fields.get(f"{architecture}.context_length")
        return int(field.contents()) if field else None
    return getattr(load_config(checkpoint), "max_position_embeddings", None)


def load_config(checkpoint: Checkpoint) -> Any:
    """Return the text part of the model's configuration."""
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(_readable_folder(checkpoint)).get_text_config()
    except (OSError, ValueError) as error:
        raise UserError(f"{checkpoint.label}: transformers cannot read its config.json ({_first_line(error)})") from error


@lru_cache(maxsize=4)
def tokenize(checkpoint: Checkpoint, text: str) -> torch.Tensor:
    """Return the token ids [T] of the whole text, encoded as the tokenizer encodes plain text by default."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(_readable_folder(checkpoint))
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
    import transformers

    try:
        model = getattr(transformers, auto).from_pretrained(
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


def _dequantised(checkpoint: Checkpoint) -> Path:
    from importlib.metadata import version

    # A new transformers may dequantise or name tensors differently, so it makes its own copy.
    copy = cache_folder() / "models" / f"{checkpoint.sha256()[:16]}-transformers-{version('transformers')}"
    if copy.exists():
        return copy
    from transformers import AutoModelForCausalLM, AutoTokenizer

    copy.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=copy.parent))
    try:
        model = AutoModelForCausalLM.from_pretrained(
            checkpoint.folder, gguf_file=checkpoint.gguf, dtype=torch.float32
        )
        # The weights are plain float32 now; what says otherwise would make the copy load as a quantised model.
        model.hf_quantizer = None
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
        model.save_pretrained(partial)
        AutoTokenizer.from_pretrained(checkpoint.folder, gguf_file=checkpoint.gguf).save_pretrained(partial)
        try:
            partial.rename(copy)
        except OSError:
            if not copy.exists():  # otherwise another job was quicker, and its copy is as good
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return copy


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
