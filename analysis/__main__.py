"""`python -m analysis`: tables, figures and the report, from the records alone."""

import argparse
import gc
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from analysis import blas, pipeline, save, settings  # noqa: F401  blas first
from analysis.figures.page.size import Size
from analysis.outcome import Outcome
from analysis.publishing import claims, latex, ledger, paper, report
from analysis.records.evidence import Records
from analysis.records.load import complete_runs, fullest_design
from analysis.studies import provenance
from experiments.command.terminal import terminal
from experiments.errors import UserError

DESIGN = ("label", "design", "layer", "head", "length", "cluster")  # what one is chosen by


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the analysis; returns the exit status, 1 after an error that the user can mend."""
    parser = argparse.ArgumentParser(prog="python -m analysis", description=__doc__)
    parser.add_argument("--only", nargs="+", metavar="NAME", help=f"figures to draw: {', '.join(settings.figures())}")
    parser.add_argument("--force", action="store_true", help="make everything anew, fresh or not")
    parser.add_argument("--outputs", type=Path, default=Path("outputs"), metavar="DIR", help="where runs/ lies")
    for_paper = parser.add_argument_group("for a paper: any of these draws the figures once more, into outputs/paper")
    paper.add_options(for_paper)
    for_paper.add_argument(
        "--to", type=Path, metavar="FOLDER", help="draw them there, and make nothing else: no table, report or figure"
    )
    requested = parser.parse_args(arguments)
    try:
        paper_of = None
        if paper.asked(requested) or requested.to:
            size = Size.of(requested.width, requested.font)
            paper_of = partial(paper.draw, size=size, formats=requested.format or ["pdf"])
        if paper_of is not None and requested.to:
            _draw_only(requested.outputs, requested.to, paper.check_names(requested.only), paper_of)
            return 0
        failed = analyse(requested.outputs, requested.only, requested.force, terminal(), paper_of)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        where, reason = error.filename or requested.outputs, error.strerror or error
        other = "--to" if requested.to else "--outputs"
        print(f"error: {where}: {reason}; free space, make it writable or choose another {other}", file=sys.stderr)
        return 1
    for outcome in failed:
        print(f"error: {outcome.name} failed: {outcome.reason}; the others are made", file=sys.stderr)
    return 1 if failed else 0


def _draw_only(outputs: Path, folder: Path, figures: Sequence[str], paper_of: Callable[..., list[str]]) -> None:
    """Draw figures for a paper into a folder, of the tables of the last analysis; nothing below `outputs` changes."""
    current = ledger.current_tables(outputs, Records(complete_runs(outputs)))
    for note in paper_of(partial(save.read_csv, outputs / "tables"), folder, figures, current):
        print(note)
    print(folder)


def analyse(
    outputs: Path,
    only: Sequence[str] | None,
    force: bool,
    console: Console,
    paper_of: Callable[..., list[str]] | None = None,
) -> list[Outcome]:
    """Make the stale tables, the stale figures among those requested (all by default), the verdicts and the report.

    Parameters
    ----------
    outputs : the directory that holds `runs/`; `figures/`, `tables/` and `report/` go beside it.
    only : names of figures, None for all; then only the tables that they and the report read are made.
    force : make anew what is fresh.
    console : for progress and the summary; the last line printed is the path of the report.
    paper_of : draws the figures requested for a paper, of the current tables, and says what was left out, as
        `paper.draw` of a size and formats; or None.

    Returns
    -------
    list : the studies and figures that failed.

    Raises
    ------
    UserError : for an unknown name, if there are no records, or if one cannot be read.
    """
    figures = settings.figures()
    requested = paper.check_names(only)
    needed = set(provenance.owners([*report.READS, *(table for name in requested for table in _reads(name))]))
    if not only:
        needed = set(settings.studies())
    with console.status("reading records") as status:
        records = Records(complete_runs(outputs))
        studies: dict[str, Outcome] = {}
        for name in settings.studies():
            status.update(f"making the tables of {name}")
            studies[name] = (
                pipeline.run_study(name, records, outputs, force and name in needed)
                if name in needed
                else pipeline.check_study(name, records, outputs)
            )
        drawn = []
        for name in figures:
            status.update(f"drawing {name}")
            drawn.append(
                pipeline.draw_figure(name, outputs, studies, force)
                if name in requested
                else pipeline.check_figure(name, outputs, studies)
            )
        status.update("judging the claims and writing the report")
        current = ledger.current_tables(outputs, records)
        verdicts = claims.judge(outputs / "tables", settings.claims(), current)
        save.write_csv(verdicts, outputs / "tables", "claims")
        unjudged = claims.unmeasured(verdicts, settings.claims())
        latex.write(latex.verdicts(verdicts, unjudged), outputs / "tables" / "claims.tex")
        ledger.write(outputs / "tables", current)
        page = report.write(outputs, list(studies.values()), drawn, verdicts, records.runs, settings.analysis())
        notes = []
        if paper_of is not None:
            read = partial(save.read_csv, outputs / "tables")
            notes = paper_of(read, outputs / paper.FOLDER, requested, current)
    console.print(_summary(studies.values(), drawn, len(records.runs)))
    for note in notes:
        console.print(note)
    if paper_of is not None:
        console.print(str(outputs / paper.FOLDER))
    if old := [name for name, outcome in studies.items() if outcome.status in ("stale", "damaged")]:
        console.print(
            f"no verdict from the tables of {', '.join(old)}: not of these records, settings and code, or damaged; "
            "python -m analysis makes all of them"
        )
    if left := _runs_left_out(records):
        console.print(
            f"laws are fitted without {left} of {len(records.runs)} runs, which repeat a label that another "
            "configuration measured more fully (most heads, then lengths, then samples); figures of another kind may "
            "show them"
        )
    console.print(str(page))
    return [outcome for outcome in (*studies.values(), *drawn) if outcome.status == "failed"]


def _reads(figure: str) -> list[str]:
    return list(settings.figure(figure).reads)


def _runs_left_out(records: Records) -> int:
    """Count the runs of designs that stand for no label; runs that differ in windows or samples alone are of one."""
    runs = records.described
    rows = runs[(runs["runner"] == "approximation") & runs["score_power"].isna()]
    designs = rows.groupby("label")["design"].nunique()
    several = list(designs[designs > 1].index)
    if not several:
        return 0
    lines = records.lines["rows"]
    frame = lines.frame(["variant", *DESIGN], lines.where({"label": several, "score_power": [None]}))
    by_variant = frame.groupby("variant", observed=True, sort=False)
    used = {design for _, part in by_variant for design in fullest_design(part)["design"].unique()}
    return int((rows["label"].isin(several) & ~rows["design"].isin(used)).sum())


def _summary(studies: Iterable[Outcome], figures: Iterable[Outcome], runs: int) -> Table:
    table = Table(title=f"Analysis of {runs} runs", title_justify="left", box=None, pad_edge=False)
    for heading in ("result", "name", "status", "why"):
        table.add_column(heading)
    for kind, outcomes in (("tables", studies), ("figure", figures)):
        for outcome in outcomes:
            table.add_row(kind, outcome.name, outcome.status, Text(outcome.reason))
    return table


if __name__ == "__main__":
    # a million objects of imports and tables are looked through for garbage that is not there
    gc.freeze()
    gc.set_threshold(100_000)
    sys.exit(main())
