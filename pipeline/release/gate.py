"""The gate: from the audit's intervals to `pass`, `fail` or `inconclusive`. Its constants are the same for every configuration."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pipeline.errors import InputError

MAX_COPY_RATE = 0.005
"""Upper 95 % bound of the share of copies: fewer than one image in two hundred. 0 flagged of 600 images reach it with a perfect search;
a laxer bound would let a release of a thousand images hold ten patients, a stricter one asks for sets larger than people publish."""
MIN_CORE_RECALL = 0.80
"""Lower 95 % bound of the recall on planted copies (as they are, mirrored, moved, rescaled, dimmed): a search that misses more than one in
five says little when it finds nothing."""
MIN_HOLDOUT = 300
"""Sealed patients (images, where patients are unknown) that calibrate the search: with fewer, a false-alarm rate of 1 % cannot be
certified (0 of 300 bounds it at 1 % with 95 % confidence)."""
RUN_PROBABILITY = 0.01
"""Level of the leading-run test. One honest set in a hundred fails by chance; ten copied patients have (2/3)^10 = 0.017 when a third is
sealed and 0.001 when half is, and are found image by image besides."""
MAX_MEMBERSHIP_AUC = 0.55
"""Upper 95 % bound of the membership attack's AUC for weights: 1 000 images on each side resolve 0.02 around guessing."""

NOT_JUDGED = "not judged"
REPLICATION = "The run is a replication: its splits are its own and not the cohort's, so that it counts as no attempt and is not released."


def decide(audit: Mapping[str, Any], max_copy_rate: float | None = None) -> dict[str, Any]:
    """Judge an ``audit.json``.

    Args:
        audit: as :func:`privacy.audit.summarise` makes it.
        max_copy_rate: a stricter bound than MAX_COPY_RATE.

    Returns:
        ``verdict`` (that of the images, which is what a release holds), ``unit``, ``images`` and ``weights`` (``verdict`` and
        ``reasons``, one sentence each), ``checks``, and ``needed``: what would settle an inconclusive verdict.

    Raises:
        InputError: ``max_copy_rate`` is laxer than the gate's own.
    """
    if max_copy_rate is not None and max_copy_rate > MAX_COPY_RATE:
        raise InputError(f"release.max_copy_rate {max_copy_rate} is laxer than the gate's {MAX_COPY_RATE}: it may only be tightened")
    bound = max_copy_rate or MAX_COPY_RATE
    checks = _image_checks(audit, bound) + _weight_checks(audit)
    needed = _needed(audit, checks, bound)
    judged = {subject: _verdict([check for check in checks if check["subject"] == subject]) for subject in ("images", "weights")}
    return {"verdict": judged["images"]["verdict"], "unit": audit["unit"], **judged, "checks": checks, "needed": needed}


def withheld(decided: Mapping[str, Any]) -> dict[str, Any]:
    """The verdict of a replication, which is never released: no better than inconclusive, for :data:`REPLICATION` among other reasons.

    Args:
        decided: as :func:`decide` gives it.
    """
    judged = {}
    for subject in ("images", "weights"):
        verdict, reasons = decided[subject]["verdict"], decided[subject]["reasons"]
        judged[subject] = {
            "verdict": "inconclusive" if verdict == "pass" else verdict,
            "reasons": [REPLICATION] if verdict == "pass" else [*reasons, REPLICATION],
        }
    return {**decided, **judged, "verdict": judged["images"]["verdict"]}


def _image_checks(audit: Mapping[str, Any], bound: float) -> list[dict[str, Any]]:
    found, n, unit = audit["copies"], audit["n"], audit["unit"]
    flagged, rate = found["flagged"], found["rate"]
    held = n["holdout_units"]
    planted = sum(row["planted"] for row in audit["power"] if row["core"])
    hits = sum(row["found"] for row in audit["power"] if row["core"])
    return [
        _check(
            "copies",
            "images",
            "Synthetic images nearer to a training image than chance allows (familywise 5 %).",
            (flagged, None, None, n["synthetic"], 0),
            "fail" if flagged else "pass",
            f"{flagged} of {n['synthetic']} synthetic images are copies of training images."
            if flagged
            else f"None of {n['synthetic']} synthetic images is nearer to a training image than chance allows.",
        ),
        _check(
            "leading run",
            "images",
            f"Probability that so many training {unit}s lead the ranking by nearest synthetic image, if membership did not matter.",
            (found["run_p"], None, None, n["train"] + n["audit"], RUN_PROBABILITY),
            "fail" if found["run_p"] < RUN_PROBABILITY else "pass",
            f"The {found['leading_run']} {unit}s nearest to synthetic images were all trained on "
            f"(probability {found['run_p']:.2g} by chance)."
            if found["leading_run"]
            else f"The {unit} nearest to a synthetic image is one that the generator never saw.",
        ),
        _check(
            "search power",
            "images",
            "Share of planted copies (core transformations) that the search finds; the lower bound counts.",
            (hits / max(planted, 1), found["recall_low"], None, planted, MIN_CORE_RECALL),
            "pass" if found["recall_low"] >= MIN_CORE_RECALL else "inconclusive" if planted else NOT_JUDGED,
            f"The search finds at least {found['recall_low']:.1%} of planted copies; {MIN_CORE_RECALL:.0%} are asked for."
            if planted
            else "The search's power was not measured, so that finding nothing does not certify the images.",
        ),
        _check(
            "holdout",
            "images",
            f"Sealed {unit}s, never seen by the generator, that calibrate the search.",
            (held, None, None, held, MIN_HOLDOUT),
            "pass" if held >= MIN_HOLDOUT else "inconclusive",
            f"The search is calibrated on {held} sealed {unit}s; {MIN_HOLDOUT} are asked for."
            if planted
            else f"{held} {unit}s whom the generator never saw are too few to say how near chance comes; {MIN_HOLDOUT} are asked for.",
        ),
        _check(
            "copy rate",
            "images",
            "Share of copies among the synthetic images, allowing for what the search would miss; the upper bound counts.",
            (rate["value"], rate["low"], rate["high"], rate["n"], bound),
            "pass" if rate["high"] <= bound else "inconclusive",
            f"At most {rate['high']:.2%} of the synthetic images are copies (95 % bound); {bound:.2%} are allowed.",
        ),
    ]


