import pandas as pd
import pytest
from omegaconf import OmegaConf

from analysis import settings
from analysis.__main__ import main
from analysis.publishing import claims
from tests.analysis import synthetic


def judged(tmp_path, lines, current=("rates",), **entry):
    """Verdict on lines of (label, rate, low, high) by the rule: below 0 supports, above 0 opposes."""
    table = pd.DataFrame(lines, columns=["label", "rate", "rate_low", "rate_high"]).assign(measure="tv")
    table["parameter"] = [0.1 * (i + 1) for i in range(len(table))]
    table.to_csv(tmp_path / "rates.csv", index=False)
    rule = {"claim": 1, "reading": "for every C", "question": "?", "norm": "tv", "table": "rates", "value": "rate"}
    rule |= {"where": {"measure": "tv"}, "by": ["parameter"], "quantity": "slope", "supports": "high < 0"}
    rule |= {"opposes": "low > 0", "since": "2026-11-28", "numbers_known": True} | entry
    return claims.judge(tmp_path, OmegaConf.create({"claims": [rule]}), current)


NAN = float("nan")
FALLS, STAYS, GROWS = (-1.0, -1.2, -0.8), (0.0, -0.1, 0.1), (1.0, 0.8, 1.2)


@pytest.mark.parametrize(
    ("lines", "verdict"),
    [
        ([FALLS], "confirmed"),
        ([STAYS], "undecided"),
        ([GROWS], "contradicted"),
        ([FALLS, FALLS], "confirmed"),
        ([FALLS, STAYS], "qualified"),
        ([FALLS, GROWS], "qualified"),
        ([STAYS, GROWS], "contradicted"),
        ([STAYS, STAYS], "undecided"),
    ],
)
def test_a_verdict_follows_from_the_lines_and_the_rule(tmp_path, lines, verdict):
    table = judged(tmp_path, [("A", *line) for line in lines])
    assert table["verdict"].tolist() == [verdict]
    assert table["lines"].item() == len(lines)


def test_the_share_that_is_enough_is_the_configuration_s(tmp_path):
    lines = [("A", *FALLS)] * 9 + [("A", *GROWS)]
    assert judged(tmp_path, lines)["verdict"].item() == "qualified"
    assert judged(tmp_path, lines, enough=0.9)["verdict"].item() == "confirmed"


def test_each_source_has_its_own_verdict_and_evidence(tmp_path):
    table = judged(tmp_path, [("A", *FALLS), ("B", *GROWS)]).set_index("source")
    assert table["verdict"].to_dict() == {"A": "confirmed", "B": "contradicted"}
    assert table.loc["A", "evidence"] == "slope -1 [-1.2, -0.8]"


def test_what_has_no_interval_decides_nothing(tmp_path):
    line = judged(tmp_path, [("A", -1.0, NAN, NAN)]).iloc[0]
    assert (line["verdict"], line["lines"], line["evidence"]) == ("undecided", 0, "slope -1 without an interval")
    assert claims.effect_words(line) == "-1, no interval"
    several = judged(tmp_path, [("A", *FALLS), ("A", -1.0, NAN, NAN)])
    assert (several["lines"].item(), several["verdict"].item()) == (1, "confirmed")


def test_what_has_no_number_gives_no_verdict(tmp_path):
    assert judged(tmp_path, [("A", NAN, NAN, NAN)]).empty


def test_equal_numbers_of_different_evidence_are_each_one_line(tmp_path):
    lines = [("A", 0.0, 0.0, 0.0)] * 23 + [("A", *FALLS)]
    table = judged(tmp_path, lines, opposes="low >= 0")
    assert (table["lines"].item(), table["supporting"].item(), table["opposing"].item()) == (24, 1, 23)
    assert judged(tmp_path, lines, opposes="low >= 0", enough=0.9)["verdict"].item() == "contradicted"


def test_a_number_repeated_beside_each_point_of_a_curve_is_one_line(tmp_path):
    table = judged(tmp_path, [("A", *FALLS)] * 4, by=["measure"])
    assert table["lines"].item() == 1


def test_an_effect_is_the_median_and_the_range_or_a_single_interval(tmp_path):
    several = judged(tmp_path, [("A", *FALLS), ("A", *STAYS), ("A", *GROWS)]).iloc[0]
    assert several[["effect", "effect_low", "effect_high"]].tolist() == [0.0, -1.0, 1.0]
    assert claims.effect_words(several) == "0 (-1 to 1)"
    assert several["evidence"] == "slope: median 0, from -1 to 1; 1 of 3 lines support: C 0.1"
    one = judged(tmp_path, [("A", *FALLS)]).iloc[0]
    assert claims.effect_words(one) == "-1 [-1.2, -0.8]"
    assert (one["since"], bool(one["numbers_known"])) == ("2026-11-28", True)


def test_a_condition_and_the_evidence_may_name_further_columns(tmp_path):
    entry = {"supports": "high < 0 and parameter > 0.15", "uses": ["parameter"], "also": {"parameter": "C is {:.2f}"}}
    table = judged(tmp_path, [("A", *FALLS), ("A", *FALLS)], **entry)
    assert (table["supporting"].item(), table["verdict"].item()) == (1, "qualified")
    assert table["evidence"].item().endswith("; C is 0.15")
    assert judged(tmp_path, [("A", *FALLS)], uses=["not there"]).empty


