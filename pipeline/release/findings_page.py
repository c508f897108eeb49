"""The report's page of several findings: how well each is judged, whether synthetic images show what was asked for, what comes together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.release.results import dig, interval


def findings_table(evaluation: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Each finding as (name, share of real test images, AUC and average precision on these, AUC on synthetic images); then all of them."""
    real, made = dig(evaluation, "judge"), dig(evaluation, "findings.label_fidelity")
    if not isinstance(real, Mapping) or not isinstance(made, Mapping):
        return []
    rows: list[tuple[str, ...]] = [
        (
            str(name),
            _share(facts.get("prevalence")),
            interval(facts.get("auc")),
            interval(facts.get("average_precision")),
            interval(dig(made, f"per_class.{name}.auc")),
        )
        for name, facts in (real.get("per_class") or {}).items()
    ]
    rows.append(("all, the mean (macro)", "", interval(real.get("auc")), "", interval(made.get("auc"))))
    rows.append(("all pairs of image and finding (micro)", "", interval(real.get("micro_auc")), "", interval(made.get("micro_auc"))))
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
