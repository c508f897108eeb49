"""What a run measured, gathered for its card, its report and its terminal summary; a missing figure is shown as a dash, never a crash."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.artifacts import read_json
from pipeline.config import Config
from privacy import kinds, limits

FILES = {
    "cohort": ("ingest", "cohort.json"),
    "deidentification": ("ingest", "deidentification.json"),
    "model": ("train", "model.json"),
    "recipe": ("train", "recipe.json"),
    "shadows": ("shadows", "shadows.json"),
    "audit": ("audit", "audit.json"),
    "evaluation": ("evaluate", "evaluation.json"),
    "stress": ("stress", "stress.json"),
}
FEW = 5
"""Kinds of copies that a limitation names; the table of the search's power has all."""


SMALL = 0.000001
"""Figures below are told as such."""


@dataclass(frozen=True)
class Results:
    """A finished run's configuration, gate and measured results; none of it holds patient data.

    Attributes:
        config: the run's configuration.
        gate: the content of ``gate.json``.
        records: the record of every stage before the release, by name.
        cohort, deidentification, model, audit, evaluation, stress, shadows, recipe: the JSON results of the stages; ``{}`` where there is
            none.
        made: how many images were generated of each combination of findings, ``int8 [K]`` as a tuple: 1 asked for, 0 asked to be absent,
            -1 left open.
    """

    config: Config
    gate: Mapping[str, Any]
    records: Mapping[str, Mapping[str, Any]]
    cohort: Mapping[str, Any]
    deidentification: Mapping[str, Any]
    model: Mapping[str, Any]
    audit: Mapping[str, Any]
    evaluation: Mapping[str, Any]
    stress: Mapping[str, Any]
    shadows: Mapping[str, Any] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)
    made: Mapping[tuple[int, ...], int] = field(default_factory=dict)

    @classmethod
    def load(
        cls,
        config: Config,
        folder: Callable[[str], Path],
        gate: Mapping[str, Any],
        records: Mapping[str, Mapping[str, Any]],
        made: Mapping[tuple[int, ...], int] | None = None,
    ) -> Results:
        """Read the stages' results from their folders, which ``folder`` names by stage."""
        return cls(config, gate, records, made=made or {}, **read_results(folder))

    @property
    def source(self) -> dict[str, str]:
        """What is known of the source cohort, as texts: name, title, modality, licence, citation; empty where unknown."""
        ingest = self.config.ingest
        facts = self.cohort.get("source")
        facts = {**self.cohort, **(facts if isinstance(facts, Mapping) else {})}
        modality = facts.get("modality") or ""
        texts = {key: str(facts.get(key) or "") for key in ("title", "licence", "citation")}
        name = ingest.dataset if ingest.source == "medmnist" and ingest.dataset else ingest.source
        return {"name": name, "modality": ", ".join(modality) if isinstance(modality, list) else str(modality), **texts}

    @property
    def settings(self) -> dict[str, Any]:
        """The configuration for publication: without local paths, the address of a PACS, and prompts, which may repeat a report.

        Of an attribute's listed values those are named that the model knows, since enough training patients have them: one that was listed
        for few, or for nobody the model was told of, would tell of them.
        """
        local = {
            "ingest": {"path", "labels", "query", "holdout", "label_table", "text_encoder"},
            "train": {"start_from"},
            "generate": {"autoguidance", "import_from"},
            "evaluate": {"imagenet"},
            "stress": {"model", "against", "contract", "against_contract", "rules"},
            "release": {"sign"},
        }
        if self.config.ingest.source != "phantom":
            local["ingest"].add("phantom_patients")
        found = self.config.model_dump(mode="json", exclude=local)
        for asked in found["generate"]["plan"]:
            del asked["text"], asked["without_text"]
        attributes = dig(self.model, "conditions.attributes")
        known = {one.get("name"): one.get("values") for one in (attributes if isinstance(attributes, list) else [])}
        for name, kind in found["ingest"]["attributes"].items():
            if kind != "number":
                found["ingest"]["attributes"][name] = known.get(name) or "values of a list"
        return found


def read_results(folder: Callable[[str], Path]) -> dict[str, dict[str, Any]]:
    """The JSON results by their key in :data:`FILES`, from the stages' folders, which ``folder`` names; ``{}`` for what is damaged."""
    found = {key: read_json(folder(stage) / name) for key, (stage, name) in FILES.items()}
    return {key: value if isinstance(value, dict) else {} for key, value in found.items()}


