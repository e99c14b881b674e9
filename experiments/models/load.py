"""Load a checkpoint's configuration, tokenizer and weights: safetensors and GGUF only, and exactly what is on disk."""

from __future__ import annotations

import copy
import re
from functools import lru_cache
from itertools import takewhile
from pathlib import Path
from typing import Any

import torch

from experiments.errors import UserError
from experiments.models.dequantise import dequantised
from experiments.models.library import check_loaded, reading, transformers_quietly
from experiments.models.locate import Checkpoint

AUTO = "AutoModel"
CAUSAL = "AutoModelForCausalLM"
HEADS = (AUTO, CAUSAL, "AutoModelForPreTraining", "AutoModelForMaskedLM")
# Constants of a mask that transformers used to save beside the weights, and does not ignore everywhere by itself.
OLD_BUFFER = re.compile(r"\.(attn|attention)\.masked_bias$")

TOKENS = "input_ids"  # as transformers names what a model of text reads
TOKENIZER_FILES = ("*token*", "*vocab*", "*.model")


@lru_cache(maxsize=8)
def load_config(checkpoint: Checkpoint) -> Any:
    """Return the text part of the model's configuration.

    Raises
    ------
    UserError
        If transformers cannot read it, its class and its type are of different models, or its weights are quantised.
    """
    return _whole_config(checkpoint).get_text_config()


def _whole_config(checkpoint: Checkpoint) -> Any:
    with reading(checkpoint, "its config.json"):
        config = transformers_quietly().AutoConfig.from_pretrained(
            _readable_folder(checkpoint), trust_remote_code=checkpoint.trusted
        )
        if not checkpoint.trusted:
            vars(config).pop("auto_map", None)  # of a model that transformers knows itself
        _check_architecture(checkpoint, config)
    if quantised := getattr(config, "quantization_config", None):
        named = quantised if isinstance(quantised, dict) else {"quant_method": type(quantised).__name__}
        method = named.get("quant_method") or ", ".join(sorted(named))
        raise UserError(
            f"{checkpoint.label}: its weights are quantised ({method}), which is not measured; give the original "
            "checkpoint or a GGUF file"
        )
    return config


@lru_cache(maxsize=4)
def load_tokenizer(checkpoint: Checkpoint) -> Any:
    """Return the checkpoint's tokenizer."""
    if not any(path for pattern in TOKENIZER_FILES for path in _readable_folder(checkpoint).glob(pattern)):
        raise UserError(f"{checkpoint.label}: has no tokenizer; put its tokenizer.json beside its weights")
    with reading(checkpoint, "its tokenizer"):
        return transformers_quietly().AutoTokenizer.from_pretrained(
            _readable_folder(checkpoint), trust_remote_code=checkpoint.trusted
        )


def load_model(checkpoint: Checkpoint, dtype: torch.dtype, device: torch.device, auto: str = AUTO) -> Any:
    """Return the model in evaluation mode, with the attention that transformers gives it by default.

    Its weights go to `device` as they are read, or to as many cards as there are.

    Parameters
    ----------
    auto
        The transformers class to load with. For `AutoModel`, which would ignore the tensors of a head, the class that
        saved the checkpoint stands in, so that every tensor on disk is read. Other heads and poolers are left out.

    Raises
    ------
    UserError
        If the weights are not safetensors (pickles run code when they are loaded), cannot be read, are not finite, or
        are not exactly those of the model that config.json describes.
    """
    if checkpoint.random_weights is not None:
        return _with_random_weights(checkpoint, dtype, device, auto).eval()
    folder = _readable_folder(checkpoint)
    if not any(folder.glob("*.safetensors*")):
        raise UserError(
            f"{checkpoint.label}: no weights in safetensors or GGUF; convert the checkpoint, pickles are not loaded"
        )
    config = _whole_config(checkpoint)
    with reading(checkpoint, "its weights"):
        model, report = _class_of(config, auto).from_pretrained(
            folder,
            dtype=dtype,
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # they are refused below, by the tensor's name
            output_loading_info=True,
            trust_remote_code=checkpoint.trusted,
            device_map="auto" if checkpoint.spread else None if device.type == "cpu" else {"": device},
        )
    _check_held(checkpoint, model)
    if unexpected := [name for name in report["unexpected_keys"] if not OLD_BUFFER.search(name)]:
        unused = _names_of_all_heads(config, model.base_model_prefix)
        unexpected = [name for name in unexpected if _without_prefix(name, model.base_model_prefix) not in unused]
    check_loaded(checkpoint, model, report | {"unexpected_keys": unexpected})
    return model.eval()


