"""A tiny random model of every architecture that transformers can load as a decoder or an encoder of text.

Architectures are taken from transformers' own lists. A configuration is the architecture's default one with each known
size made small; what an architecture calls a size is in SIZES, and one that a newer transformers adds is tried too.
"""

import torch
import transformers
from transformers.models.auto import modeling_auto
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from tests.models.small import VOCABULARY, write_tokenizer

LAYERS, HEADS, WIDTH, HEAD_DIM, WINDOW, POSITIONS = 4, 4, 64, 16, 16, 256
SIZES = (
    (VOCABULARY, "vocab_size vocab_size_per_layer_input n_vocab"),
    (WIDTH, "hidden_size d_model n_embd dim emb_dim embedding_size word_embed_proj_dim lru_width d_embed"),
    (LAYERS, "num_hidden_layers n_layer num_layers n_layers encoder_layers decoder_layers num_decoder_layers"),
    (HEADS, "num_attention_heads n_head n_heads num_heads encoder_attention_heads decoder_attention_heads"),
    (HEADS, "swa_num_attention_heads num_experts num_local_experts n_routed_experts moe_num_experts n_head_"),
    (HEADS, "linear_num_key_heads linear_num_value_heads zero_expert_num num_zero_experts mamba_n_heads"),
    (HEAD_DIM, "head_dim v_head_dim qk_nope_head_dim d_kv linear_key_head_dim linear_value_head_dim swa_head_dim"),
    (HEAD_DIM, "swa_v_head_dim index_head_dim attention_head_dim kv_channels d_head global_head_dim rotary_dim"),
    (8, "qk_rope_head_dim hidden_size_per_layer_input"),
    (2, "num_experts_per_tok moe_topk moe_k top_k_experts num_experts_per_token index_n_heads experts_per_token"),
    (1, "n_group topk_group first_k_dense_replace moe_layer_start_index n_shared_experts num_shared_experts"),
    (1, "moe_num_shared_experts num_dense_layers"),
    (POSITIONS, "max_position_embeddings n_positions n_ctx max_seq_len max_sequence_length max_target_positions"),
    (POSITIONS, "max_seq_length"),
    (WINDOW, "sliding_window attention_chunk_size local_attention window_size local_window_size index_topk"),
)
SMALL = {name: size for size, names in SIZES for name in names.split()}
OTHER_SIZE, LARGE = 32, 96  # what an architecture calls ..._size, ..._dim or ..._rank besides is made this small
KEY_VALUE_HEADS = (
    "num_key_value_heads",
    "n_kv_heads",
    "num_kv_heads",
    "multi_query_group_num",
    "n_head_kv",
    "swa_num_key_value_heads",
    "num_global_key_value_heads",
)


def architectures():
    """Return each architecture with the auto class that builds it: an encoder where it has a masked language model."""
    masked = modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    causal = modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    known = {name: "AutoModelForCausalLM" for name in causal} | {name: "AutoModelForMaskedLM" for name in masked}
    return {name: auto for name, auto in sorted(known.items()) if name in CONFIG_MAPPING}


def config_of(name):
    """Return a tiny configuration of an architecture."""
    default = CONFIG_MAPPING[name]()
    return type(default)(**_smaller(default))


def _smaller(default):
    settings, values = {}, default.to_dict()
    for name, value in values.items():
        part = vars(default).get(name)
        if isinstance(value, dict) and hasattr(part, "to_dict"):
            settings[name] = {"model_type": part.model_type, **_smaller(part)}
        elif value is None and name in ("head_dim", *KEY_VALUE_HEADS):
            settings[name] = HEAD_DIM if name == "head_dim" else 2
        elif isinstance(value, bool) or not isinstance(value, int | list):
            continue
        elif name.endswith("token_id"):
            settings[name] = VOCABULARY - 2 if isinstance(value, int) and value >= VOCABULARY else value
        elif isinstance(value, list):
            continue
        elif name in SMALL:
            settings[name] = SMALL[name]
        elif name in KEY_VALUE_HEADS:
            settings[name] = 1 if value == 1 else 2
        elif name.endswith(("_size", "_dim", "_rank")) and value > LARGE:
            settings[name] = OTHER_SIZE
    if "qk_rope_head_dim" in settings and "head_dim" in settings:  # latent attention rotates a part of each head
        settings["head_dim"] = settings["qk_rope_head_dim"]
        settings |= {name: HEADS for name in KEY_VALUE_HEADS if name in settings}
    return settings


def save(name, folder):
    """Write a tiny random model of an architecture, and a word-level tokenizer; return the model."""
    torch.manual_seed(0)
    config = config_of(name)
    model = getattr(transformers, architectures()[name]).from_config(config)
    if sum(p.numel() for p in model.parameters()) > 5e6:
        raise ValueError("not small")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2.0)  # random initial weights give nearly uniform rows; these have some peaks
    model.save_pretrained(folder)
    write_tokenizer(folder)
    return model
