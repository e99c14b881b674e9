import pandas as pd
import pytest
from omegaconf import OmegaConf

from analysis import settings
from analysis.publishing import claims


def judged(tmp_path, lines, current=("rates",), **entry):
    """Verdict on lines of (label, rate, low, high) by the rule: below 0 supports, above 0 opposes."""
    table = pd.DataFrame(lines, columns=["label", "rate", "rate_low", "rate_high"]).assign(measure="tv")
    table["parameter"] = [0.1 * (i + 1) for i in range(len(table))]
    table.to_csv(tmp_path / "rates.csv", index=False)
    rule = {"claim": 1, "question": "?", "norm": "tv", "table": "rates", "where": {"measure": "tv"}, "value": "rate"}
    rule |= {"quantity": "slope", "supports": "high < 0", "opposes": "low > 0", "names": "C"} | entry
    return claims.judge(tmp_path, OmegaConf.create({"claims": [rule]}), current)


FALLS, STAYS, GROWS = (-1.0, -1.2, -0.8), (0.0, -0.1, 0.1), (1.0, 0.8, 1.2)


@pytest.mark.parametrize(
    ("lines", "verdict"),
    [
        ([FALLS], "confirmed"),
        ([STAYS], "qualified"),
        ([GROWS], "contradicted"),
        ([FALLS, FALLS], "confirmed"),
        ([FALLS, STAYS], "qualified"),
        ([FALLS, GROWS], "qualified"),
        ([STAYS, GROWS], "contradicted"),
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
    assert judged(tmp_path, [("A", -1.0, float("nan"), float("nan"))]).empty
    several = judged(tmp_path, [("A", *FALLS), ("A", -1.0, float("nan"), float("nan"))])
    assert several["lines"].item() == 1


def test_a_table_that_was_not_made_gives_no_verdict(tmp_path):
    tables = {entry.table for entry in settings.claims().claims}
    assert claims.judge(tmp_path, settings.claims(), tables).empty


def test_a_table_of_other_records_gives_no_verdict(tmp_path):
    assert judged(tmp_path, [("A", *FALLS)], current=("fits",)).empty


def test_the_claims_are_judged_on_tables_as_the_analysis_writes_them(analysed):
    table = pd.read_csv(analysed / "tables" / "claims.csv")
    assert set(table["claim"]) >= {1, 2, 3, 5}
    assert set(table["verdict"]) <= {"confirmed", "qualified", "contradicted"}
    known = {(entry.claim, entry.question, entry.norm) for entry in settings.claims().claims}
    assert set(table[["claim", "question", "norm"]].itertuples(index=False, name=None)) <= known