def _with_random_weights(checkpoint: Checkpoint, dtype: torch.dtype, device: torch.device, auto: str) -> Any:
    """Return the model that config.json describes, with weights drawn by its own initialisation.

    They are in `dtype`; buffers such as the frequencies of a rotary embedding stay as precise as the model makes them.
    """
    config = _whole_config(checkpoint)
    cls = _class_of(config, auto)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(checkpoint.random_weights)
        model = (getattr(cls, "from_config", None) or cls._from_config)(config, dtype=dtype)
    if not checkpoint.spread:
        return model.to(device)
    import accelerate

    model.tie_weights()
    kept = {"no_split_module_classes": list(model._no_split_modules or [])}
    spread = accelerate.dispatch_model(model, accelerate.infer_auto_device_map(model, **kept))
    _check_held(checkpoint, spread)
    return spread


def _check_held(checkpoint: Checkpoint, model: Any) -> None:
    """Raise UserError if the cards do not hold all weights: accelerate leaves the others on `meta`."""
    if waiting := [name for name, weight in model.named_parameters() if weight.is_meta]:
        raise UserError(
            f"{checkpoint.label}: its weights do not fit on the cards: {len(waiting)} of them, such as {waiting[0]}, "
            "are left over; give source.dtype=bfloat16, more cards or a smaller model"
        )


def _class_of(config: Any, auto: str) -> Any:
    """Return the class to load with; see `load_model`."""
    transformers = transformers_quietly()
    saved_by = (config.architectures or [auto])[0] if auto == AUTO else auto
    of_own_code = {str(name).split(".")[-1]: key for key, name in (getattr(config, "auto_map", None) or {}).items()}
    return getattr(transformers, of_own_code.get(saved_by, saved_by), None) or getattr(transformers, auto)


def is_encoder(checkpoint: Checkpoint) -> bool:
    """Say whether config.json is of a model that fills in masked tokens, whose rows see later keys."""
    config = _whole_config(checkpoint)
    fills_in = type(config) in transformers_quietly().MODEL_FOR_MASKED_LM_MAPPING
    return fills_in and not getattr(config, "is_decoder", False)


def check_causal(checkpoint: Checkpoint, runner: str) -> None:
    """Raise UserError, naming the runner, if there is no class of a causal language model for a checkpoint."""
    config = _whole_config(checkpoint)
    own = CAUSAL in (getattr(config, "auto_map", None) or {})
    known = type(config) in transformers_quietly().MODEL_FOR_CAUSAL_LM_MAPPING
    if not own and (not known or is_encoder(checkpoint)):
        raise UserError(
            f"{checkpoint.label}, of type {config.model_type}: its rows see later tokens, or predict none, so it is no "
            f"causal language model; runner={runner} needs one, runner=approximation measures it"
        )


