"""The page: one self-contained HTML file that needs no network and no server."""

import base64
import gzip
import hashlib
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from omegaconf import DictConfig
from PIL import Image

from analysis import save, settings
from analysis.figures import shown_lines
from analysis.figures.page import sources as by_source
from analysis.outcome import Outcome
from analysis.publishing import claims
from analysis.publishing.report.summary import Fits, head_fits, law_shares, pooled_fits, sentences
from analysis.records.load import Run
from analysis.studies import provenance
from experiments.errors import UserError
from experiments.status import failed_jobs

INDENTED = re.compile(rb"\n\s+")  # a tenth of an SVG, that shows nothing
SMALL_SVG = 100_000  # bytes; beyond it a PNG of few colours is lighter to show, and to send
COLOURS = 128
PREVIEW = 12  # lines of a long table
HEADS_SHOWN = 5000  # lines, about 1 MB
OPENING = "keys"  # the figure that answers the title's question
READS = ("fits", "fits_pooled", "laws", "keys_laws", "fits_sources")  # the tables that the page cannot do without


def write(
    outputs: Path,
    studies: Sequence[Outcome],
    outcomes: Sequence[Outcome],
    verdicts: pd.DataFrame,
    runs: Sequence[Run],
    config: DictConfig,
) -> Path:
    """Write the report and return its path.

    Parameters
    ----------
    outputs : the page goes to `report/index.html` below it; figures and tables are read from there.
    studies : of all of them; the tables named in `READS` are of the present records.
    outcomes : of all figures, in the order of reading.
    verdicts : the table of `analysis.claims`.
    runs : all complete runs, for the provenance.
    config : conf/analysis.yaml.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    environment.filters["digest"] = _digest
    by_id = {run.id: run for run in runs}
    fits = Fits(*(save.read_csv(outputs / "tables", name) for name in READS[:4]))
    if not all("label" in table for table in (fits.heads, fits.pooled, fits.laws, fits.means)):
        raise UserError(f"{outputs / 'tables'}: a fit table is damaged; run python -m analysis --force to make it anew")
    heads = head_fits(fits, config)
    kinds = dict(sorted({run.label: run.kind for run in runs}.items(), key=lambda one: (one[1] != "real", one[0])))
    # of several texts together there is no run
    kinds = {label: "real" for label in verdicts["source"] if label not in kinds} | kinds
    withheld = [outcome.name for outcome in studies if outcome.status in ("stale", "damaged")]
    here = Path(__file__)
    page = environment.get_template("page.html.j2").render(
        css=here.with_name("page.css").read_text(encoding="utf-8"),
        js=here.with_name("page.js").read_text(encoding="utf-8"),
        kinds=kinds,
        filters=_filters(kinds, heads, verdicts),
        heads=heads[:HEADS_SHOWN],
        heads_left=len(heads[HEADS_SHOWN:]),
        opening=OPENING,
        unfinished=failed_jobs(outputs / "jobs", set(by_id)),
        sentences=sentences(fits, config),
        withheld=withheld,
        claims=_claims(verdicts),
        sources=[label for label in kinds if label in set(verdicts["source"])],
        unmeasured=[
            rule
            for rule in claims.unmeasured(verdicts, settings.claims())
            if not set(provenance.owners([rule["table"]])) & set(withheld)
        ],
        eta=config.headline_eta,
        resamples=config.resamples,
        confidence=f"{config.confidence:.0%}",
        clear_lead=config.clear_lead,
        figures=[_figure(outcome, outputs, studies, by_id, kinds) for outcome in outcomes if outcome.stamp],
        skipped=[outcome for outcome in outcomes if not outcome.stamp],
        laws=law_shares(fits, config),
        pooled=pooled_fits(fits),
        fit_lines=len(fits.heads),
        runs=runs,
        versions=_versions(runs),
    )
    path = outputs / "report" / "index.html"
    save.write_text(path, page)
    return path


def _claims(verdicts: pd.DataFrame) -> list[dict[str, Any]]:
    """Return every rule that gave a verdict, with its verdicts."""
    every = []
    for rule, of_rule in verdicts.groupby([*claims.RULE], sort=False):
        lines = [
            line
            | {
                "effect_words": claims.effect_words(line),
                "short": "" if pd.isna(line["effect"]) else f"{line['effect']:.2g}",
            }
            for line in of_rule.to_dict("records")
        ]
        facts = {
            "quantity": of_rule["quantity"].iloc[0],
            "lines": lines,
            "by_source": {line["source"]: line for line in lines},
        }
        every.append(dict(zip(claims.RULE, rule, strict=True)) | facts)
    return every


def _filters(
    kinds: dict[str, str], heads: list[dict[str, Any]], verdicts: pd.DataFrame
) -> list[tuple[str, str, list[Any]]]:
    """Return name, heading and choices of each filter; the names are those of the lines' data attributes."""
    norms = list(dict.fromkeys(verdicts["norm"])) if len(verdicts) else []
    choices: list[tuple[str, str, list[Any]]] = [
        ("kind", "source", sorted(set(kinds.values()))),
        ("model", "model or distribution", sorted(kinds)),
        ("layer", "layer", sorted({line["layer"] for line in heads})),
        ("head", "head", sorted({line["head"] for line in heads})),
        ("norm", "norm", norms),
    ]
    return [choice for choice in choices if choice[2]]