def test_a_rule_of_real_models_judges_no_other_source(tmp_path):
    pd.DataFrame({"label": ["A", "B"], "kind": ["gaussian", "real"]}).to_csv(tmp_path / "about.csv", index=False)
    lines = [("A", *FALLS), ("B", *GROWS)]
    table = judged(tmp_path, lines, current=("rates", "about"), real="about")
    assert table["source"].tolist() == ["B"]
    assert judged(tmp_path, lines, real="about").empty, "a stale table does not say which sources are real"


def test_what_nothing_bears_on_is_not_measured(tmp_path):
    rules = settings.claims()
    none = claims.judge(tmp_path, rules, ())
    assert len(claims.unmeasured(none, rules)) == len(rules.claims)
    first = {name: rules.claims[0][name] for name in claims.RULE}
    some = pd.DataFrame([first])
    assert first.items() not in [rule.items() for rule in claims.unmeasured(some, rules)]
    assert len(claims.unmeasured(some, rules)) == len(rules.claims) - 1


def test_every_rule_says_since_when_it_stands_and_whether_numbers_were_known():
    rules = settings.claims().claims
    assert {entry.since for entry in rules} <= {"2026-11-23", "2026-11-25", "2026-11-28"}
    assert all(isinstance(entry.numbers_known, bool) for entry in rules)
    assert all(entry.numbers_known for entry in rules if entry.since == "2026-11-28")
    named = [tuple(entry[name] for name in claims.RULE) for entry in rules]
    assert len(set(named)) == len(named), "a rule is named by its claim, reading, question and norm"


def test_every_rule_names_tables_and_columns_that_a_study_makes(analysed):
    for entry in settings.claims().claims:
        path = analysed / "tables" / f"{entry.table}.csv"
        columns = {*entry.where, *entry.get("by", []), *entry.get("uses", []), *entry.get("also", {}), "label"}
        columns |= {f"{entry.value}{end}" for end in ("", "_low", "_high")}
        assert columns <= set(pd.read_csv(path, nrows=0).columns), (entry.table, entry.question)
        if "real" in entry:
            assert {"label", "kind"} <= set(pd.read_csv(analysed / "tables" / f"{entry.real}.csv", nrows=0).columns)


def test_a_table_that_was_not_made_gives_no_verdict(tmp_path):
    tables = {entry.table for entry in settings.claims().claims}
    assert claims.judge(tmp_path, settings.claims(), tables).empty


def test_a_table_of_other_records_gives_no_verdict(tmp_path):
    assert judged(tmp_path, [("A", *FALLS)], current=("fits",)).empty


def test_a_frozen_row_is_a_counterexample_to_claim_2_and_a_flat_one_is_not(tmp_path, monkeypatch):
    """At s = 3 a few keys hold the mass: what ln n keys leave is little, and falls."""
    monkeypatch.setattr(synthetic, "WINDOWS", [("log", 1.0, 1.0), ("fixed", 16.0, 1.0)])
    for s in (0.5, 3.0):
        rows, windows = synthetic.gaussian((256, 1024, 4096, 16384), 48, 12, s=s, dim=2)
        synthetic.write_run(tmp_path, f"g{s:g}", f"Gaussian, s = {s:g}", rows, windows, s=s)
    assert main(["--outputs", str(tmp_path), "--only", "log_window"]) == 0
    table = pd.read_csv(tmp_path / "tables" / "claims.csv")
    verdicts = table[(table["norm"] == "dropped mass") & (table["claim"] == 2)].set_index(["source", "reading"])
    for reading in ("log n keys, slope", "log n keys, level"):
        assert verdicts.loc[("Gaussian, s = 3", reading), "verdict"] == "contradicted"
        assert verdicts.loc[("Gaussian, s = 0.5", reading), "verdict"] == "confirmed"
    assert verdicts.loc[("Gaussian, s = 3", "log n keys, slope"), "effect_high"] < -0.05
    assert verdicts.loc[("Gaussian, s = 3", "log n keys, level"), "effect"] < 0.03


def test_the_claims_are_judged_on_tables_as_the_analysis_writes_them(analysed):
    table = pd.read_csv(analysed / "tables" / "claims.csv")
    assert set(table["claim"]) >= {1, 2, 3, 5}
    assert set(table["verdict"]) <= set(claims.VERDICTS)
    known = {tuple(entry[name] for name in claims.RULE) for entry in settings.claims().claims}
    assert set(table[[*claims.RULE]].itertuples(index=False, name=None)) <= known
    assert set(table.loc[table["claim"] == 5, "source"]) == {"TinyLM-Instruct"}
    assert table["effect"].notna().all()


def test_no_two_rules_look_alike_in_the_grid_of_the_report():
    """A line of it has claim, reading, norm and quantity; the question shows where the pointer rests."""
    rules = [(rule.claim, rule.reading, rule.norm, rule.quantity) for rule in settings.claims().claims]
    assert len(set(rules)) == len(rules)
