"""The report's page of several findings: how well each is judged, whether synthetic images show what was asked for, what comes together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.release.results import dig, interval

MADE = {
    "label_fidelity": "AUC on synthetic images, for what was asked",
    "label_fidelity_unseen": "the same, where it was never seen together",
}
"""What is said of synthetic images: those of combinations that training patients had, and of others."""


def findings_table(evaluation: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """A heading, then each finding as (name, share of real test images, AUC and average precision on these, AUC on synthetic images); then
    all of them. Nothing where there is no judge."""
    real = dig(evaluation, "judge")
    made = {title: one for key, title in MADE.items() if isinstance(one := dig(evaluation, f"findings.{key}"), Mapping)}
    if not isinstance(real, Mapping) or not made:
        return []
    rows: list[tuple[str, ...]] = [("Finding", "Share of real test images", "AUC on real test images", "Average precision", *made)]
    rows += [
        (
            str(name),
            _share(facts.get("prevalence")),
            interval(facts.get("auc")),
            interval(facts.get("average_precision")),
            *(interval(dig(one, f"per_class.{name}.auc")) for one in made.values()),
        )
        for name, facts in (real.get("per_class") or {}).items()
    ]
    for title, key in (("all, the mean (macro)", "auc"), ("all pairs of image and finding (micro)", "micro_auc")):
        rows.append((title, "", interval(real.get(key)), "", *(interval(dig(one, key)) for one in made.values())))
    return rows


def together_table(evaluation: Mapping[str, Any]) -> list[tuple[str, tuple[str, ...]]]:
    """Each finding, and how many of the images that have it have each other one too: real training images, then synthetic ones."""
    sides = [dig(evaluation, f"findings.together.{side}") for side in ("real", "synthetic")]
    names = dig(evaluation, "classes")
    if not all(isinstance(side, list) for side in sides) or not isinstance(names, list):
        return []
    return [
        (str(name), tuple(f"{_share(real)} · {_share(made)}" for real, made in zip(*(side[place] for side in sides))))
        for place, name in enumerate(names)
    ]


def _share(value: Any) -> str:
    return f"{value:.0%}" if isinstance(value, int | float) else "–"
