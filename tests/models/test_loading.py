"""What is loaded is what is on disk: what is missing, extra, damaged or foreign is refused by name."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import gguf
import numpy as np
import pandas as pd
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from experiments.errors import UserError
from experiments.models import dequantise
from experiments.models.load import load_config, load_model, tokenize
from experiments.models.locate import locate
from experiments.models.shape import check_config, heads_of_layers, keys_seen, longest_context, parameters
from experiments.sources import MatrixRequest
from experiments.sources.checkpoint import Checkpoint, first_tokens
from tests.models import small, zoo

CPU = torch.device("cpu")
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _nothing_remembered():
    for cached in (load_config, tokenize):
        cached.cache_clear()


@pytest.fixture
def folder(tmp_path):
    return small.save("llama", tmp_path)


def load(folder, dtype=torch.float32, **settings):
    return load_model(locate(str(folder), **settings), dtype, CPU)


def edit(folder, change):
    """Change the tensors of a checkpoint."""
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def configure(folder, **settings):
    """Change the configuration of a checkpoint."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


NORM = "model.layers.1.input_layernorm.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop(NORM), rf"tensor {NORM} is missing"),
        (lambda t: t.update(odd=torch.zeros(2)), "tensor odd has no place"),
        (lambda t: t.update({NORM: torch.zeros(7)}), rf"tensor {NORM} has another shape"),
        (lambda t: t[NORM].__setitem__(3, torch.nan), rf"tensor {NORM} has values that are not finite"),
        (lambda t: t[NORM].__setitem__(3, -torch.inf), rf"tensor {NORM} has values that are not finite"),
    ],
)
def test_a_tensor_that_is_not_the_models_is_named(folder, change, message):
    edit(folder, change)
    with pytest.raises(UserError, match=message):
        load(folder)


@pytest.mark.parametrize(("layers", "message"), [(5, "is missing"), (2, "has no place")])
def test_as_many_layers_as_weights(folder, layers, message):
    configure(folder, num_hidden_layers=layers)
    with pytest.raises(UserError, match=message):
        load(folder)


def test_weights_that_half_precision_does_not_hold_are_refused(folder):
    edit(folder, lambda tensors: tensors[NORM].fill_(1e6))
    load(folder)
    load(folder, torch.bfloat16)
    with pytest.raises(UserError, match=r"not finite in torch\.float16"):
        load(folder, torch.float16)


def cut(folder, share):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


def without_tokenizer(folder):
    for path in folder.glob("tokenizer*"):
        path.unlink()


SMALL = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4)
PICTURE = SMALL | {"image_size": 32, "patch_size": 16}
SPEECH = dict(encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2, d_model=16)
SPEECH |= {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
X = transformers
OTHERS = {
    "CLIP": (
        X.CLIPConfig(text_config=SMALL | {"vocab_size": small.VOCABULARY}, vision_config=PICTURE),
        "CLIPModel compares text with pictures, and reads neither alone; give a model of text alone",
    ),
    "ViT": (
        X.ViTConfig(**PICTURE),
        "ViTModel reads pixel_values, no text; give a model of text alone",
    ),
    "Whisper": (X.WhisperConfig(vocab_size=small.VOCABULARY, **SPEECH), "WhisperModel reads input_features"),
    "Wav2Vec2": (X.Wav2Vec2Config(**SMALL), "Wav2Vec2Model reads input_values"),
    "Mamba": (
        X.MambaConfig(vocab_size=small.VOCABULARY, hidden_size=32, num_hidden_layers=2, state_size=4),
        "gives no num_attention_heads; only transformers with softmax attention over tokens",
    ),
    "XLNet": (
        X.XLNetConfig(vocab_size=small.VOCABULARY, d_model=32, n_layer=2, n_head=4, d_inner=64),
        "XLNetModel: 0 attention calls .* does not go through transformers' attention interface",
    ),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_what_is_no_model_of_text_is_one_line(tmp_path, kind):
    config, message = OTHERS[kind]
    transformers.AutoModel.from_config(config).save_pretrained(tmp_path / "m")
    small.write_tokenizer(tmp_path / "m")
    said = refusal(tmp_path / "m", tmp_path)
    assert re.search(message, said), said


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: cut(folder, 0.5), "cannot read its weights .*; download the checkpoint again"),
        (lambda folder: cut(folder, 0.001), "cannot read its weights .*; download the checkpoint again"),
        (lambda folder: cut(folder, 0), "cannot read its weights .*; download the checkpoint again"),
        (without_tokenizer, "has no tokenizer; put its tokenizer.json beside its weights"),
        (lambda folder: (folder / "tokenizer.json").write_text("{"), "cannot read its tokenizer .*; download"),
        (lambda folder: configure(folder, vocab_size=9), r"tokenizer gives token \d+, but .* names 9 tokens; give"),
        (lambda folder: configure(folder, vocab_size=200), "lm_head.weight .*has another shape"),
        (lambda folder: configure(folder, quantization_config={"load_in_8bit": True}), r"quantised \(load_in_8bit\)"),
        (lambda folder: edit(folder, as_gptq), "its weights are quantised, .*; give the original checkpoint"),
    ],
)
def test_a_spoilt_checkpoint_is_one_line_with_a_remedy(folder, tmp_path, spoil, message):
    spoil(folder)
    said = refusal(folder, tmp_path)
    assert re.search(message, said), said


