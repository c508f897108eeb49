"""What a verdict means to whoever decides about a release: what it certifies and what not, in sentences from the checks' numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.release.results import counted, dig, number
from privacy import kinds
from privacy.judgements import DRAWN

HEADLINES = {
    "pass": "These images may leave",
    "fail": "These images must not leave",
    "inconclusive": "Undecided: these images stay for now",
}
CONSEQUENCES = {
    "pass": "The privacy gate found no copy of a training image, with a search that would have found copies. The verdict covers exactly "
    "the images of this release, by their digests, and no other image.",
    "fail": "The privacy gate found images that give training patients away. Treat the images as patient data. This folder holds the "
    "verdict and this report, and no image.",
    "inconclusive": "The evidence does not suffice to let the images leave. Until a pass, treat them as patient data. This folder holds "
    "the verdict and this report, and no image.",
}
WEIGHTS = {
    "pass": "The model's weights passed too: they may be shared.",
    "fail": "The model's weights failed: they stay with the patients' data.",
    "inconclusive": "The model's weights are not cleared: they stay with the patients' data.",
}


def weights_meaning(gate: Mapping[str, Any]) -> str | None:
    """What the verdict on the weights means; None where there are none."""
    return WEIGHTS.get(str(dig(gate, "weights.verdict")))


def checked(gate: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A check of the images; empty where there is none."""
    found: Mapping[str, Any] = next((c for c in gate.get("checks") or [] if c["name"] == name and c["subject"] == "images"), {})
    return found


def certified(gate: Mapping[str, Any]) -> list[str]:
    """What a pass certifies, a sentence each; nothing where the images did not pass."""
    if dig(gate, "images.verdict") != "pass":
        return []
    copies, power, holdout, member = (checked(gate, name) for name in ("copies", "power", "holdout", "membership_images"))
    unit = str(gate.get("unit"))
    found = [
        f"At most {percent(copies.get('high'))} of the images are copies of training images, of at most "
        f"{counted(int(copies.get('exposed') or 0), unit)} over all releases of this cohort, with {percent(copies.get('confidence'))} "
        f"confidence.",
        f"The search finds copies where there are any: at least {percent(power.get('low'))} of those planted on purpose, of the "
        f"required kind that is the hardest.",
        f"Chance was measured, not assumed: on {counted(int(holdout.get('n') or 0), unit)} whom the generator never saw.",
    ]
    if member.get("verdict") == "pass":
        found.append("Whether somebody was in the training set cannot be told from the images by the attacks that were tried.")
    return found


def not_certified(gate: Mapping[str, Any]) -> list[str]:
    """What a verdict leaves open, a sentence each."""
    found = []
    if dig(gate, "images.verdict") == "pass":
        if checked(gate, "membership_images").get("verdict") != "pass":
            found.append("That nobody can tell from the images whether a certain person was in the training set: that was not shown.")
        others: Mapping[str, list[int]] = checked(gate, "power").get("others") or {}
        if others:
            kind, (hits, planted) = min(others.items(), key=lambda item: item[1][0] / max(item[1][1], 1))
            found.append(
                f"Copies changed in other ways than the required ones: {counted(len(others), 'kind')} of them were tried, and the search "
                f"finds fewest of “{kinds.name(kind)}”, {hits:,} of {planted:,}."
            )
        found.append("What other images of a training patient than those trained on, or images of relatives, would show.")
        if dig(gate, "weights.verdict") == "pass":
            found.append(
                "How many patients are copied in images made of the weights later: of those, the weights' own verdict speaks, "
                "which is on who was in the training set."
            )
    if checked(gate, "holdout").get("drawn") == DRAWN[1]:
        found.append("That the generator saw the named images alone, and that the holdout was drawn at random: both were declared.")
    if gate.get("unit") == "image":
        found.append("Anything about patients: the source does not say whose its images are, so each image counts for itself.")
    found.append(
        "That an image shows its finding, or looks real to a radiologist: fidelity and utility are measured here, and judge nothing."
    )
    return found


@dataclass(frozen=True)
class Signed:
    """What whoever signs a release puts a name to.

    Attributes:
        verdict: how it was reached, as the rest of a sentence.
        what: the images.
        statements: what the signer says to have done.
    """

    verdict: str
    what: str
    statements: tuple[str, ...]


def signed(gate: Mapping[str, Any], sizes: Any) -> Signed:
    """What is signed where the images passed."""
    unit, count = str(gate.get("unit")), dig(sizes, "synthetic")
    images = counted(count, "synthetic image") if isinstance(count, int) else "the synthetic images"
    weights = dig(gate, "weights.verdict")
    kept = "the model's weights may leave too" if weights == "pass" else "the model's weights stay with the patients' data"
    return Signed(
        f"by version {number(gate.get('gate_version'))} of the gate, by {unit}, attempt {number(gate.get('attempt'))} on this cohort",
        f"{images}, with rows and cards" + ("" if weights == "not judged" else f"; {kept}"),
        (
            "I have looked at review.html of the run, and saw no image, text or mark that tells who a patient is.",
            "I have read what the verdict does not certify, and accept it for whoever receives the images.",
            "synthcohort verify found nothing wrong with this release, and its digests are those above.",
            "Licence, contact and intended uses on the data card are right.",
        ),
    )


def percent(value: Any) -> str:
    """A share as a percentage, to two significant digits below 1 %; a dash for none."""
    if not isinstance(value, int | float):
        return "–"
    return f"{100 * value:.2g}%" if value < 0.01 else f"{round(100 * value, 1):g}%"


def facts(gate: Mapping[str, Any], sizes: Any) -> list[tuple[str, str]]:
    """What the verdict rests on, as (name, value): only what is known."""
    unit = gate.get("unit")
    rows = [
        ("Judged by", str(unit)),
        ("Attempt on this cohort", number(gate.get("attempt"))),
        ("Version of the gate", number(gate.get("gate_version"))),
        ("Synthetic images", number(dig(sizes, "synthetic"))),
        ("Training images", number(dig(sizes, "train"))),
        ("Sealed images", number(dig(sizes, "audit"))),
    ]
    return [(name, value) for name, value in rows if value != "–"]
