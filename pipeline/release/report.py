"""The report: one self-contained HTML page, without scripts and without any address outside itself; every plot is SVG.

Raster images appear only when the gate passes; a report of any other verdict holds none.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jinja2

from pipeline.release.cards import actions, how_made, software_version, template
from pipeline.release.results import Results, dig, interval, limitations, number

HEADLINES = {
    "pass": "The images passed the privacy gate",
    "fail": "The images must not leave: the privacy gate failed",
    "inconclusive": "Undecided: the evidence does not suffice to let the images leave",
}
CONSEQUENCES = {
    "pass": "The verdict covers exactly the images of this release, by their digests. It covers no other image.",
    "fail": "Treat the images as patient data. This folder holds the verdict and this report, and no image.",
    "inconclusive": "Until a pass, treat the images as patient data. This folder holds the verdict and this report, and no image.",
}
WEIGHTS = {
    "pass": "The model's weights passed too: they may be shared.",
    "fail": "The model's weights failed: they stay with the patients' data.",
    "inconclusive": "The model's weights are not cleared: they stay with the patients' data.",
}
ARMS = {"real": "real", "synthetic": "synthetic", "real+synthetic": "real + synthetic"}
NAMES = {
    "auc": "AUC",
    "tpr_at_1pct_fpr": "Members found at 1 % false alarms",
    "control_auc": "AUC of the control (no model)",
    "frechet": "Fréchet distance",
    "kid": "Kernel distance (KID)",
    "two_sample": "Two-sample test (0.5 = indistinguishable)",
    "flagged": "Images flagged as copies",
    "rate": "Share flagged",
    "leading_run": "Closest matches in a row that hit the training set",
    "run_p": "Probability of such a run by chance",
    "prdc": "",
    "precision": "Precision",
    "recall": "Recall",
    "density": "Density",
    "coverage": "Coverage",
    "synthetic-real": "synthetic − real",
    "real+synthetic-real": "real + synthetic − real",
}


@dataclass(frozen=True)
class Row:
    """One line of a dot-and-whisker plot; ``tone`` is its colour's name, an empty label continues the group above."""

    label: str
    value: float
    low: float
    high: float
    tone: str = "synthetic"


@dataclass(frozen=True)
class Plot:
    """Dots with their intervals on one axis, drawn by the template as SVG.

    Attributes:
        rows: the lines, top to bottom.
        low, high: ends of the axis, in the values' unit.
        ticks: labelled positions.
        reference: where a dashed line stands (chance, no difference), or None.
    """

    rows: tuple[Row, ...]
    low: float
    high: float
    ticks: tuple[float, ...]
    reference: float | None = None

    def x(self, value: float) -> float:
        """Position on the axis, 0..1, clipped to its ends."""
        return min(max((value - self.low) / (self.high - self.low), 0.0), 1.0)


def render_report(results: Results, samples: Mapping[str, Sequence[bytes]]) -> str:
    """The report as HTML.

    Args:
        results: the run's verdict and measures; whatever is missing is left out or shown as a dash.
        samples: PNG files of some synthetic images of each class. They are shown only if the images' verdict is ``pass``.
    """
    verdict = str(dig(results.gate, "images.verdict"))
    passed = verdict == "pass"
    images = {name: [base64.b64encode(png).decode() for png in pictures] for name, pictures in samples.items()} if passed else {}
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(template), autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.ChainableUndefined
    )
    environment.filters |= {"number": number, "interval": interval, "title": title}
    return environment.get_template("report.html.j2").render(
        r=results,
        verdict=verdict,
        headline=HEADLINES.get(verdict, "No verdict"),
        consequence=CONSEQUENCES.get(verdict, CONSEQUENCES["inconclusive"]),
        weights=WEIGHTS.get(str(dig(results.gate, "weights.verdict")), WEIGHTS["inconclusive"]),
        tiles=tiles(results),
        power=power_plot(results.audit.get("power")),
        membership=list(measures(results.audit.get("membership"))),
        copies=list(measures(results.audit.get("copies"))),
        fidelity=list(against_floor(results.evaluation.get("fidelity"))),
        fidelity_classes=class_table(dig(results.evaluation, "fidelity.per_class")),
        label_fidelity=label_plot(results.evaluation.get("label_fidelity"), reference=_chance(results)),
        utility=utility_plot(results.evaluation.get("utility")),
        gain=whiskers(dig(results.evaluation, "utility.paired_auc"), reference=0.0),
        heat=heat_table(results.stress),
        subgroups=subgroup_plot(results.stress.get("subgroups")),
        synthetic_recall=whiskers(dig(results.stress, "synthetic.per_class_recall"), reference=_chance(results)),
        prevalence=prevalence_table(results.stress.get("prevalence")),
        splits=source_splits(results.cohort),
        samples=images,
        how_made=how_made(results),
        actions=actions(results),
        limitations=limitations(results),
        version=software_version(),
    )


def title(key: str) -> str:
    """A key of the results, or a path of keys, as words."""
    return " · ".join(name for part in str(key).split(" · ") if (name := NAMES.get(part, part.replace("_", " "))))