def dig(tree: Any, path: str) -> Any:
    """The value at a dotted path in nested mappings, or None; ``{"unfit": reason}`` where the path ends early since a judge is unfit."""
    for key in path.split("."):
        if isinstance(tree, Mapping) and "unfit" in tree and key not in tree:
            return {"unfit": tree["unfit"]}
        tree = tree.get(key) if isinstance(tree, Mapping) else None
    return tree


def number(value: Any, digits: int = 3) -> str:
    """A figure as text: counts grouped by thousands, a dash for none, fractions as :func:`interval` has them.

    That is to ``digits`` decimals, and as many more as two significant digits need; one decimal from 100 on; and no more below
    :data:`SMALL`.
    """
    if isinstance(value, Mapping) and "unfit" in value:
        return str(value["unfit"])
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "–" if value is None or value == "" else str(value)
    if not math.isfinite(value):
        return str(value)
    if 0 < abs(value) < SMALL:
        return f"under {SMALL:.6f}" if value > 0 else f"above −{SMALL:.6f}"
    if float(value).is_integer():
        return f"{value + 0.0:,.0f}".replace("-", "−")
    return f"{value:,.{_places(abs(value), digits)}f}".replace("-", "−")


def _places(largest: float, digits: int = 3) -> int:
    """Decimals of figures up to ``largest``."""
    return 1 if largest >= 100 else max(digits, 1 - math.floor(math.log10(largest))) if largest else 0


def counted(count: int, noun: str, several: str = "") -> str:
    """A count with its noun, in the singular for one of it; ``several`` is a plural that does not end in s."""
    return f"{count:,} {noun if count == 1 else several or f'{noun}s'}"


def interval(measure: Any) -> str:
    """``value (low to high)`` of a measure ``{"value", "low", "high", "n"}``, to the same place; a bare number as itself; a dash for none.

    The value alone where both bounds are equal to it, since it was counted; that it is without an interval where an estimate has none.
    ``value (at least low)`` or ``(at most high)`` of one that is bounded on one side alone.

    ``value (spread low to high)`` of one with a ``spread`` over repeats, which is no confidence interval; the reason why one is ``unfit``.
    Figures get three decimals, and as many more as the largest of them needs to show two significant digits: the same wherever they stand.
    """
    if not isinstance(measure, Mapping):
        return number(measure)
    if "unfit" in measure:
        return str(measure["unfit"])
    low, high = measure["spread"] if "spread" in measure else (measure.get("low"), measure.get("high"))
    figures = [measure.get("value"), low, high]
    if figures[0] is None:
        return "–"
    if low is None and high is None and "n" in measure and "threshold" not in measure and isinstance(figures[0], float):
        return f"{number(figures[0])} (too few for an interval)"
    if low == high == figures[0] and "spread" not in measure:
        return number(figures[0])
    finite = [abs(figure) for figure in figures if isinstance(figure, int | float)]
    if len(finite) < 2:
        return number(figures[0])
    places = _places(max(finite))
    value, least, most = (
        "–" if figure is None else f"{round(figure, places) + 0.0:,.{0 if figure in (0, 1) else places}f}" for figure in figures
    )
    if low is None or high is None:
        return f"{value} ({f'at most {most}' if low is None else f'at least {least}'})".replace("-", "−")
    return f"{value} ({'spread ' if 'spread' in measure else ''}{least} to {most})".replace("-", "−")


def planted(row: Mapping[str, Any]) -> str:
    """What was done to planted copies of one kind, as words."""
    strength = row.get("strength")
    return kinds.name(f"{row.get('kind')} {strength:g}" if isinstance(strength, int | float) else str(row.get("kind")))


def required_kinds(audit: Mapping[str, Any]) -> tuple[str, ...]:
    """The kinds of planted copies that a verdict on images of the audit's size rests on."""
    pixels = audit.get("pixels")
    return limits.required_kinds(pixels if isinstance(pixels, int) else 0)


def planted_copies(audit: Mapping[str, Any]) -> tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]:
    """What was found of planted copies, a row a kind, the worst first: of the kinds that a verdict rests on, and of those that none
    certifies."""
    rows = [row for row in audit.get("power") or [] if isinstance(dig(row, "recall.low"), int | float)]
    rows.sort(key=lambda row: float(row["recall"]["low"]))
    required = required_kinds(audit)
    sides = ([row for row in rows if (row.get("kind") in required) == side] for side in (True, False))
    return next(sides), next(sides)