def _weight_checks(audit: Mapping[str, Any]) -> list[dict[str, Any]]:
    if "membership" not in audit:
        meaning, reason = (
            "AUC of telling training images from sealed ones by the weights' loss.",
            "There are no weights here to be attacked.",
        )
        return [_check("membership", "weights", meaning, (0, None, None, 0, MAX_MEMBERSHIP_AUC), NOT_JUDGED, reason)]
    auc, control = audit["membership"]["auc"], audit["membership"]["control_auc"]
    verdict = "fail" if auc["low"] > MAX_MEMBERSHIP_AUC else "pass" if auc["high"] <= MAX_MEMBERSHIP_AUC else "inconclusive"
    apart = control["low"] > 0.5
    return [
        _check(
            "membership",
            "weights",
            "AUC of telling training images from sealed ones by the weights' loss; the upper bound counts.",
            (auc["value"], auc["low"], auc["high"], auc["n"], MAX_MEMBERSHIP_AUC),
            verdict,
            f"An attack on the weights tells training images from others with an AUC of {auc['value']:.3f} "
            f"({auc['low']:.3f} to {auc['high']:.3f}); {MAX_MEMBERSHIP_AUC} is allowed.",
        ),
        _check(
            "membership control",
            "weights",
            "AUC of a classifier that never sees the weights: above 0.5, train and audit differ by themselves.",
            (control["value"], control["low"], control["high"], control["n"], 0.5),
            "inconclusive" if apart else "pass",
            "Train and audit images differ by themselves, so that the attack cannot be judged."
            if apart
            else "Train and audit images cannot be told apart without the weights.",
        ),
        _check(
            "membership power",
            "weights",
            "Whether the attack was shown to find known members of these weights (planted canaries).",
            (0, None, None, 0, 1),
            "inconclusive",
            "The attack's power on these weights was not measured, so that finding nothing does not certify them.",
        ),
    ]


def _check(
    name: str, subject: str, meaning: str, numbers: tuple[float, float | None, float | None, int, float], verdict: str, reason: str
) -> dict[str, Any]:
    value, low, high, n, threshold = numbers
    return {
        "name": name,
        "subject": subject,
        "meaning": meaning,
        "value": value,
        "low": low,
        "high": high,
        "n": n,
        "threshold": threshold,
        "verdict": verdict,
        "reason": reason,
    }


def _verdict(checks: list[dict[str, Any]]) -> dict[str, Any]:
    if all(check["verdict"] == NOT_JUDGED for check in checks):
        return {"verdict": NOT_JUDGED, "reasons": [check["reason"] for check in checks]}
    for verdict, deciding in (("fail", ("fail",)), ("inconclusive", ("inconclusive", NOT_JUDGED))):
        reasons = [check["reason"] for check in checks if check["verdict"] in deciding]
        if reasons:
            return {"verdict": verdict, "reasons": reasons}
    return {"verdict": "pass", "reasons": [check["reason"] for check in checks]}


def _needed(audit: Mapping[str, Any], checks: list[dict[str, Any]], bound: float) -> list[str]:
    open_ = {check["name"] for check in checks if check["verdict"] == "inconclusive"}
    n, unit, recall = audit["n"], audit["unit"], audit["copies"]["recall_low"]
    sentences = []
    if "holdout" in open_ and "membership" not in audit:
        sentences.append(
            f"{MIN_HOLDOUT} {unit}s whom the generator never saw are needed, and {n['holdout_units']} calibrate the search: give as many "
            f"as that, beside those for ingest.val_share and test_share."
        )
    elif "holdout" in open_:
        share = n["audit"] / (n["train"] + n["audit"])
        units = (n["train"] + n["audit"]) * n["holdout_units"] / n["audit"]
        sentences.append(
            f"{MIN_HOLDOUT} sealed {unit}s are needed and {n['holdout_units']} are there: a cohort of "
            f"{math.ceil(MIN_HOLDOUT / share)} {unit}s in train and audit together (now {round(units)}) would do at the present "
            f"ingest.audit_share of {share:.2f}."
        )
    if "search power" in open_:
        sentences.append(
            "The search must tell copies from chance resemblance better: more sealed images steady its threshold, and a larger "
            "ingest.size gives it more to compare."
        )
    if "copy rate" in open_ and not audit["copies"]["flagged"] and recall > 0:
        # 1 - 0.05^(1/N) <= bound · recall
        enough = math.ceil(math.log(0.05) / math.log1p(-bound * recall))
        sentences.append(
            f"{enough} synthetic images without a flagged one would bound the copy rate at {bound:.2%} (now {n['synthetic']}): "
            "raise generate.per_class."
        )
    return sentences