def _digest(text: str) -> str:
    """Return what a content security policy calls a text, so that the browser runs nothing else."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _figure(
    outcome: Outcome, outputs: Path, studies: Sequence[Outcome], runs: dict[str, Run], kinds: dict[str, str]
) -> dict[str, Any]:
    assert outcome.stamp is not None
    owners = provenance.owners(outcome.config.reads)
    records = [run for study in studies if study.name in owners and study.stamp for run in study.stamp.inputs]
    tables, folder = list(outcome.config.reads), outputs / "tables"
    table = save.read_csv(folder, tables[0]) if (folder / f"{tables[0]}.csv").exists() else pd.DataFrame()
    table = shown_lines(tables[0], table, outcome.config) if len(table) else table
    return {
        "name": outcome.name,
        "config": outcome.config,
        "image": _image(outputs / "figures", outcome.name),
        **_filtered(outputs / "figures" / f"{outcome.name}.svg", kinds),
        "note": outcome.reason,
        "command": outcome.stamp.command,
        "settings": outcome.stamp.config,
        "code": outcome.stamp.code,
        "records": [(run, runs.get(run)) for run in dict.fromkeys(records)],
        "tables": {
            name: [suffix for suffix in ("csv", "tex") if (folder / f"{name}.{suffix}").exists()] for name in tables
        },
        "table": _cells(table.head(PREVIEW)),
        "lines": len(table),
    }


def _image(folder: Path, name: str) -> str:
    vector = folder / f"{name}.svg"
    if vector.stat().st_size <= SMALL_SVG:
        return _data("svg+xml", INDENTED.sub(b"\n", vector.read_bytes()))
    small = io.BytesIO()
    with Image.open(folder / f"{name}.png") as picture:
        # its worst colours are nearer than those of a median cut, which takes six times as long
        of_few = picture.convert("RGB").quantize(COLOURS, Image.Quantize.FASTOCTREE)
    # means of white that are not quite white
    of_few.putpalette([255 if part == 254 else part for part in of_few.getpalette() or ()])
    of_few.save(small, "png")
    return _data("png", small.getvalue())


def _filtered(vector: Path, kinds: dict[str, str]) -> dict[str, Any]:
    """Return what the page filters a figure by: its sources with their kinds, and the SVG where there are several."""
    svg = vector.read_bytes()
    shown = by_source.read(svg.decode())
    packed = base64.b64encode(gzip.compress(svg, mtime=0)).decode() if len(shown) > 1 else ""
    return {"sources": {label: kinds.get(label, "real") for label in shown}, "packed": packed}


def _data(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _cells(table: pd.DataFrame) -> dict[str, list[Any]]:
    def cell(value: Any) -> str:
        if pd.isna(value):
            return "–"
        return f"{value:.4g}" if isinstance(value, float) else str(value)

    return {"head": list(table.columns), "body": [[cell(v) for v in line] for line in table.to_numpy(object)]}


def _versions(runs: Sequence[Run]) -> dict[str, str]:
    versions: dict[str, set[str]] = {}
    for run in runs:
        for package, version in run.manifest.get("versions", {}).items():
            versions.setdefault(package, set()).add(str(version))
    return {package: ", ".join(sorted(each)) for package, each in sorted(versions.items())}
