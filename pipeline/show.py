"""What a run found, as tables in the terminal; works on a run that is not finished, and reads nothing but its JSON results."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType
from rich.errors import MarkupError
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from pipeline.artifacts import RECORD, UNFINISHED, Checked, fingerprint, read_json, read_record
from pipeline.errors import InputError
from pipeline.ingest import quarantine
from pipeline.release import words
from pipeline.release.figures import (
    Judged,
    audit_figures,
    evaluation_figures,
    recipe_figures,
    sentences,
    shadow_figures,
    stress_figures,
    train_figures,
)
from pipeline.release.results import FILES, dig, interval, number, read_results
from pipeline.split_table import splits
from pipeline.stages import BY_NAME, STAGES

# Reasons for leaving files out that are listed one by one.
REASONS = 10
COLOURS = {"pass": "green", "fail": "red", "inconclusive": "yellow", "not judged": "dim"}
REVIEW = "review/review.html: what a person looks at before images leave, for local eyes only"
PAIRS = "audit/pairs.png: the nearest pairs, for local eyes only"
NEXT = {
    "pass": (
        "release/report.html: the report to read first, with the page to sign",
        REVIEW,
        "release/: images, cards and checksums, ready to leave",
    ),
    "fail": ("release/report.html: why it failed", REVIEW, PAIRS),
    "inconclusive": ("release/report.html: why, and how many images would do", REVIEW, PAIRS),
}


def show(run: Path, console: Console, gate: Mapping[str, Any] | None = None) -> None:
    """Print a run's verdict, stages and key figures, and where to look next.

    Args:
        run: its folder.
        console: where to.
        gate: what :func:`privacy.gate.decide` says, where no release has said it yet.

    Raises:
        InputError: the folder is not a run.
    """
    if not any((run / name / stage.name).is_dir() for stage in STAGES for name in ("", UNFINISHED)):
        raise InputError(f"{run.name} is not a run folder: give the folder that synthcohort run wrote, such as {run_near(run)}")
    records = {stage.name: record for stage in STAGES if (record := read_record(run / stage.name)) is not None}
    results = read_results(lambda stage: run / stage)
    finished = {
        key: results[key] if stage in records and _untouched(run / stage, records[stage], file) else {}
        for key, (stage, file) in FILES.items()
    }
    audited = gate is not None
    if gate is None:
        gate = read_json(run / "release" / "gate.json")
        if "release" not in records or not isinstance(gate, dict) or not _untouched(run / "release", records["release"], "gate.json"):
            gate = {}
    _print(console, "the records", lambda: _stages(run, records))
    for stage, title in (("ingest", "left out"), ("generate", "synthetic, left out: not judged, so that the verdict is not theirs")):
        if (reasons := _reasons(run, stage, records.get(stage))).total():
            console.print(_left_out(reasons, title, stage))
    if finished["cohort"]:
        _print(console, "the cohort", lambda: splits(finished["cohort"]))
    for note in notes if isinstance(notes := finished["cohort"].get("notes"), list) else []:
        console.print(f"  ! {note}", markup=False, highlight=False)
    for title, read, key in (
        ("Training", train_figures, "model"),
        ("Recipe", recipe_figures, "recipe"),
        ("Shadow trainings", shadow_figures, "shadows"),
        ("Privacy", audit_figures, "audit"),
        ("Evaluation", evaluation_figures, "evaluation"),
        ("Stress test", stress_figures, "stress"),
    ):
        _print(console, title.lower(), functools.partial(_figures, title, read, finished[key]))
    _print(console, "the utility", lambda: _listed(sentences(finished["evaluation"], ["real+synthetic"])))
    if gate.get("checks"):
        _print(console, "the gate's checks", lambda: _checks(gate["checks"]))
    if gate:
        _print(console, "the verdict", lambda: _verdict(gate))
    verdict = str(dig(gate, "images.verdict"))
    for line in NEXT.get(verdict, (_unfinished(finished["cohort"]),)):
        if audited and not (run / line.partition(":")[0]).exists():
            continue
        console.print(f"  → {line}", highlight=False)
    if (run / UNFINISHED).is_dir():
        console.print(f"  → {UNFINISHED}/: what an interrupted attempt left; its command goes on from there", highlight=False)
    console.print(f"  in {run}", highlight=False, markup=False, soft_wrap=True)


def _unfinished(cohort: Mapping[str, Any]) -> str:
    """How a run goes on that has no verdict; ``cohort`` holds the facts of its ingest, where that is finished."""
    if cohort.get("dimensions") == 3 or cohort.get("bits") == 16:
        return "ingest/: images and rows; the stages after ingest take 2-D, 8-bit images"
    return "The run is not finished: the same command, without --until, goes on where it stopped."


def refuse_missing(run: Path) -> None:
    """Raise InputError where a run folder was asked for and there is none."""
    if not run.is_dir():
        raise InputError(f"no run folder {run.name}: give the folder that synthcohort run wrote, such as {run_near(run)}")


def run_near(path: Path) -> str:
    """A run folder to name where another path was given: one that holds it, lies in it, or is called as it is; else an example."""
    try:
        within = sorted(path.iterdir()) if path.is_dir() else []
    except OSError:
        within = []
    near = [*list(path.parents)[:2], *within, Path("runs") / path.stem]
    return next((str(one) for one in near if any((one / stage.name / RECORD).is_file() for stage in STAGES)), "runs/quickstart")


def _untouched(folder: Path, record: Mapping[str, Any], file: str) -> bool:
    """Whether a small file of a finished stage is still as its record says: figures that somebody edited are not shown."""
    try:
        Checked().consume(folder, record, only=(file,))
    except InputError:
        return False
    return True


def _stages(run: Path, records: Mapping[str, Mapping[str, Any]]) -> Table:
    table = Table("stage", "state", "seconds", "summary", title=escape(run.name), title_justify="left")
    table.columns[2].justify = "right"
    for stage in STAGES:
        record = records.get(stage.name)
        if record is None and stage.name in _absent(records) and not (run / UNFINISHED / stage.name).is_dir():
            continue
        if record is None:
            table.add_row(stage.name, _state(run, stage.name), "", "")
            continue
        summary = ", ".join(f"{key.replace('_', ' ')} {number(value)}" for key, value in record.get("summary", {}).items())
        state = "[green]done[/]" if _fits(record, records) else "[yellow]of other inputs[/]"
        table.add_row(stage.name, state, escape(number(record.get("seconds"), 1)), escape(summary))
    return table


def _fits(record: Mapping[str, Any], records: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether a finished stage was made from the finished stages before it."""
    named = record["identity"].get("inputs", {})
    if "all" in named:
        needs = set(BY_NAME[record["identity"]["stage"]].needs) - _absent(records)
        return bool(named["all"] == fingerprint({name: records.get(name, {}).get("digest") for name in needs}))
    return all(records.get(name, {}).get("digest") == digest for name, digest in named.items() if name in BY_NAME)


