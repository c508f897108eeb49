"""What a run found, as tables in the terminal; works on a run that is not finished, and reads nothing but its JSON results."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

from pipeline.artifacts import read_json, read_record
from pipeline.errors import InputError
from pipeline.ingest import quarantine
from pipeline.release.figures import Judged, audit_figures, evaluation_figures, sentences, stress_figures
from pipeline.release.results import dig, interval, number, read_results
from pipeline.stages import STAGES

# Reasons for leaving files out that are listed one by one.
REASONS = 10
COLOURS = {"pass": "green", "fail": "red", "inconclusive": "yellow"}
NEXT = {
    "pass": ("release/report.html: the report to read first", "release/: images, cards and checksums, ready to leave"),
    "fail": ("release/report.html: why it failed", "audit/pairs.png: the nearest pairs, for local eyes only"),
    "inconclusive": ("release/report.html: why, and how many images would do", "audit/pairs.png: the nearest pairs, for local eyes only"),
}


def show(run: Path, console: Console) -> None:
    """Print a run's verdict, stages and key figures, and where to look next.

    Raises:
        InputError: the folder is not a run.
    """
    records = {stage.name: record for stage in STAGES if (record := read_record(run / stage.name)) is not None}
    if not any((run / stage.name).is_dir() for stage in STAGES):
        raise InputError(f"{run.name} is not a run folder: give the folder that synthcohort run wrote, such as runs/quickstart")
    gate = read_json(run / "release" / "gate.json") if "release" in records else None
    gate = gate if isinstance(gate, dict) else {}
    results = read_results(run)
    finished = {
        key: results[key] if stage in records else {}
        for key, stage in (("audit", "audit"), ("evaluation", "evaluate"), ("stress", "stress"))
    }
    console.print(_stages(run, records))
    if (reasons := quarantine.reasons(run / "ingest")).total():
        console.print(_left_out(reasons))
    for note in notes if isinstance(notes := dig(results.get("cohort") or {}, "notes"), list) else []:
        console.print(f"  ! {note}", markup=False, highlight=False)
    for title, rows in (
        ("Privacy", audit_figures(finished["audit"])),
        ("Evaluation", evaluation_figures(finished["evaluation"])),
        ("Stress test", stress_figures(finished["stress"])),
    ):
        if rows:
            console.print(_figures(title, rows))
    for line in sentences(finished["evaluation"], ["real+synthetic"]):
        console.print(f"  • {line}", markup=False, highlight=False)
    if gate.get("checks"):
        console.print(_checks(gate["checks"]))
    if gate:
        console.print(_verdict(gate))
    verdict = str(dig(gate, "images.verdict"))
    for line in NEXT.get(verdict, ("The run is not finished: the same synthcohort run command goes on where it stopped.",)):
        console.print(f"  → {line}", highlight=False)
    console.print(f"  in {run}", highlight=False, markup=False, soft_wrap=True)


def _stages(run: Path, records: Mapping[str, Mapping[str, Any]]) -> Table:
    table = Table("stage", "state", "seconds", "summary", title=escape(run.name), title_justify="left")
    table.columns[2].justify = "right"
    for stage in STAGES:
        record = records.get(stage.name)
        if record is None:
            begun = (run / stage.name).is_dir()
            table.add_row(stage.name, "[yellow]unfinished[/]" if begun else "[dim]to do[/]", "", "")
            continue
        summary = ", ".join(f"{key.replace('_', ' ')} {number(value)}" for key, value in record.get("summary", {}).items())
        table.add_row(stage.name, "[green]done[/]", number(record.get("seconds"), 1), escape(summary))
    return table


def _left_out(reasons: Counter[str]) -> Table:
    table = Table("left out", "files", title_justify="left")
    table.columns[1].justify = "right"
    for reason, count in reasons.most_common(REASONS):
        table.add_row(escape(reason), number(count))
    others = reasons.total() - sum(count for _, count in reasons.most_common(REASONS))
    if others:
        table.add_row("other reasons", number(others))
    table.caption = "ingest/quarantine.csv lists them"
    return table


def _figures(title: str, rows: list[Judged]) -> Table:
    table = Table(title.lower(), "value (95 % interval)", "n")
    table.columns[2].justify = "right"
    for figure in rows:
        table.add_row(escape(figure.name), escape(figure.text), figure.n)
    return table


def _checks(checks: list[Mapping[str, Any]]) -> Table:
    table = Table("check", "about", "value (95 % interval)", "n", "threshold", "verdict")
    for check in checks:
        verdict = str(check.get("verdict"))
        name = str(check.get("name", "")).replace("_", " ")
        cells = (name, str(check.get("subject", "")), interval(check), number(check.get("n")), number(check.get("threshold")))
        table.add_row(*map(escape, cells), f"[{COLOURS.get(verdict, 'white')}]{escape(verdict)}[/]")
    return table


def _verdict(gate: Mapping[str, Any]) -> Panel:
    images, weights = str(dig(gate, "images.verdict")), str(dig(gate, "weights.verdict"))
    colour = COLOURS.get(images, "white")
    lines = [f"[bold {colour}]images: {escape(images)}[/]   weights: [{COLOURS.get(weights, 'white')}]{escape(weights)}[/]"]
    lines[0] += f"   by {escape(number(gate.get('unit')))}, attempt {number(gate.get('attempt'))} of this cohort"
    lines += [f"• {escape(str(reason))}" for reason in dig(gate, "images.reasons") or []]
    lines += [f"needed: {escape(str(sentence))}" for sentence in gate.get("needed") or []]
    return Panel("\n".join(lines), title="verdict", border_style=colour)
