"""docs/tables.md: what it says is what is declared, and what is declared is what the analysis writes."""

import pandas as pd
import pytest

from analysis.publishing import columns


def test_the_page_is_made_of_the_declarations():
    assert columns.PAGE.read_text(encoding="utf-8") == columns.page()


@pytest.mark.parametrize("name", columns.TABLES)
def test_a_table_has_the_columns_that_the_page_explains(analysed, name):
    written = list(pd.read_csv(analysed / "tables" / f"{name}.csv", nrows=0).columns)
    declared, own = columns.TABLES[name]
    assert written == list(declared)
    assert set(own) <= set(declared)
    for column in declared:
        columns.meaning(name, column)


def test_no_meaning_is_of_no_column():
    assert {column for declared, _ in columns.TABLES.values() for column in declared} >= set(columns.SHARED)