def as_gptq(tensors):
    """Name a weight as GPTQ does, whose settings may stand in a file that transformers does not read."""
    name = "model.layers.0.mlp.down_proj"
    tensors |= {f"{name}.qweight": torch.zeros(4, dtype=torch.int32), f"{name}.g_idx": torch.zeros(4)}
    del tensors[f"{name}.weight"]


@pytest.mark.parametrize(
    ("length", "message"), [(18, ""), (19, "source.lengths has 19, but m reads at most 18 tokens")]
)
def test_roberta_reads_to_the_end_of_its_table(tmp_path, length, message):
    """Its positions begin after the padding's."""
    config = X.RobertaConfig(**SMALL, vocab_size=small.VOCABULARY, max_position_embeddings=20, pad_token_id=1)
    transformers.AutoModelForMaskedLM.from_config(config).save_pretrained(tmp_path / "m")
    small.write_tokenizer(tmp_path / "m")
    if message:
        assert message in refusal(tmp_path / "m", tmp_path, length)
    else:
        (tmp_path / "text.txt").write_text(small.text())
        assert rows_of(tmp_path / "m", tmp_path / "text.txt", [length])


def refusal(folder, tmp_path, length=16):
    (tmp_path / "text.txt").write_text(small.text())
    with pytest.raises(UserError) as refused:
        rows_of(folder, tmp_path / "text.txt", [length])
    assert len(str(refused.value).splitlines()) == 1
    return str(refused.value)


@pytest.mark.parametrize("method", ["gptq", "awq", "bitsandbytes", "fp8", "unheard-of"])
def test_quantised_weights_are_refused(folder, method):
    configure(folder, quantization_config={"quant_method": method})
    with pytest.raises(UserError, match=f"quantised .*{method}|cannot read"):
        load(folder)