def _absent(records: Mapping[str, Mapping[str, Any]]) -> set[str]:
    """Stages that the run's configuration does not have, as :func:`pipeline.stages.flow` decides, told from what is finished."""
    inputs = {name: dig(record, "identity.inputs") or {} for name, record in records.items()}
    shadows = set() if "shadows" in inputs.get("audit", {}) else {"shadows"}
    if not ("holdout" in inputs.get("ingest", {}) or "foreign_images" in inputs.get("generate", {})):
        return shadows
    ingest = dig(records.get("ingest", {}), "identity.config") or {}
    judged = ingest.get("val_share") and not ingest.get("unlabelled") and "holdout" in inputs.get("ingest", {})
    return shadows | ({"train"} if judged else {"train", "evaluate", "stress"})


def _state(run: Path, stage: str) -> str:
    """What is said of a stage that is not finished, or not as it was."""
    if (run / stage / RECORD).exists():
        return "[red]damaged[/]"
    return "[yellow]unfinished[/]" if (run / UNFINISHED / stage).is_dir() or (run / stage).is_dir() else "[dim]to do[/]"


def _reasons(run: Path, stage: str, record: Mapping[str, Any] | None) -> Counter[str]:
    """Why files were left out of the cohort, or of a foreign set, or of one that could not be read."""
    if record is None:
        return quarantine.reasons(run / UNFINISHED / stage)
    whole = "quarantine.csv" not in record["files"] or _untouched(run / stage, record, "quarantine.csv")
    return quarantine.reasons(run / stage) if whole else Counter()


def _left_out(reasons: Counter[str], title: str, stage: str) -> Table:
    table = Table(title, "files", title_justify="left")
    table.columns[1].justify = "right"
    for reason, count in reasons.most_common(REASONS):
        table.add_row(escape(reason), number(count))
    others = reasons.total() - sum(count for _, count in reasons.most_common(REASONS))
    if others:
        table.add_row("other reasons", number(others))
    table.caption = f"{stage}/quarantine.csv lists them"
    return table


def _print(console: Console, what: str, make: Callable[[], RenderableType | None]) -> None:
    """Print a table, if there is one; a line where the figures are of a form that this version does not write, so that none can be made."""
    try:
        if (made := make()) is not None:
            console.print(made)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, ArithmeticError, MarkupError):
        console.print(f"  ! {what}: the figures are damaged, or of another version", markup=False, highlight=False)


def _listed(sentences: list[str]) -> Text | None:
    return Text("\n".join(f"  • {line}" for line in sentences)) if sentences else None


def _figures(title: str, read: Callable[[Mapping[str, Any]], list[Judged]], found: Mapping[str, Any]) -> Table | None:
    rows = read(found)
    if not rows:
        return None
    table = Table(title.lower(), "value (95% interval)", "n")
    table.columns[2].justify = "right"
    for figure in rows:
        table.add_row(escape(figure.name), escape(figure.text), escape(figure.n))
    return table


def _checks(checks: list[Mapping[str, Any]]) -> Table:
    table = Table("check", "about", "value (bounds)", "n", "threshold", "verdict")
    for check in checks:
        verdict = str(check.get("verdict"))
        name, subject = words.title(str(check.get("name", ""))), str(check.get("subject", ""))
        cells = (name, subject, interval(check), number(check.get("n")), number(check.get("threshold")))
        table.add_row(*map(escape, cells), f"[{COLOURS.get(verdict, 'white')}]{escape(verdict)}[/]")
    return table


def _verdict(gate: Mapping[str, Any]) -> Panel:
    images, weights = str(dig(gate, "images.verdict")), str(dig(gate, "weights.verdict"))
    colour = COLOURS.get(images, "white")
    lines = [f"[bold {colour}]images: {escape(images)}[/]   weights: [{COLOURS.get(weights, 'white')}]{escape(weights)}[/]"]
    lines[0] += f"   by {escape(number(gate.get('unit')))}"
    lines[0] += f", attempt {number(gate['attempt'])} of this cohort" if "attempt" in gate else ""
    lines += [f"• {escape(str(reason))}" for reason in dig(gate, "images.reasons") or []]
    lines += [f"needed: {escape(str(sentence))}" for sentence in gate.get("needed") or []]
    return Panel("\n".join(lines), title="verdict", border_style=colour)