def limitations(results: Results) -> list[str]:
    """Known limitations of this cohort, one sentence each: those of the method first, then what this run measured."""
    config = results.config
    found = [
        "The generator is not known here: what it was trained on besides the training images that were named cannot be told."
        if config.foreign
        else "Every image is drawn from a model of one cohort: what it lacks (sites, scanners, ages, findings) is lacking here too.",
        "A label is the finding that the image was generated for; no radiologist has confirmed that it is visible.",
        f"Images are {results.config.ingest.size} × {results.config.ingest.size} pixels: finer signs of disease are not represented.",
        "The privacy verdict covers the attacks listed in it, at their measured power; it is evidence, not a mathematical guarantee.",
        "Other images of a training patient than those that were trained on, and what is common to a group of patients, are not covered.",
    ]
    if not config.judged_by_classifiers:
        why = "the images have no labels" if config.ingest.unlabelled else "the holdout spares no patients for it"
        found.append(f"Fidelity, utility and robustness were not measured: {why}.")
    if (results.gate.get("unit") or results.audit.get("unit")) == "image":
        found.append("The source has no patient identifiers: splits, figures and the verdict are by image, not by patient.")
    if isinstance(patients := dig(results.model, "warm_start.patients"), str):
        found.append(f"Training began from earlier weights: {patients}.")
    required, others = planted_copies(results.audit)
    weak = [f"“{planted(row)}” {interval(row['recall'])}" for row in required if row["recall"]["low"] < limits.MIN_RECALL]
    if weak:
        found.append(f"Copies of required kinds could have been missed, of which the search finds too few when planted: {', '.join(weak)}.")
    if others:
        worst = ", ".join(f"“{planted(row)}” {interval(row['recall'])}" for row in others[:FEW])
        rest = f"; and {counted(len(others) - FEW, 'other kind')} more often" if len(others) > FEW else ""
        found.append(f"No verdict certifies copies that were changed in other ways, of which the search finds: {worst}{rest}.")
    realism = dig(results.evaluation, "fidelity.two_sample.synthetic")
    if isinstance(low := dig(results.evaluation, "fidelity.two_sample.difference.low"), float | int) and low > 0:
        floor = interval(dig(results.evaluation, "fidelity.two_sample.floor"))
        found.append(
            f"A judge tells synthetic from real images with a two-sample score of {interval(realism)}, real from real with {floor}."
        )
    names, over = (dig(results.evaluation, key) for key in ("classes", "judge.auc_over"))
    if isinstance(names, list) and isinstance(over, list) and (missing := [f"“{name}”" for name in names if name not in over]):
        found.append(f"Figures over all classes leave out {', '.join(missing)}, which too few test patients have, or have not.")
    for path in ("label_fidelity.per_class", "findings.label_fidelity.per_class"):
        found += _labels_of(dig(results.evaluation, path) or {})
    if isinstance(unseen := dig(results.evaluation, "n.unseen"), int):
        found.append(
            f"{counted(unseen, 'image')} of what too few training patients had together, marked unseen in rows.csv: what a model makes of "
            "that is an extrapolation."
        )
    for arm, what in (("synthetic", "Training on these images alone"), ("real+synthetic", "Adding these images to the real ones")):
        gain = dig(results.evaluation, f"utility.differences.{arm}.auc")
        if isinstance(high := dig(gain, "high"), float | int) and high < 0 and dig(gain, "stands"):
            found.append(f"{what} made classifiers worse: AUC difference {interval(gain)} on real test patients.")
    return found


def _labels_of(classes: Mapping[str, Any]) -> list[str]:
    """What is weak about labels, one sentence for all classes of which it is true."""
    mute: dict[str, list[str]] = {}
    for name, fact in classes.items():
        if isinstance(fact, Mapping) and "unfit" in fact:
            mute.setdefault(str(fact["unfit"]), []).append(f"“{name}”")
    found = [f"No classifier can say whether images of {', '.join(names)} show it: it {reason}." for reason, names in mute.items()]
    weak = [
        f"“{name}” ({interval(fact)})" for name, fact in classes.items() if isinstance(v := dig(fact, "value"), float | int) and v < 0.6
    ]
    return [*found, *([f"A real-trained classifier recognises few images of these classes as such: {', '.join(weak)}."] if weak else [])]


def standing(results: Results) -> str:
    """What the run's figures can claim: whether its cohort was known before, by the ledger of its attempts."""
    attempt = results.gate.get("attempt")
    if results.gate.get("replication") or results.cohort.get("replication"):
        return (
            "Replication: this cohort is known, and was split and seeded anew. The figures say how far earlier ones repeat; they confirm "
            "nothing about other cohorts."
        )
    if isinstance(attempt, int) and attempt > 1:
        return (
            f"Attempt {attempt} on a known cohort: its test patients have been scored before, and settings may have been chosen on them. "
            "The figures describe this run, and confirm nothing."
        )
    return (
        "First attempt on this cohort that is on record. The figures are a confirmation only if code and settings were fixed before "
        "anybody looked at it."
    )