def test_code_of_a_checkpoint_runs_only_for_those_who_trust_it(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    before = locate(str(folder)).sha256()
    configure(folder, model_type="my_own", auto_map={"AutoConfig": "configuration_my.MyConfig"})
    (folder / "configuration_my.py").write_text(
        f"open({str(tmp_path / 'RAN')!r}, 'w')\n"
        "from transformers import LlamaConfig\n"
        "class MyConfig(LlamaConfig):\n"
        "    model_type = 'my_own'\n"
    )
    with pytest.raises(UserError, match=r"code of its own, which is not run"):
        load_config(locate(str(folder)))
    assert not (tmp_path / "RAN").exists()
    trusted = locate(str(folder), trusted=True)
    assert load_config(trusted).num_hidden_layers == 3
    assert (tmp_path / "RAN").exists()
    first = trusted.sha256()
    (folder / "configuration_my.py").write_text("# other code\n")
    assert len({before, first, trusted.sha256(), locate(str(folder)).sha256()}) == 4


def test_a_known_model_that_also_has_code_is_loaded_without_it(folder):
    configure(folder, auto_map={"AutoModel": "modeling_my.MyModel"})
    assert type(load(folder)).__name__ == "LlamaForCausalLM"
    assert parameters(load_config(locate(str(folder)))) > 0


@pytest.mark.parametrize("architectures", [["MistralForCausalLM"], ["BertForMaskedLM"], ["Gemma3ForCausalLM"]])
def test_a_class_of_another_model_than_the_type_is_refused(folder, architectures):
    """Rows would be loaded by the class and losses by the type."""
    configure(folder, architectures=architectures)
    with pytest.raises(UserError, match=rf"{architectures[0]} in architectures.* model_type llama"):
        load_config(locate(str(folder)))
    with pytest.raises(UserError, match="different models"):
        load(folder)


@pytest.mark.parametrize("architectures", [None, [], ["OfNoLibrary"], ["LlamaModel"], ["LlamaForCausalLM"]])
def test_rows_are_the_same_whichever_class_saved_an_untied_model(folder, architectures):
    expected = load(folder).model.state_dict()
    configure(folder, architectures=architectures)
    load_config.cache_clear()
    model = load(folder)
    for name, tensor in getattr(model, "model", model).state_dict().items():
        assert torch.equal(tensor, expected[name]), name
    edit(folder, lambda tensors: tensors.pop(NORM))
    with pytest.raises(UserError, match=rf"tensor {NORM}|tensor layers.1.input_layernorm.weight"):
        load(folder)


@pytest.mark.parametrize(
    ("name", "unused"),
    [
        ("gpt2", ["transformer.h.0.attn.masked_bias", "transformer.h.0.attn.bias"]),
        ("bert", ["bert.pooler.dense.weight", "cls.seq_relationship.bias", "cls.predictions.bias"]),
        ("roberta", ["roberta.pooler.dense.bias"]),
    ],
)
def test_what_no_row_depends_on_may_lie_beside_the_weights(tmp_path, name, unused):
    """Poolers, other heads, and the constants of a mask that earlier versions saved; a tensor of a layer may not."""
    saved = zoo.save(name, tmp_path)
    edit(tmp_path, lambda tensors: tensors.update({name: torch.zeros(4) for name in unused if name not in tensors}))
    assert type(load(tmp_path)) is type(saved)
    extra = f"{saved.base_model_prefix}.encoder.layer.9.output.dense.weight"
    edit(tmp_path, lambda tensors: tensors.update({extra: torch.zeros(4)}))
    with pytest.raises(UserError, match=f"tensor {extra} has no place"):
        load(tmp_path)


def test_the_hash_covers_shards_in_folders_below(folder):
    model = load(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="20KB")
    index = folder / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    (folder / "shards").mkdir()
    for shard in set(content["weight_map"].values()):
        (folder / shard).rename(folder / "shards" / shard)
    content["weight_map"] = {name: f"shards/{shard}" for name, shard in content["weight_map"].items()}
    index.write_text(json.dumps(content))
    before = locate(str(folder)).sha256()
    shard = next((folder / "shards").iterdir())
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    assert locate(str(folder)).sha256() != before
    shard.unlink()
    with pytest.raises(UserError, match="cannot be read"):
        locate(str(folder)).sha256()


def test_an_adapter_is_refused(folder):
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match="PEFT adapter"):
        locate(str(folder))


def test_a_pipe_in_a_checkpoint_is_refused_at_once(folder):
    os.mkfifo(folder / "more.safetensors")
    with pytest.raises(UserError, match="no regular file"):
        locate(str(folder)).sha256()


def test_a_name_that_is_no_utf8_is_hashed(folder):
    before = locate(str(folder)).sha256()
    with open(os.fsencode(folder / "caf") + b"\xe9.txt", "w") as file:
        file.write("x")
    assert locate(str(folder)).sha256() != before


def test_a_hub_id_may_name_a_revision(monkeypatch, folder):
    calls = []

    def snapshot(name, *, revision, **_):
        calls.append((name, revision))
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    assert locate("some/model@step1000").label == "some/model@step1000"
    assert locate("some/model").label == "some/model"
    assert calls == [("some/model", "step1000"), ("some/model", None)]


def rows_of(model, text, lengths=(8, 20)):
    source = Checkpoint(model=str(model), lengths=list(lengths), rows=2, samples=1, text=str(text))
    found = []
    source.batches()
    source.stream(
        found.extend, seed=0, device=CPU, matrices=MatrixRequest([], []), record=lambda rows: None, runs=pytest.fail
    )
    return found


