"""Keep a float32 copy of a GGUF file, which takes 15 s to dequantise and whose copy loads in a fraction of a second.

A copy lists the SHA-256 of each of its files and is compared with them before it is used. One process converts at a
time, under a lock that ends with it: what lies half written while the lock is held was left by a killed conversion.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.metadata
import io
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import platformdirs
import torch

from experiments.durable import sync
from experiments.errors import UserError
from experiments.models.library import check_loaded, reading, transformers_quietly
from experiments.models.locate import Checkpoint, hash_of_files

CACHE_VARIABLE = "NC_SPARSE_CACHE"
HASHES = "hashes.json"
PARTIAL = ".partial-"
# Raise it when the copy of an unchanged file would differ: older copies are then made anew.
COPY_VERSION = 2

ROPE_FACTORS = "rope_freqs.weight"
# What a GGUF file can say of attention and its reader in transformers passes over: the name in the file after the
# architecture's, and that of the configuration which must then say the same.
PASSED_OVER = {
    "attention.sliding_window": "sliding_window",
    "attention.scale": "attention_multiplier",
    "attention.clamp_kqv": "clip_qkv",
    "attn_logit_softcapping": "attn_logit_softcapping",
    "final_logit_softcapping": "final_logit_softcapping",
    "logit_scale": "logit_scale",
}


def cache_folder() -> Path:
    """Return the folder of dequantised models: $NC_SPARSE_CACHE, or the user's cache folder."""
    return Path(os.environ.get(CACHE_VARIABLE) or platformdirs.user_cache_dir("nc-sparse-attention"))


def dequantised(checkpoint: Checkpoint) -> Path:
    """Return the folder of the copy of a GGUF checkpoint, made now if there is none or it is damaged.

    Raises
    ------
    UserError
        If transformers does not read the file, or the file says something of attention that transformers passes over.
    """
    # A new transformers may dequantise or name tensors differently, so it makes its own copy.
    version = f"transformers-{importlib.metadata.version('transformers')}-{COPY_VERSION}"
    copy = cache_folder() / "models" / f"{checkpoint.sha256()[:16]}-{version}"
    if _whole(copy):
        return copy
    with _only_converter(copy.parent):
        if _whole(copy):  # another process made it meanwhile
            return copy
        for left in copy.parent.glob(f"{PARTIAL}*"):
            shutil.rmtree(left, ignore_errors=True)
        shutil.rmtree(copy, ignore_errors=True)
        partial = Path(tempfile.mkdtemp(prefix=PARTIAL, dir=copy.parent))
        try:
            _convert(checkpoint, partial)
            (partial / HASHES).write_text(json.dumps(hash_of_files(partial), indent=1))
            for path in (*partial.iterdir(), partial):
                sync(path)
            partial.rename(copy)
            sync(copy.parent)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return copy


def _whole(copy: Path) -> bool:
    """Say whether every file of a copy is the one that was written."""
    try:
        listed = json.loads((copy / HASHES).read_bytes())
        return bool({name: value for name, value in hash_of_files(copy).items() if name != HASHES} == listed)
    except (OSError, ValueError, RecursionError):
        return False


@contextlib.contextmanager
def _only_converter(folder: Path) -> Iterator[None]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
    except OSError as error:
        raise UserError(
            f"{folder}: the dequantised model cannot be written ({error.strerror or error}); free space, or set "
            f"{CACHE_VARIABLE} to another folder"
        ) from error


def _convert(checkpoint: Checkpoint, folder: Path) -> None:
    transformers = transformers_quietly()
    header = _Header(checkpoint)
    with reading(checkpoint, "the GGUF file"), contextlib.redirect_stderr(io.StringIO()):  # a progress bar
        model, report = transformers.AutoModelForCausalLM.from_pretrained(
            checkpoint.folder,
            gguf_file=checkpoint.gguf,
            dtype=torch.float32,
            output_loading_info=True,
            trust_remote_code=False,
        )
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            checkpoint.folder, gguf_file=checkpoint.gguf, trust_remote_code=False
        )
    check_loaded(checkpoint, model, report)
    header.check_attention(model.config)
    header.apply_rope(model.config)
    # The weights are plain float32 now; what says otherwise would make the copy load as a quantised model.
    model.hf_quantizer = None
    if getattr(model.config, "quantization_config", None) is not None:
        del model.config.quantization_config
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


class _Header:
    """What a GGUF file says of itself."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        from gguf import GGUFReader

        self._label = checkpoint.label
        with reading(checkpoint, "the GGUF file"):
            self._reader = GGUFReader(checkpoint.folder / str(checkpoint.gguf))
            self._architecture = self._reader.fields["general.architecture"].contents()

    def value(self, name: str) -> Any:
        """Return the value of a key of the file's architecture, None if there is none."""
        field = self._reader.fields.get(f"{self._architecture}.{name}")
        return None if field is None else field.contents()

    def check_attention(self, config: Any) -> None:
        """Raise UserError if the file says something of attention that the configuration does not say."""
        for name, attribute in PASSED_OVER.items():
            value = self.value(name)
            if value and getattr(config, attribute, None) != value:
                raise UserError(
                    f"{self._label}: the file has {name} = {value}, which transformers passes over, so that another "
                    "model would be measured; give the checkpoint in safetensors"
                )

    def apply_rope(self, config: Any) -> None:
        """Write the file's rotary scaling into a configuration to which transformers has not brought it.

        llama.cpp stores the factors of Llama 3 as a tensor (llama.cpp#8676), which are those of a longrope whose short
        and long factors are the same.

        Raises
        ------
        UserError
            If the scaling is of a kind that is not brought over.
        """
        kind, factor = self.value("rope.scaling.type"), self.value("rope.scaling.factor")
        tensors = {tensor.name: tensor for tensor in self._reader.tensors}
        rope = getattr(config, "rope_parameters", None) or {}
        if kind not in (None, "none", rope.get("rope_type")):
            if kind != "linear" or "rope_theta" not in rope or not factor:
                raise UserError(
                    f"{self._label}: rotary scaling of type {kind} is not read from GGUF files, so that another model "
                    "would be measured; give the checkpoint in safetensors"
                )
            config.rope_parameters = {**rope, "rope_type": "linear", "factor": float(factor)}
        if ROPE_FACTORS in tensors:
            if "rope_theta" not in rope or rope.get("rope_type", "default") != "default":
                raise UserError(
                    f"{self._label}: {ROPE_FACTORS} is rotary scaling that cannot be brought over to "
                    f"{type(config).__name__}; give the checkpoint in safetensors"
                )
            factors = [float(factor) for factor in tensors[ROPE_FACTORS].data]
            config.rope_parameters = {
                "rope_type": "longrope",
                "rope_theta": rope["rope_theta"],
                "short_factor": factors,
                "long_factor": factors,
                "factor": 1.0,
                "attention_factor": 1.0,
                "original_max_position_embeddings": config.max_position_embeddings,
            }