def _check_architecture(checkpoint: Checkpoint, config: Any) -> None:
    """Raise UserError if the class that config.json names is of another type of model, or of one that reads no text."""
    transformers = transformers_quietly()
    saved_by = _class_of(config, AUTO)
    expected = [type(config), type(config.get_text_config())]
    # some types of model are made by another's classes
    expected += [
        transformers.MODEL_MAPPING[kind].config_class for kind in expected if kind in transformers.MODEL_MAPPING
    ]
    if (reads := getattr(saved_by, "main_input_name", TOKENS)) != TOKENS:
        raise UserError(f"{checkpoint.label}: {saved_by.__name__} reads {reads}, no text; give a model of text alone")
    compares = type(config) in transformers.MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING
    if compares and type(config.get_text_config()) not in transformers.MODEL_FOR_CAUSAL_LM_MAPPING:
        raise UserError(
            f"{checkpoint.label}: {saved_by.__name__} compares text with pictures, and reads neither alone; give a "
            "model of text alone"
        )
    of_class = getattr(saved_by, "config_class", None)
    if of_class and not any(issubclass(kind, of_class) for kind in expected):
        raise UserError(
            f"{checkpoint.label}: its config.json names {saved_by.__name__} in architectures, a model of type "
            f"{of_class.model_type}, and the model_type {config.model_type}: rows and losses would be of "
            "different models; correct the one that is wrong"
        )


def _names_of_all_heads(config: Any, prefix: str) -> set[str]:
    """Return the names of the tensors of a model with each head and pooler that transformers knows for it.

    A checkpoint may hold those that the class it is loaded with does not have; no row depends on them.
    """
    transformers = transformers_quietly()
    names: set[str] = set()
    for auto in (getattr(transformers, name) for name in HEADS):
        if type(config) in auto._model_mapping:
            with torch.device("meta"):
                model = auto.from_config(copy.deepcopy(config))
            names |= {_without_prefix(name, prefix) for name in model.state_dict()}
    return names


def _without_prefix(name: str, prefix: str) -> str:
    return name.removeprefix(f"{prefix}.")


def _readable_folder(checkpoint: Checkpoint) -> Path:
    """Return a folder that transformers reads at once: the checkpoint's own, or its dequantised copy."""
    return dequantised(checkpoint) if checkpoint.gguf else checkpoint.folder


ANCHOR = "a"  # text before a piece: no tokenizer at hand merges a letter with the white space after it


@lru_cache(maxsize=4)
def tokenize(checkpoint: Checkpoint, text: str) -> torch.Tensor:
    """Return the token ids [T] of a whole text, encoded as the tokenizer encodes plain text by default."""
    with reading(checkpoint, "its tokenizer"):
        return torch.tensor(load_tokenizer(checkpoint)(text, verbose=False)["input_ids"])


@lru_cache(maxsize=256)
def encode(checkpoint: Checkpoint, text: str) -> list[int]:
    """Return the token ids of a piece of text that stands within another.

    No token marks its ends, and there is no space before it that a tokenizer adds where a text begins.

    Raises
    ------
    UserError
        If the tokenizer merges the piece with the text before it.
    """
    tokenizer = load_tokenizer(checkpoint)

    def ids(whole: str) -> list[int]:
        return list(tokenizer(whole, add_special_tokens=False)["input_ids"])

    before, whole = ids(ANCHOR), ids(ANCHOR + text)
    if whole[: len(before)] != before:
        raise UserError(f"{checkpoint.label}: its tokenizer gives a piece of text no tokens of its own")
    return whole[len(before) :]


def start_first(checkpoint: Checkpoint, text: list[int], context: list[int]) -> list[int]:
    """Return a context with the special token that begins its text first, where pieces were put before it."""
    start = text[0]
    if context[0] == start or start not in context or start not in load_tokenizer(checkpoint).all_special_ids:
        return context
    at = context.index(start)
    return [start, *context[:at], *context[at + 1 :]]


def encode_pair(checkpoint: Checkpoint, first: str, second: str) -> tuple[list[int], list[int]]:
    """Return the token ids of two pieces encoded as one text, and where the second begins to differ.

    A token that holds characters of both belongs to the second.
    """
    alone, whole = encode(checkpoint, first), encode(checkpoint, first + second)
    shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(alone, whole, strict=False)))
    return whole[:shared], whole[shared:]
