"""`python -m analysis`: tables, figures and the report, from the records alone."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from analysis import claims, figures, ledger, report, save, settings, tables
from analysis.draw import Outcome, current_tables, draw, left_alone
from analysis.load import complete_runs, fullest_design, load_runs
from experiments.errors import UserError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the analysis; returns the exit status, 1 after an error that the user can mend."""
    parser = argparse.ArgumentParser(prog="python -m analysis", description=__doc__)
    parser.add_argument("--only", nargs="+", metavar="NAME", help=f"figures to draw: {', '.join(figures.names())}")
    parser.add_argument("--force", action="store_true", help="make everything anew, fresh or not")
    parser.add_argument("--outputs", type=Path, default=Path("outputs"), metavar="DIR", help="where runs/ lies")
    asked = parser.parse_args(arguments)
    try:
        failed = analyse(asked.outputs, asked.only, asked.force, Console())
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(
            f"error: {error.filename}: {error.strerror}; make it writable or choose another --outputs", file=sys.stderr
        )
        return 1
    for outcome in failed:
        print(f"error: figure {outcome.name} failed: {outcome.reason}; the others are made", file=sys.stderr)
    return 1 if failed else 0


def analyse(outputs: Path, only: Sequence[str] | None, force: bool, console: Console) -> list[Outcome]:
    """Make the tables, the stale figures among those asked for (all by default) and the report.

    Parameters
    ----------
    outputs : the directory that holds `runs/`; `figures/`, `tables/` and `report/` go beside it.
    only : names of figures, None for all.
    force : make anew what is fresh.
    console : for progress and the summary; the last line printed is the path of the report.

    Returns
    -------
    list : the figures that failed.

    Raises
    ------
    UserError : for an unknown name, if there are no records, or if one cannot be read.
    """
    names = sorted(figures.names(), key=lambda name: settings.figure(name).order)
    if unknown := sorted(set(only or ()) - set(names)):
        raise UserError(f"no figure named {', '.join(unknown)}: choose from {', '.join(sorted(names))}")
    config = settings.analysis()
    with console.status("reading records") as status:
        runs = complete_runs(outputs)
        rows, windows = load_runs(runs)
        status.update(f"fitting laws to {len(rows):,} rows of {len(runs)} runs")
        softmax = rows[rows["score_power"].isna()]
        fits = tables.fits(softmax, runs, outputs / "tables", config, force)
        outcomes = []
        for name in names:
            status.update(f"drawing {name}")
            if only and name not in only:
                outcomes.append(left_alone(name, rows, windows, fits, runs, outputs))
            else:
                outcomes.append(draw(name, rows, windows, fits, runs, outputs, force))
        status.update("judging the claims and writing the report")
        current = {*tables.NAMES, *current_tables(outcomes)}
        verdicts = claims.judge(outputs / "tables", settings.claims(), current)
        save.write_csv(verdicts, outputs / "tables", "claims")
        ledger.write(outputs / "tables", {*current, "claims"}, runs)
        page = report.write(outputs, outcomes, fits, verdicts, runs, config)
    console.print(_summary(outcomes, fits, len(runs)))
    if old := [outcome.name for outcome in outcomes if outcome.status in ("stale", "damaged")]:
        console.print(
            f"no verdict from the tables of {', '.join(old)}: not of these records, settings and code, or damaged; "
            f"python -m analysis --only {' '.join(old)}",
            soft_wrap=True,
        )
    if left := softmax["run"].nunique() - fullest_design(softmax)["run"].nunique():
        console.print(
            f"laws are fitted without {left} of {len(runs)} runs, which repeat a label that another configuration "
            "measured more fully (most heads, then lengths, then samples); figures of another kind may show them",
            soft_wrap=True,
        )
    console.print(str(page), soft_wrap=True, highlight=False, markup=False)
    return [outcome for outcome in outcomes if outcome.status == "failed"]


def _summary(outcomes: Sequence[Outcome], fits: tables.Fits, runs: int) -> Table:
    table = Table(title=f"Analysis of {runs} runs", title_justify="left", box=None, pad_edge=False)
    for heading in ("result", "status", "why"):
        table.add_column(heading)
    table.add_row("fits", "fresh" if fits.fresh else "made", "")
    for outcome in outcomes:
        table.add_row(outcome.name, outcome.status, Text(outcome.reason))
    return table


if __name__ == "__main__":
    sys.exit(main())