def damages(path):
    """Return ways in which a file of a checkpoint is spoilt, by name."""
    content = path.read_bytes()
    return {
        "cut": content[: len(content) // 2],
        "cut at its end": content[:-1],
        "emptied": b"",
        "zeros": bytes(len(content)),
        "other text": b"[" * 100_000,
        "no UTF-8": b"\xff\xfe" + content,
    }


SPOILT = [
    (name, how)
    for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
    for how in ("cut", "cut at its end", "emptied", "zeros", "other text", "no UTF-8", "swapped", "gone")
]


@pytest.mark.parametrize(("name", "how"), SPOILT)
def test_a_spoilt_checkpoint_is_refused_or_measured_as_it_was(tmp_path, name, how):
    """Each file cut, emptied, swapped for that of another model, or gone: the same rows, or one line that names it."""
    text = tmp_path / "text.txt"
    text.write_text(small.text(200))
    (tmp_path / "whole").mkdir()
    whole = small.save("llama", tmp_path / "whole")
    expected = rows_of(whole, text)
    (tmp_path / "other").mkdir()
    spoilt = tmp_path / "spoilt"
    shutil.copytree(whole, spoilt)
    spoil(spoilt, name, how, small.save("gpt2", tmp_path / "other"))
    found, refusal = [], None
    try:
        found = rows_of(spoilt, text)
    except UserError as error:
        refusal = str(error)
    if refusal is not None:
        assert "\n" not in refusal
        assert "spoilt" in refusal
    else:
        assert all(torch.equal(a.logits(), b.logits()) for a, b in zip(found, expected, strict=True))


def spoil(folder, name, how, other):
    """Spoil one file of a checkpoint; `other` is another model's folder."""
    if how == "gone":
        (folder / name).unlink()
    elif how == "swapped":
        (folder / name).write_bytes((other / name).read_bytes())
    else:
        (folder / name).write_bytes(damages(folder / name)[how])


@pytest.mark.long
@pytest.mark.parametrize(("name", "how"), SPOILT[::2])
def test_a_spoilt_checkpoint_ends_the_command_in_one_line(tmp_path, name, how):
    """The same from the command line, in a process of its own: no signal, no traceback, no other number."""
    text = tmp_path / "text.txt"
    text.write_text(small.text(200))
    for folder, family in (("whole", "llama"), ("other", "gpt2"), ("spoilt", "llama")):
        (tmp_path / folder).mkdir()
        small.save(family, tmp_path / folder)
    spoil(tmp_path / "spoilt", name, how, tmp_path / "other")
    entropies = []
    for folder in ("spoilt", "whole"):
        settings = [f"source.model={tmp_path / folder}", f"source.text={text}", f"outputs={tmp_path / ('o' + folder)}"]
        few = ["source.lengths=[8,20]", "source.rows=2", "source.samples=1", "windows.grid_per_octave=0"]
        command = [sys.executable, "run.py", "source=checkpoint", *settings, *few, "tracking=disabled"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode in (0, 1), done.stderr
        assert "Traceback" not in done.stdout + done.stderr
        if done.returncode:
            assert folder == "spoilt"
            assert len([line for line in done.stderr.splitlines() if line.startswith("error:")]) == 1
            assert not list((tmp_path / "ospoilt").glob("runs/*/manifest.json"))
            return
        record = next((tmp_path / f"o{folder}").glob("runs/*/rows.parquet"))
        entropies.append(pd.read_parquet(record)["entropy"].to_numpy())
    np.testing.assert_array_equal(*entropies)


def test_only_as_much_of_a_text_is_tokenised_as_is_used(folder, tmp_path, monkeypatch):
    text = tmp_path / "long.txt"
    text.write_text(small.text(50_000))
    checkpoint, lengths = locate(str(folder)), []
    real = tokenize.__wrapped__

    def spy(checkpoint, text):
        lengths.append(len(text))
        return real(checkpoint, text)

    monkeypatch.setattr("experiments.models.load.tokenize", spy)
    token_T = first_tokens(checkpoint, str(text), 100)
    assert max(lengths) < 5000
    assert token_T[:100].tolist() == [int(word[1:]) for word in text.read_text().split()[:100]]
    text.write_text("w1 w2 w3")
    assert first_tokens(checkpoint, str(text), 100).tolist() == [1, 2, 3]


# ---- what a configuration says before weights are loaded ----

MANY = {
    "llama": transformers.LlamaConfig(num_hidden_layers=4, tie_word_embeddings=True, vocab_size=1000),
    "mixtral": transformers.MixtralConfig(num_hidden_layers=2, vocab_size=1000),
    "qwen3_moe": transformers.Qwen3MoeConfig(num_hidden_layers=3, vocab_size=1000),
    "gpt2": transformers.GPT2Config(vocab_size=1000),
    "albert": transformers.AlbertConfig(hidden_size=768, intermediate_size=3072, num_attention_heads=12),
    "gemma3": transformers.Gemma3TextConfig(vocab_size=1000),
}


@pytest.mark.parametrize("config", MANY.values(), ids=MANY)
def test_parameters_are_those_of_the_model_with_its_head(config):
    known = type(config) in transformers.MODEL_FOR_CAUSAL_LM_MAPPING
    with torch.device("meta"):
        model = (transformers.AutoModelForCausalLM if known else transformers.AutoModel).from_config(config)
    assert parameters(config) == sum(parameter.numel() for parameter in model.parameters())


def test_heads_are_counted_per_layer_and_positions_from_where_they_begin():
    laguna = transformers.LagunaConfig(num_hidden_layers=3, num_attention_heads_per_layer=[4, 8, 4])
    assert heads_of_layers(laguna) == [4, 8, 4]
    assert longest_context(transformers.RobertaConfig(max_position_embeddings=66, pad_token_id=1)) == 64
    assert longest_context(transformers.BertConfig(max_position_embeddings=66)) == 66
    with pytest.raises(UserError, match="gives no num_attention_heads"):
        check_config("m", transformers.MambaConfig())


def test_what_rows_see_follows_from_the_kind_of_their_layer():
    n_N = np.array([1, 4, 5, 9])
    sliding = transformers.Gemma3TextConfig(
        num_hidden_layers=2, sliding_window=4, layer_types=["sliding_attention", "full_attention"]
    )
    n_KN, heads_K = keys_seen(sliding, n_N)
    assert n_KN.tolist() == [[1, 4, 4, 4], [1, 4, 5, 9]]
    assert heads_K.tolist() == [sliding.num_attention_heads] * 2
    chunked = transformers.Llama4TextConfig(
        num_hidden_layers=2, attention_chunk_size=4, layer_types=["chunked_attention", "full_attention"]
    )
    assert keys_seen(chunked, n_N)[0].tolist() == [[1, 4, 1, 1], [1, 4, 5, 9]]
    mistral = transformers.MistralConfig(num_hidden_layers=1, sliding_window=4)
    assert keys_seen(mistral, n_N)[0].tolist() == [[1, 4, 4, 4]]
    qwen = transformers.Qwen2Config(num_hidden_layers=1, sliding_window=4, use_sliding_window=False)
    assert keys_seen(qwen, n_N)[0].tolist() == [[1, 4, 5, 9]]
    left_over = transformers.LlamaConfig(num_hidden_layers=1, sliding_window=4)  # no Llama reads it
    assert keys_seen(left_over, n_N)[0].tolist() == [[1, 4, 5, 9]]


# ---- GGUF ----

SHAPE = {
    **{"vocab_size": small.VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2},
    **{"num_key_value_heads": 1, "intermediate_size": 64, "max_position_embeddings": 512, "head_dim": 16},
}
ROPES = {
    "plain": {"rope_type": "default", "rope_theta": 10000.0},
    "linear": {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0},
    "llama3": {
        **{"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
        **{"original_max_position_embeddings": 32, "rope_theta": 10000.0},
    },
}
TENSORS = {
    **{"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v"},
    **{"self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up"},
    **{"mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"},
}


def interleaved(weight, heads):
    """Order the rows of a projection as llama.cpp rotates them."""
    return weight.reshape(heads, 2, -1, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)


def write_gguf(path, model, scaling=None, factor=None, factors=None):
    """Write a Llama as llama.cpp would."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(512)
    writer.add_embedding_length(32)
    writer.add_block_count(2)
    writer.add_feed_forward_length(64)
    writer.add_head_count(2)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(16)
    writer.add_vocab_size(small.VOCABULARY)
    if scaling is not None:
        writer.add_rope_scaling_type(scaling)
        writer.add_rope_scaling_factor(factor)
    tokens = ["<unk>", "<s>", "</s>", *"▁w0123456789", *(f"more{i}" for i in range(small.VOCABULARY - 15))]
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([-float(i) for i in range(len(tokens))])
    writer.add_token_types([2, 3, 3] + [1] * (len(tokens) - 3))
    names = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    for layer in range(2):
        names |= {f"model.layers.{layer}.{ours}": f"blk.{layer}.{theirs}" for ours, theirs in TENSORS.items()}
    for name, tensor in model.state_dict().items():
        weight = tensor.numpy()
        heads = 2 if "q_proj" in name else 1 if "k_proj" in name else None
        weight = weight if heads is None else interleaved(weight, heads)
        writer.add_tensor(f"{names[name.removesuffix('.weight')]}.weight", np.ascontiguousarray(weight))
    if factors is not None:
        writer.add_tensor("rope_freqs.weight", np.array(factors, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def random_llama(rope):
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SHAPE, rope_parameters=rope))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3.0)
    return model.eval()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NC_SPARSE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "models"


@pytest.mark.parametrize("rope", ROPES)
def test_rotary_scaling_of_a_gguf_file_is_that_of_the_same_model_in_safetensors(tmp_path, cache, rope):
    model = random_llama(ROPES[rope])
    plain = 1 / 10000.0 ** (torch.arange(0, 16, 2) / 16)
    settings = {
        "plain": {},
        "linear": {"scaling": gguf.RopeScalingType.LINEAR, "factor": 4.0},
        "llama3": {"factors": (plain / model.model.rotary_emb.inv_freq).tolist()},
    }[rope]
    path = write_gguf(tmp_path / "m.gguf", model, **settings)
    token_N = torch.randint(3, 100, (1, 128), generator=torch.manual_seed(2))
    with torch.inference_mode():
        expected = model(input_ids=token_N).logits
        torch.testing.assert_close(load(path)(input_ids=token_N).logits, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("scaling", [gguf.RopeScalingType.YARN, gguf.RopeScalingType.LONGROPE])
def test_rotary_scaling_that_is_not_brought_over_is_refused(tmp_path, cache, scaling):
    path = write_gguf(tmp_path / "m.gguf", random_llama(ROPES["plain"]), scaling, 4.0)
    with pytest.raises(UserError, match="rotary scaling of type"):
        load(path)
    assert not list(cache.glob("[!.]*"))


def test_a_copy_that_is_not_the_one_written_is_made_anew_and_drafts_go(tmp_path, cache):
    path = write_gguf(tmp_path / "m.gguf", random_llama(ROPES["plain"]))
    (cache / ".partial-left").mkdir(parents=True)
    copy = dequantise.dequantised(locate(str(path)))
    assert not list(cache.glob(".partial-*"))
    weights = copy / "model.safetensors"
    before = weights.read_bytes()
    stamp = weights.stat().st_mtime_ns
    assert dequantise.dequantised(locate(str(path))) == copy
    assert weights.stat().st_mtime_ns == stamp
    weights.write_bytes(before[:-4] + bytes(4))
    assert dequantise.dequantised(locate(str(path))) == copy
    assert weights.read_bytes() == before
    (copy / "config.json").unlink()
    dequantise.dequantised(locate(str(path)))
    assert (copy / "config.json").exists()


@pytest.mark.parametrize("how", ["cut", "cut at its end", "emptied", "zeros", "other text"])
def test_a_spoilt_gguf_file_is_refused(tmp_path, cache, how):
    path = write_gguf(tmp_path / "m.gguf", random_llama(ROPES["plain"]))
    path.write_bytes(damages(path)[how])
    with pytest.raises(UserError, match=r"m: transformers cannot read the GGUF file .*; download the checkpoint again"):
        load(path)


@pytest.mark.parametrize("below", ["", "models"])
def test_a_cache_that_cannot_be_written_is_one_line_with_a_remedy(tmp_path, monkeypatch, below):
    """A file stands where a folder would be made: that fails for root too."""
    path = write_gguf(tmp_path / "m.gguf", random_llama(ROPES["plain"]))
    (tmp_path / "cache").write_text("")
    monkeypatch.setenv("NC_SPARSE_CACHE", str(tmp_path / "cache" / below))
    with pytest.raises(UserError, match=r"cannot be written .*; free space, or set NC_SPARSE_CACHE"):
        load(path)