def source_splits(cohort: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Size of the source cohort as (split, images, patients): totals only, so that no small group of patients is described."""
    units = cohort.get("units") or {}
    return [
        (str(name), number(sum(counts.values())), number(units.get(name)))
        for name, counts in (cohort.get("counts") or {}).items()
        if isinstance(counts, Mapping)
    ]


def tiles(results: Results) -> list[tuple[str, str, str]]:
    """The key figures as (name, value, explanation), those that were measured."""
    audit, evaluation, stress = results.audit, results.evaluation, results.stress
    flagged, judged = dig(audit, "copies.flagged"), dig(audit, "n.synthetic")
    found = [
        ("Images flagged as copies", flagged, f"of {number(judged)} judged; rate {interval(dig(audit, 'copies.rate'), 4)}"),
        (
            "Search power",
            dig(audit, "copies.recall_low"),
            "lower bound of recall on planted core copies; the table below has those under noise and compression too",
        ),
        (
            "Membership attack on weights",
            dig(audit, "membership.auc.value"),
            f"{interval(dig(audit, 'membership.auc'))}; 0.5 is chance",
        ),
        ("Fréchet distance ÷ floor", dig(evaluation, "fidelity.frechet.ratio.value"), "1 is as close as unseen real images"),
        ("Label fidelity", dig(evaluation, "label_fidelity.macro.value"), "synthetic images that a real-trained classifier names right"),
        (
            "AUC, synthetic − real",
            dig(evaluation, "utility.paired_auc.synthetic-real.value"),
            f"{interval(dig(evaluation, 'utility.paired_auc.synthetic-real'))} on real test images",
        ),
        ("Stress: AUC on clean images", dig(stress, "clean.auc.value"), "the real-trained classifier before any corruption"),
        ("Stress: lowest AUC", *worst_case(stress)),
    ]
    return [(name, number(value), note) for name, value, note in found if value is not None]


def worst_case(stress: Mapping[str, Any]) -> tuple[float | None, str]:
    """The lowest AUC over all corruptions and severities, and where it was measured."""
    found = [
        (value, f"{title(str(name))}, severity {number(step.get('severity'))}")
        for name, steps in (stress.get("corruptions") or {}).items()
        for step in steps
        if isinstance(value := dig(step, "auc.value"), float | int)
    ]
    return min(found, default=(None, ""))


def measures(tree: Any, prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """The measures in nested mappings as (name, value with interval, n), depth first; lists are left out."""
    for key, value in tree.items() if isinstance(tree, Mapping) else ():
        name = f"{prefix} · {key}" if prefix else str(key)
        if isinstance(value, Mapping) and "value" not in value:
            yield from measures(value, name)
        elif not isinstance(value, list):
            yield name, interval(value), number(value.get("n")) if isinstance(value, Mapping) else ""


def against_floor(fidelity: Any, prefix: str = "", digits: int = 3) -> Iterator[tuple[str, str, str, str]]:
    """Fidelity measures as (name, synthetic, floor, ratio): every mapping with a key ``synthetic``, but for the per-class ones.

    A judge that is unfit, or was not there, has its reason instead.
    """
    for key, value in fidelity.items() if isinstance(fidelity, Mapping) else ():
        if key == "per_class" or not isinstance(value, Mapping):
            continue
        name = f"{prefix} · {key}" if prefix else str(key)
        if "synthetic" in value:
            made, floor, ratio = (interval(value.get(side), digits) for side in ("synthetic", "floor", "ratio"))
            yield name, made, floor, ratio
            yield from against_floor(value.get("judges"), name, digits)
        elif reason := value.get("unfit") or value.get("skipped"):
            yield name, str(reason), "–", "–"
        elif key != "encoder":
            yield from against_floor(value, name, digits)


def class_table(per_class: Any) -> dict[str, Any]:
    """Fidelity by class: ``{"columns": [...], "rows": {class: [(synthetic, floor), ...]}, "omitted": {class: reason}}``."""
    facts = {str(name): value for name, value in (per_class or {}).items() if isinstance(value, Mapping)}
    table = {name: {key: (made, floor) for key, made, floor, _ in against_floor(value, digits=2)} for name, value in facts.items()}
    columns = list(dict.fromkeys(key for cells in table.values() for key in cells))
    return {
        "columns": columns,
        "rows": {name: [cells.get(key, ("–", "–")) for key in columns] for name, cells in table.items() if cells},
        "omitted": {name: str(value["omitted"]) for name, value in facts.items() if "omitted" in value},
    }


def subgroup_plot(subgroups: Any) -> Plot | None:
    """AUC within every subgroup, such as each site."""
    groups = {column: values for column, values in (subgroups or {}).items() if isinstance(values, Mapping)}
    return whiskers({f"{title(column)} {value}": dig(facts, "auc") for column, values in groups.items() for value, facts in values.items()})


def prevalence_table(prevalence: Any) -> dict[str, Any]:
    """Positive predictive value at changed prevalence: ``{"factors": [...], "rows": {class: [(ppv, prevalence), ...]}}``."""
    lines = {str(name): [line for line in steps if isinstance(line, Mapping)] for name, steps in (prevalence or {}).items()}
    factors = sorted({line["factor"] for steps in lines.values() for line in steps if isinstance(line.get("factor"), float | int)})
    rows = {}
    for name, steps in lines.items():
        by_factor = {line.get("factor"): (interval(line.get("ppv"), 2), number(line.get("prevalence"), 2)) for line in steps}
        rows[name] = [by_factor.get(factor, ("–", "–")) for factor in factors]
    return {"factors": factors, "rows": rows}


def power_plot(power: Any) -> Plot | None:
    """Recall of the planted copies by transformation, on 0..1."""
    rows = {str(row.get("transform")): row.get("recall") for row in power or [] if isinstance(row, Mapping)}
    return whiskers(rows, axis=(0.0, 1.0))


def utility_plot(utility: Any) -> Plot | None:
    """AUC on real test images for each class and training arm, the mean over classes first."""
    arms = {arm: facts for arm in ARMS if isinstance(facts := dig(utility, f"arms.{arm}"), Mapping)}
    groups = {"all classes": {arm: facts.get("auc") for arm, facts in arms.items()}}
    for arm, facts in arms.items():
        for name, measure in (facts.get("per_class") or {}).items():
            groups.setdefault(str(name), {})[arm] = dig(measure, "auc")
    rows: list[Row] = []
    for name, group in groups.items():
        found = [_row("", measure, arm) for arm, measure in group.items()]
        drawn = [row for row in found if row is not None]
        rows += [Row(name if index == 0 else "", row.value, row.low, row.high, row.tone) for index, row in enumerate(drawn)]
    return _plot(rows, reference=None) if rows else None


def label_plot(label_fidelity: Any, *, reference: float | None) -> Plot | None:
    """Share of the synthetic images of each class that are named right, and of the real test images below it."""
    pairs = [
        row
        for name, measure in (dig(label_fidelity, "per_class") or {}).items()
        for row in (_row(str(name), measure), _row("", (dig(label_fidelity, "real") or {}).get(name), "real"))
        if row is not None and isinstance(dig(measure, "value"), float | int)
    ]
    return _plot(pairs, reference=reference) if pairs else None


def whiskers(named: Any, *, reference: float | None = None, axis: tuple[float, float] | None = None) -> Plot | None:
    """A plot of named measures; None where nothing can be drawn."""
    found = [_row(title(str(name)), measure) for name, measure in (named or {}).items()]
    rows = [row for row in found if row is not None]
    return _plot(rows, reference=reference, axis=axis) if rows else None


def heat_table(stress: Mapping[str, Any]) -> dict[str, Any]:
    """AUC by corruption and severity: ``{"severities": [...], "rows": {corruption: (mean drop, [(text, heat), ...])}}``, heat 0..7.

    The drop is from the same images uncorrupted; every .05 of it is one step of heat.
    """
    clean = dig(stress, "corruption_reference.auc.value")
    clean = dig(stress, "clean.auc.value") if clean is None else clean
    rows: dict[str, tuple[str, list[tuple[str, int]]]] = {}
    severities: list[Any] = []
    for name, steps in (stress.get("corruptions") or {}).items():
        severities = severities or [dig(step, "severity") for step in steps]
        values = [dig(step, "auc.value") for step in steps]
        drops = [clean - value for value in values if isinstance(value, float | int) and isinstance(clean, float | int)]
        mean = number(sum(drops) / len(drops), 3) if drops else "–"
        rows[str(name)] = (mean, [(number(value), _heat(clean, value)) for value in values])
    return {"severities": severities, "rows": rows}


def _heat(clean: Any, value: Any) -> int:
    if not isinstance(clean, float | int) or not isinstance(value, float | int):
        return 0
    return int(min(max((clean - value) / 0.05, 0), 7))


def _row(label: str, measure: Any, tone: str = "synthetic") -> Row | None:
    if not isinstance(value := dig(measure, "value"), float | int):
        return None
    low, high = (bound if isinstance(bound := dig(measure, end), float | int) else value for end in ("low", "high"))
    return Row(label, float(value), float(low), float(high), re.sub(r"[^a-z]", "", tone))


def _plot(rows: Sequence[Row], reference: float | None, axis: tuple[float, float] | None = None) -> Plot:
    """Choose the axis: as given, or round ends around all rows and the reference, with about five ticks."""
    ends = [reference] if reference is not None else []
    low, high = axis or (min([row.low for row in rows] + ends), max([row.high for row in rows] + ends))
    span = max(high - low, 1e-3)
    step = next(unit for unit in (s * 10.0**e for e in range(-4, 6) for s in (1, 2, 5)) if span / unit <= 6)
    first, last = int(low // step), -int(-high // step)
    last = max(last, first + 1)
    return Plot(tuple(rows), first * step, last * step, tuple(tick * step for tick in range(first, last + 1)), reference)


def _chance(results: Results) -> float | None:
    classes = results.evaluation.get("classes") or results.cohort.get("classes")
    return 1 / len(classes) if classes else None
