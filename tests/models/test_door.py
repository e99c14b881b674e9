"""The door of every runner that runs a model: causality, what layers hand over, positions, finite numbers, tokens."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
import transformers
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

from experiments.errors import UserError
from experiments.launch import configure
from experiments.models.language_model import open_language_model
from experiments.models.load import encode, encode_pair, load_config, load_model, load_tokenizer
from experiments.models.locate import locate
from experiments.models.positions import by_regime, check_one_regime
from experiments.models.probe import check_watchable, forward, intercept, watch
from experiments.models.visible import check_seen
from experiments.models.windowed import densely
from experiments.records.folder import Record
from experiments.runners.retrieval import ANSWER, QUESTION
from experiments.sources import MatrixRequest
from experiments.sources.checkpoint import Checkpoint
from tests.models import small, zoo

CPU = torch.device("cpu")
SIZES = small.SIZES | {"intermediate_size": 64, "max_position_embeddings": 256}
WIDE = SIZES | {"hidden_size": 256, "num_attention_heads": 8}
ENDS = {"pad_token_id": 0, "cls_token_id": 1, "sep_token_id": 2, "bos_token_id": 1, "eos_token_id": 2}
TOKENS = torch.arange(12) * 7 % small.VOCABULARY
X = transformers

MODELS = {
    "bert": (X.BertConfig(**SIZES), False),
    "bert, wide": (X.BertConfig(**WIDE), False),
    "bert, hardly trained": (X.BertConfig(**SIZES, initializer_range=0.002), False),
    "modernbert": (X.ModernBertConfig(**WIDE, local_attention=16, global_attn_every_n_layers=3, **ENDS), False),
    "xlm-roberta": (X.XLMRobertaConfig(**SIZES, pad_token_id=1), False),
    "gemma3, both ways": (
        X.Gemma3TextConfig(**SIZES, head_dim=8, num_key_value_heads=2, use_bidirectional_attention=True),
        False,
    ),
    "llama": (X.LlamaConfig(**SIZES), True),
    "mistral": (X.MistralConfig(**SIZES, num_key_value_heads=2, sliding_window=4), True),
    "mixtral": (X.MixtralConfig(**SIZES, num_key_value_heads=2, num_local_experts=4), True),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", MODELS)
def test_causality_is_that_of_the_masks_whatever_the_dtype_and_the_states(name, dtype):
    config, causal = MODELS[name]
    torch.manual_seed(0)
    model = X.AutoModel.from_config(config).eval().to(dtype)
    for tokens in (TOKENS, TOKENS.flip(0), torch.zeros_like(TOKENS)):
        assert check_watchable(model, tokens) is causal


def test_states_that_are_not_finite_are_refused_and_not_taken_for_an_encoder():
    model = X.AutoModel.from_config(X.LlamaConfig(**SIZES)).eval()
    with torch.no_grad():
        model.layers[1].mlp.down_proj.weight.mul_(1e9)
    assert check_watchable(model, TOKENS)
    with pytest.raises(UserError, match=r"LlamaModel: layer 2 has queries.* not finite in torch\.float16.*float32"):
        check_watchable(model.half(), TOKENS)


@pytest.mark.parametrize(("name", "what"), [("indices", "an index of the keys"), ("new_thing", "new_thing")])
def test_an_argument_that_a_layer_hands_over_is_refused_unless_it_is_known(monkeypatch, name, what):
    """A layer that some day gives the attention more than a mask is not measured as if it had not."""
    model = X.AutoModel.from_config(X.LlamaConfig(**SIZES)).eval()
    plain = type(model.layers[0].self_attn).forward

    def handing_over(self, *args, **kwargs):
        return plain(self, *args, **kwargs, **{name: torch.ones(1)})

    monkeypatch.setattr(type(model.layers[0].self_attn), "forward", handing_over)
    with pytest.raises(UserError, match=rf"LlamaModel: layer 0 has .*{what}"):
        check_watchable(model, TOKENS)


def test_a_layer_that_does_more_than_it_hands_over_is_refused(monkeypatch):
    """Masks that are made for eager attention alone are missing elsewhere: compared with it, the rows differ."""
    model = X.AutoModel.from_config(X.LlamaConfig(**SIZES)).eval()
    for layer in model.layers:
        layer.self_attn.is_causal = False
    with pytest.raises(UserError, match=r"rows of layer 0 are not those of the model's own eager attention"):
        check_watchable(model, TOKENS)


def test_what_attends_in_a_layers_place_is_used():
    model = X.AutoModel.from_config(X.LlamaConfig(**SIZES)).eval()
    with intercept(model, lambda attention: torch.zeros_like(attention.query_HND)):
        nothing = forward(model, TOKENS)
    assert (nothing - forward(model, TOKENS)).abs().max() > 1e-3


# ---- language runners ----


def saved(tmp_path, config, auto=X.AutoModelForCausalLM, name="m"):
    torch.manual_seed(0)
    folder = tmp_path / name
    model = auto.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3.0)
    model.save_pretrained(folder)
    small.write_tokenizer(folder)
    return folder


FEW = ["windows.log_powers=[]", "windows.fractions=[]", "windows.thresholds=[]", "windows.top_p=[]"]
FEW += ["windows.grid_per_octave=0", "windows.exponents=[0.9]", "windows.fixed=[1,32]"]


def record_of(tmp_path, folder, *overrides, windows=FEW):
    """Run a job on a checkpoint and return the folder of its record."""
    text = tmp_path / "text.txt"
    text.write_text(small.text())
    job = configure(
        "source=checkpoint",
        f"source.model={folder}",
        f"source.text={text}",
        "source.rows=1",
        "source.samples=1",
        *windows,
        *overrides,
    )
    (tmp_path / "record").mkdir(exist_ok=True)
    record = Record(tmp_path / "record", job.runner.tables)
    machine = type("Machine", (), {"device": CPU, "memory_bytes": 10**9})
    job.runner.run(job.source, job.selector, job.windows, machine, 0, record, lambda: None)
    record.close("", dict)
    return tmp_path / "record"


HEADS = {
    "scaled": X.GraniteConfig(**SIZES, num_key_value_heads=2, attention_multiplier=0.2, logits_scaling=8.0),
    "scaled down": X.CohereConfig(**SIZES, num_key_value_heads=2, logit_scale=0.0625),
    "transformed": X.BertConfig(**SIZES, is_decoder=True),
    "capped": X.Gemma4TextConfig(
        **(SIZES | {"num_hidden_layers": 4, "num_key_value_heads": 2, "head_dim": 8, "global_head_dim": 16}),
        sliding_window=16,
        layer_types=["sliding_attention", "full_attention"] * 2,
        num_kv_shared_layers=2,
        vocab_size_per_layer_input=small.VOCABULARY,
        hidden_size_per_layer_input=8,
        final_logit_softcapping=5.0,
    ),
}


@pytest.mark.parametrize("phase", ["prefill", "decode"])
@pytest.mark.parametrize("name", HEADS)
def test_losses_are_the_models_own_with_its_scale_cap_and_transform(tmp_path, name, phase):
    folder = saved(tmp_path, HEADS[name])
    overrides = ["runner=language", f"runner.phase={phase}", "runner.decode_tokens=16", "source.lengths=[64]"]
    losses = pd.read_parquet(record_of(tmp_path, folder, *overrides) / "losses.parquet")
    dense = losses[losses["rule"] == "dense"].sort_values("position")
    token_N = torch.tensor([int(word[1:]) for word in small.text().split()[:64]])
    model = X.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        logits = model(input_ids=token_N[None], use_cache=False).logits[0].double()
    true = torch.nn.functional.cross_entropy(logits[:-1], token_N[1:], reduction="none").numpy()
    gap = abs(dense["loss"].to_numpy() - true[dense["position"].to_numpy()])
    assert gap.max() < 1e-4


@pytest.mark.parametrize("runner", ["language", "retrieval", "decoding"])
@pytest.mark.parametrize(
    ("config", "auto", "message"),
    [
        (X.BertConfig(**SIZES), X.AutoModelForMaskedLM, "its rows see later tokens"),
        (
            MODELS["modernbert"][0],
            X.AutoModelForMaskedLM,
            r"type modernbert: its rows see later tokens.* runner=approximation",
        ),
        (X.FalconConfig(**small.SIZES), X.AutoModelForCausalLM, "FalconForCausalLM: 0 attention calls"),
        (zoo.config_of("inkling_text"), X.AutoModelForCausalLM, "layer 0 has a position bias"),
    ],
    ids=["encoder", "encoder without a causal class", "not through the interface", "not plain"],
)
def test_every_runner_refuses_what_is_not_measured(tmp_path, runner, config, auto, message):
    folder = saved(tmp_path, config, auto)
    with pytest.raises(UserError, match=message):
        record_of(tmp_path, folder, f"runner={runner}", "source.lengths=[160]")


def test_a_checkpoint_without_a_head_has_no_losses(tmp_path):
    folder = saved(tmp_path, X.LlamaConfig(**SIZES), X.AutoModel)
    with pytest.raises(UserError, match=r"tensor lm_head\.weight is missing"):
        record_of(tmp_path, folder, "runner=language", "source.lengths=[64]")


EQUAL = ["windows=equal_cost", "windows.budgets=[8]", "windows.exponents=[0.9]"]


def equal_cost_keys(tmp_path, folder):
    """Return the mean keys of each window of equal cost, by rule."""
    record = record_of(tmp_path, folder, "runner=language", "source.lengths=[64]", windows=EQUAL)
    losses = pd.read_parquet(record / "losses.parquet")
    return losses.groupby("rule")["keys"].mean().drop("dense")


@pytest.mark.parametrize(
    "config",
    [
        X.LlamaConfig(**SIZES, sliding_window=16),
        X.MistralConfig(**SIZES, num_key_value_heads=2, sliding_window=16),
        X.Cohere2Config(**SIZES, num_key_value_heads=2, sliding_window=16, sliding_window_pattern=3),
    ],
    ids=["a window that is not read", "sliding", "one full layer"],
)
def test_windows_of_equal_cost_cost_the_same_in_every_model(tmp_path, config):
    keys = equal_cost_keys(tmp_path, saved(tmp_path, config))
    shapes = keys[["fixed", "log", "power", "linear"]]
    assert shapes.to_numpy() == pytest.approx(8, abs=1.0)  # windows are whole numbers of keys


def test_a_model_whose_rows_see_other_keys_than_its_configuration_says_is_refused(tmp_path):
    """Moshi has a window in its configuration, and no mask of it."""
    sizes = {name: size for name, size in SIZES.items() if name != "intermediate_size"}
    folder = saved(tmp_path, X.MoshiConfig(**sizes, ffn_dim=64, sliding_window=16, head_dim=8))
    with pytest.raises(UserError, match=r"MoshiForCausalLM: a row of context length 17 sees 17 keys.* says 16"):
        equal_cost_keys(tmp_path, folder)


@pytest.mark.parametrize("name", ["llama4_text", "gemma3_text", "cohere2", "modernbert-decoder", "gemma4_unified"])
def test_the_keys_that_rows_see_are_counted_from_the_masks(tmp_path, name):
    """Oracle: the masks that every layer is handed over the whole context, counted row by row."""
    model = zoo.save(name, tmp_path).eval()
    token_N = torch.arange(48) * 7 % (small.VOCABULARY - 5)
    with densely(model, 48) as kept:
        forward(model, token_N)
    n_N = np.arange(1, 49)
    check_seen(model, token_N, lambda _: (kept.mean()[None], np.ones(1)))
    with pytest.raises(UserError, match="of context length 6 sees"):
        check_seen(model, token_N, lambda _: (np.minimum(n_N, 5.0)[None], np.ones(1)))


def test_a_sliding_layer_keeps_and_reads_its_window_alone(tmp_path):
    folder = saved(tmp_path, X.MistralConfig(**SIZES, num_key_value_heads=2, sliding_window=16))
    steps = pd.read_parquet(
        record_of(tmp_path, folder, "runner=decoding", "runner.repeats=1", "source.lengths=[160]") / "decoding.parquet"
    ).set_index(["rule", "parameter"])
    assert steps["k"].tolist() == [1, 16, 13]  # 13 = ceil(16^0.9): n is what the row sees
    assert (steps["bytes_dense"] == 16 * 3 * 2 * 16 * 4).all()  # keys x layers x KV heads x (key, value) x float32
    losses = pd.read_parquet(record_of(tmp_path, folder, "runner=language", "source.lengths=[64]") / "losses.parquet")
    dense = losses[losses["rule"] == "dense"].sort_values("position")
    assert dense["keys"].tolist() == [min(position + 1, 16) for position in range(63)]


def test_a_sliding_layer_keeps_what_a_budget_gives_it_at_the_length_of_the_context(tmp_path):
    """Rows see 16 keys of any context, and another number of them may be theirs in a longer one."""
    folder = saved(tmp_path, X.MistralConfig(**SIZES, num_key_value_heads=2, sliding_window=16))
    points = [{"length": 64, "k": 3.0}, {"length": 160, "k": 9.0}]
    heads = [{"layer": layer, "head": head, "keys": points, "sees": 16} for layer in range(3) for head in range(4)]
    content = {"format": 2, "by": "gains", "label": "m", "model": locate(str(folder)).sha256(), "heads": heads}
    content |= {"tolerance": None, "cost": 6.0, "pooled": {"alpha": 6.0, "C": 0.0}, "supported_length": 160}
    (tmp_path / "budget.json").write_text(json.dumps(content))
    windows = ["windows=budget", f"windows.file={tmp_path / 'budget.json'}"]
    asked = ["source.lengths=[64,160]", "source.samples=1"]

    def table(runner, *overrides):
        return pd.read_parquet(record_of(tmp_path, folder, *asked, *overrides, windows=windows) / f"{runner}.parquet")

    steps = table("decoding", "runner=decoding", "runner.repeats=1")
    assert steps.groupby("length")["k"].mean().to_dict() == {64: 3, 160: 9}
    losses = table("losses", "runner=language", "runner.phase=decode", "runner.decode_tokens=8")
    kept = losses[losses["rule"] == "budget_gains"].set_index("position")["keys"]
    assert kept.to_dict() == {p: np.ceil(np.interp(p + 1, [64, 160], [3, 9]) * (1 - 1e-9)) for p in kept.index}
    rows = table("windows", "source.rows=2", "source.stride=1")
    assert rows.groupby("length")["k"].max().to_dict() == {64: 3, 160: 9}


# ---- positions that depend on the length of the pass [T8] ----

LIMIT = 32


def longrope(**changes):
    short, long = [1.0, 1.1, 1.3, 1.5], [1.5, 4.0, 9.0, 20.0]
    rope = {"rope_type": "longrope", "rope_theta": 10000.0, "short_factor": short, "long_factor": long}
    rope |= {"original_max_position_embeddings": LIMIT} | changes
    return X.Phi3Config(
        **SIZES, num_key_value_heads=2, rope_parameters=rope, pad_token_id=0, original_max_position_embeddings=LIMIT
    )


def dynamic():
    rope = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": LIMIT}
    return X.LlamaConfig(**SIZES, rope_parameters=rope)


def eager_rows(folder, token_N):
    model = X.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32).eval()
    with torch.inference_mode():
        return [layer[0] for layer in model(input_ids=token_N[None], output_attentions=True).attentions]


def test_rows_of_every_length_are_those_of_a_pass_of_that_length(tmp_path):
    folder = saved(tmp_path, longrope())
    text = tmp_path / "text.txt"
    text.write_text(small.text())
    source = Checkpoint(model=str(folder), lengths=[16, 32, 64, 96], rows=4, samples=1, text=str(text))
    found = []
    source.stream(
        found.extend, seed=0, device=CPU, matrices=MatrixRequest([], []), record=lambda rows: None, runs=pytest.fail
    )
    assert sum(len(rows.heads) for rows in found) == 3 * 4 * 4
    token_N = source._token_samples()[0]
    for rows in found:
        expected_RN = eager_rows(folder, token_N[: rows.length])[rows.layer][rows.head_R, rows.position_R]
        torch.testing.assert_close(torch.softmax(rows.logits(), -1), expected_RN, rtol=1e-3, atol=1e-5)


def test_lengths_are_grouped_by_the_factors_of_their_pass():
    assert by_regime(longrope(), [64, 16, 32, 96]) == [[16, 32], [64, 96]]
    same = longrope(long_factor=[1.0, 1.1, 1.3, 1.5])
    assert by_regime(same, [64, 16]) == [[16, 64]]
    assert by_regime(X.LlamaConfig(**SIZES), [64, 16]) == [[16, 64]]
    assert by_regime(dynamic(), [16, 32]) == [[16, 32]]
    with pytest.raises(UserError, match=r"source\.lengths has 33: beyond 32 tokens"):
        by_regime(dynamic(), [16, 33])
    check_one_regime(longrope(), [33, 64], "decoding")
    with pytest.raises(UserError, match=r"runner=decoding .* 32 to 33 tokens"):
        check_one_regime(longrope(), [33, 32], "decoding")


@pytest.mark.parametrize("runner", ["language", "retrieval", "decoding"])
def test_one_cache_is_not_read_with_two_sets_of_factors(tmp_path, runner):
    folder = saved(tmp_path, longrope())
    lengths = {"language": [64, 40], "retrieval": [40], "decoding": [64, 32]}[runner]
    phase = ["runner.phase=decode", "runner.decode_tokens=16"] if runner == "language" else []
    with pytest.raises(UserError, match="rotary factors of this model change"):
        record_of(tmp_path, folder, f"runner={runner}", f"source.lengths={lengths}", *phase)


# ---- tokens of a task ----


def train(scheme):
    corpus = [QUESTION.format(city=c) + ANSWER.format(number=n) for c in ("Paris", "Rome") for n in range(10000, 10300)]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    if scheme == "byte level":
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        specials = ["<unk>"]
    else:
        prepend = "always" if scheme == "always" else "first"
        digits = pre_tokenizers.Split(Regex("[0-9]"), "isolated")
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Metaspace(prepend_scheme=prepend), digits])
        specials = ["<unk>", "▁"]
    trainer = trainers.BpeTrainer(vocab_size=100, special_tokens=specials, show_progress=False)
    tokenizer.train_from_iterator(corpus, trainer)
    if scheme == "llama 2":
        tokenizer.pre_tokenizer = None
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return tokenizer


@pytest.mark.parametrize("scheme", ["byte level", "first", "always", "llama 2"])
def test_tokens_of_a_task_are_those_of_its_whole_text(tmp_path, scheme):
    """The answer has the ids that it has in one text with its question, and no piece has a space of its own."""
    folder = small.save("llama", tmp_path)
    train(scheme).save(str(folder / "tokenizer.json"))
    for cached in (encode, load_tokenizer, load_config):
        cached.cache_clear()
    checkpoint = locate(str(folder))
    tokenizer = load_tokenizer(checkpoint)
    question, answer = QUESTION.format(city="Paris"), ANSWER.format(number=10234)
    before = "of"
    whole = tokenizer(before + question + answer, add_special_tokens=False)["input_ids"]
    asked, answered = encode_pair(checkpoint, question, answer)
    assert whole[-len(asked + answered) :] == asked + answered
    assert "".join(tokenizer.convert_ids_to_tokens(answered)).strip("▁Ġ") == "10234"
    assert encode(checkpoint, question) == asked
    assert whole == tokenizer(before, add_special_tokens=False)["input_ids"] + asked + answered


def test_a_token_that_the_model_does_not_have_is_refused(tmp_path):
    folder = small.save("llama", tmp_path)
    content = json.loads((folder / "tokenizer.json").read_text())
    content["model"]["vocab"]["w5"] = 500
    (folder / "tokenizer.json").write_text(json.dumps(content))
    text = tmp_path / "text.txt"
    text.write_text("w1 w2 w5 " * 20)
    with pytest.raises(UserError, match=r"gives token 500, but its config\.json names 120"):
        Checkpoint(model=str(folder), lengths=[20], rows=2, samples=1, text=str(text)).documents(0)


def test_the_door_gives_a_model_that_was_tried(tmp_path):
    folder = small.save("llama", tmp_path)
    source = Checkpoint(model=str(folder), lengths=[20], rows=2, samples=1)
    model = open_language_model(source, CPU, TOKENS, [[20]], "language", cached=True)
    assert type(model) is type(load_model(locate(str(folder)), torch.float32, CPU, "AutoModelForCausalLM"))


def test_what_fails_while_a_pass_is_watched_is_not_the_models_fault():
    """A full disk, met by what records the rows, stays what it is; what the model itself cannot do is its own."""
    model = X.AutoModel.from_config(X.LlamaConfig(**SIZES)).eval()

    def fails(attention):
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"), watch(model, fails):
        forward(model, TOKENS)
    with pytest.raises(UserError, match="LlamaModel: does not run on 1 tokens"):
        forward(model, torch.tensor([10**6]))
