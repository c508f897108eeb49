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
        ("Privacy", _privacy(finished["audit"])),
        ("Evaluation", _evaluation(finished["evaluation"])),
        ("Stress test", _stress(finished["stress"])),
    ):
        if any(value is not None for _, value in rows):
            console.print(_figures(title, rows))
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


def _figures(title: str, rows: list[tuple[str, Any]]) -> Table:
    table = Table(title.lower(), "value (95 % interval)", "n")
    table.columns[2].justify = "right"
    for name, measure in rows:
        if measure is not None:
            table.add_row(escape(name), escape(interval(measure)), number(measure.get("n")) if isinstance(measure, Mapping) else "")
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


def _privacy(audit: Mapping[str, Any]) -> list[tuple[str, Any]]:
    recalls = [row for row in audit.get("power") or [] if isinstance(dig(row, "recall.low"), int | float)]
    weakest = min(recalls, key=lambda row: float(row["recall"]["low"]), default=None)
    return [
        ("images flagged as copies", dig(audit, "copies.flagged")),
        ("share flagged", dig(audit, "copies.rate")),
        (f"weakest recall of planted copies ({weakest['transform']})" if weakest else "", weakest["recall"] if weakest else None),
        ("membership attack on the weights, AUC", dig(audit, "membership.auc")),
        ("its control, AUC", dig(audit, "membership.control_auc")),
    ]


def _evaluation(evaluation: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return [
        ("Fréchet distance, synthetic", dig(evaluation, "fidelity.frechet.synthetic")),
        ("Fréchet distance, unseen real (floor)", dig(evaluation, "fidelity.frechet.floor")),
        ("two-sample test, synthetic", dig(evaluation, "fidelity.two_sample.synthetic")),
        ("two-sample test, real (floor)", dig(evaluation, "fidelity.two_sample.floor")),
        ("two-sample test, difference", dig(evaluation, "fidelity.two_sample.difference")),
        ("label fidelity, mean of classes", dig(evaluation, "label_fidelity.macro")),
        ("AUC on real tests, trained on real", dig(evaluation, "utility.arms.real.auc")),
        ("AUC on real tests, trained on synthetic", dig(evaluation, "utility.arms.synthetic.auc")),
        ("AUC on real tests, trained on both", dig(evaluation, "utility.arms.real+synthetic.auc")),
        ("AUC difference, synthetic − real", dig(evaluation, "utility.paired_auc.synthetic-real")),
    ]


def _stress(stress: Mapping[str, Any]) -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = [("AUC on clean images", dig(stress, "clean.auc"))]
    for name, steps in (stress.get("corruptions") or {}).items():
        if steps:
            rows.append((f"AUC under {str(name).replace('_', ' ')}, severity {number(dig(steps[-1], 'severity'))}", dig(steps[-1], "auc")))
    return rows
