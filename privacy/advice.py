"""What to do where images do not pass: sentences that follow from the numbers of the gate's checks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from privacy import bounds, limits
from privacy.judgements import DRAWN, NOT_JUDGED

Check = Mapping[str, Any]

LESS = (
    "A training that is shorter learns less by heart: a smaller train.images or train.minutes than this run's, or train.images: auto, "
    "which ends where the losses on training and on unseen images part; so does one of more patients, or with more train.dropout and "
    "train.augment. "
)
OTHERS = (
    "Only a generator that learns less by heart makes a set that may pass, by a training that is shorter, of more patients, or with more "
    "dropout and augmentation: its set is another attempt on the cohort. "
)
"""Of a set whose generator is not this program's."""
SEARCH = (
    "The search must tell copies from chance resemblance better: more sealed images steady its threshold, a larger ingest.size "
    "gives it more to compare, and more planted copies (audit.planted) bound its recall more closely."
)
LEFT_OUT = "Leaving the flagged images out would leave those that the search misses."


def needed(by_name: Mapping[tuple[str, str], Check], sure: float) -> list[str]:
    """What would settle an inconclusive verdict, and what to do about one that fails, a sentence each.

    Args:
        by_name: the gate's checks, by name and subject.
        sure: the confidence of their bounds.
    """
    copies, power, holdout = (by_name[name, "images"] for name in ("copies", "power", "holdout"))
    # A foreign set comes without weights: its generator and its holdout are somebody else's.
    foreign = all(check["verdict"] == NOT_JUDGED for (_, subject), check in by_name.items() if subject == "weights")
    less = OTHERS if foreign else LESS
    sentences = _sealed(holdout, by_name["split_bias", "images"], foreign)
    if power["verdict"] == "inconclusive":
        sentences.append(SEARCH)
    if power["verdict"] == NOT_JUDGED and holdout["n"] >= limits.MIN_HOLDOUT:
        sentences.append("What the search finds must be measured on planted copies, which takes more distinct synthetic images.")
    if by_name["repeats", "images"]["verdict"] == "inconclusive":
        sentences.append("Give each image once: a generator that repeats itself is judged by its distinct images.")
    if copies["verdict"] == "fail":
        shown = "audit/pairs.png" if foreign else "the stage review"  # which a foreign set comes to only where it is released
        whom = "the copies" if copies["flagged"] else "whom they are nearest to"
        see = f"See {whom}: audit/pairs.json names the nearest pairs, and {shown} shows them."
        left = LEFT_OUT if copies["flagged"] else "None is flagged by itself, so that none can be left out."
        sentences.insert(0, f"{see} {less}{left}")
    elif by_name["membership_images", "images"]["verdict"] == "fail":
        sentences.insert(0, f"{less}No image can be left out for it: the set as a whole tells who was trained on.")
    elif copies["verdict"] == "inconclusive" and copies["undecided"]:
        sentences.append(
            "See the undecided images, and the twins among the real ones: audit/pairs.json names both, and the stage review shows them. "
            "Where two real images are of one patient, say so by patient_id in the table of labels: both are on one side then, and hide no "
            "copy. Otherwise another set may have no such image"
            f"{'' if foreign else ', from another seed or a training that learns less by heart'}: it is another attempt on the cohort."
        )
    elif copies["verdict"] == "inconclusive":
        sentences += _bounded(copies, power, sure, foreign)
    return sentences


def _sealed(holdout: Check, bias: Check, foreign: bool) -> list[str]:
    """What the holdout lacks, in number, in how it was drawn, and in being like the training images."""
    least, sentences, there = limits.MIN_HOLDOUT, [], "is there" if holdout["n"] == 1 else "are there"
    if holdout["verdict"] == NOT_JUDGED:
        sentences.append(f"{least} patients or images whom the generator never saw are needed, and none are there.")
    elif holdout["n"] < least and foreign:
        sentences.append(
            f"{least} {holdout['unit']}s whom the generator never saw are needed and {holdout['n']} {there}: a holdout of {least} would "
            f"do, beside what ingest.val_share and test_share take of it."
        )
    elif holdout["n"] < least:
        unit, held = holdout["unit"], holdout["n"]
        share = holdout["audit"] / (holdout["train"] + holdout["audit"])  # of images, not of patients: near ingest.audit_share
        alike = ", near-duplicates counting as one" if unit == "image" and holdout["audit"] > held else ""
        sentences.append(
            f"{least} sealed {unit}s are needed and {held} {there}: a cohort of {math.ceil(least / share)} {unit}s in train and audit "
            f"together (now {round(held / share)}{alike}) would do, with {share:.0%} of them sealed, as now."
        )
    if holdout.get("drawn") == DRAWN[2]:
        sentences.append("If the holdout was held out at random before the training, say so: --holdout-random.")
    if bias["verdict"] == "inconclusive" or (bias["verdict"] == NOT_JUDGED and foreign and holdout["n"] >= least):
        apart = bias["n"] and bias["low"] > limits.CHANCE
        sentences.append(
            "Give a holdout that was drawn at random from the very source of the training images, and written to files in the same way."
            if apart
            else "More images of the holdout and of training would tell more surely whether both are of one source."
        )
    return sentences


def _bounded(copies: Check, power: Check, sure: float, foreign: bool) -> list[str]:
    """What would bound the copies lower, where none is found: more images, or a better search, here and in earlier releases."""
    found, bound = (power["low"] if power["n"] else 0.0), copies["threshold"]
    # Of a worse search any number of images would be too few to count on: what it must become first is said above.
    recall = max(found, limits.MIN_RECALL)
    enough = bounds.enough_images(recall, bound, (1 - sure) / 2)
    sentences = []
    if enough > copies["n"]:
        sentences.append(
            f"{enough:,} distinct synthetic images without a flagged one would bound the copy rate at {bound:.2%}"
            f"{f' under a search that finds {recall:.0%}' if recall > found else ''} (now {copies['n']:,}): "
            + ("give as many." if foreign else "raise generate.per_class.")
        )
    if not power["n"] or copies["exposed"] <= copies["exposed_threshold"]:
        return sentences
    known, number = copies["earlier_recall"], copies["earlier_attempt"]
    error = min(1 - sure, 1.0 if number is None else 1 - limits.confidence(number)) / 2
    asked = math.ceil(1000 * (1 - error ** (1 / (copies["exposed_threshold"] + 1)))) / 1000  # (1 − recall)^(allowed + 1) ≤ error
    told = f"{copies['exposed_threshold']} copied {copies['unit']}s at the most take a search that finds {asked:.1%} of every required kind"
    if known is not None and known < asked:
        return [*sentences, f"{told}, and an earlier release of the cohort had one that finds {known:.1%}: no further set of it can pass."]
    return [*sentences, f"{told} (now {found:.1%})." + ("" if power["verdict"] == "inconclusive" else f" {SEARCH}")]
