"""Small random models of many families, saved where the checkpoint source can read them."""

import json

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers

from experiments.measures.compute import Compute
from experiments.models.attend import attend_by
from experiments.selectors.oracle import Oracle

VOCABULARY = 120
SIZES = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}


def config_of(family, **settings):
    sizes = SIZES | {"intermediate_size": 64, "max_position_embeddings": 256} | settings
    grouped = {"num_key_value_heads": 2} | sizes
    return {
        "llama": lambda: transformers.LlamaConfig(**grouped),
        "mistral": lambda: transformers.MistralConfig(**grouped, sliding_window=16),
        "gemma3": lambda: transformers.Gemma3TextConfig(**grouped, head_dim=8, sliding_window=16),
        "gemma2": lambda: transformers.Gemma2Config(**grouped, head_dim=8),
        "gpt_oss": lambda: transformers.GptOssConfig(**grouped, head_dim=8, num_local_experts=2, num_experts_per_tok=2),
        "qwen3": lambda: transformers.Qwen3Config(**grouped, head_dim=8),
        "gpt2": lambda: transformers.GPT2Config(
            vocab_size=VOCABULARY, n_embd=32, n_layer=3, n_head=4, n_positions=256, scale_attn_by_inverse_layer_idx=True
        ),
        "bert": lambda: transformers.BertConfig(**sizes),
        "falcon": lambda: transformers.FalconConfig(**SIZES),
    }[family]()


def save(family, folder, **settings):
    """Write a model with random weights and a word-level tokenizer to `folder`."""
    torch.manual_seed(0)
    config = config_of(family, **settings)
    causal = config.architectures is None and family != "bert"
    auto = transformers.AutoModelForCausalLM if causal else transformers.AutoModel
    model = auto.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3.0)  # random initial weights give nearly uniform rows; these have some peaks
    model.save_pretrained(folder)
    write_tokenizer(folder)
    return folder


def write_tokenizer(folder):
    """Write a tokenizer of the words w0, w1, ..."""
    words = {f"w{i}": i for i in range(VOCABULARY - 1)} | {"[UNK]": VOCABULARY - 1}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))


def narrow(checkpoint, folder, layers):
    """Write a model of the heads, positions and tokenizer of SmolLM2, of narrow states and random weights."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint.folder, gguf_file=checkpoint.gguf)
    states = {"hidden_size": 72, "intermediate_size": 96, "num_attention_heads": 9, "num_key_value_heads": 3}
    sizes = {"num_hidden_layers": layers, "vocab_size": len(tokenizer), "max_position_embeddings": 8192}
    save("llama", folder, **states, **sizes)
    tokenizer.save_pretrained(folder)
    return folder


def text(words=2000):
    generator = torch.manual_seed(1)
    return " ".join(f"w{i}" for i in torch.randint(VOCABULARY - 1, (words,), generator=generator).tolist())


def attend_to_top_k(model, keys_kept, **options):
    """Let a model attend to its most probable keys alone."""
    return attend_by(model, Oracle(), keys_kept, Compute(), **options)
