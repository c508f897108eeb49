"""What to do where images do not pass: sentences that follow from the numbers of the gate's checks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from privacy import bounds, limits
from privacy.judgements import DRAWN, NOT_JUDGED

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
LEFT_OUT = "Leaving the flagged images out would leave those that the search misses."


def needed(by_name: Mapping[tuple[str, str], Mapping[str, Any]], sure: float) -> list[str]:
    """What would settle an inconclusive verdict, and what to do about one that fails, a sentence each.

    Args:
        by_name: the gate's checks, by name and subject.
        sure: the confidence of their bounds.
    """
    copies, power, holdout = (by_name[name, "images"] for name in ("copies", "power", "holdout"))
    # A foreign set comes without weights: its generator and its holdout are somebody else's.
    foreign = all(check["verdict"] == NOT_JUDGED for (_, subject), check in by_name.items() if subject == "weights")
    less = OTHERS if foreign else LESS
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
        share = holdout["audit"] / (holdout["train"] + holdout["audit"])
        sentences.append(
            f"{least} sealed {unit}s are needed and {held} {there}: a cohort of {math.ceil(least / share)} {unit}s in train and audit "
            f"together (now {round(held / share)}) would do at the present ingest.audit_share of {share:.2f}."
        )
    if holdout.get("drawn") == DRAWN[2]:
        sentences.append("If the holdout was held out at random before the training, say so: --holdout-random.")
    if power["verdict"] == "inconclusive":
        sentences.append(
            "The search must tell copies from chance resemblance better: more sealed images steady its threshold, a larger ingest.size "
            "gives it more to compare, and more planted copies (audit.planted) bound its recall more closely."
        )
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
    elif copies["verdict"] == "inconclusive" and power["n"] and power["low"] is not None:
        # Of a worse search any number of images would be too few to count on: what it must become first is said above.
        bound, recall = copies["threshold"], max(power["low"], limits.MIN_RECALL)
        enough = bounds.enough_images(recall, bound, (1 - sure) / 2)
        if enough > copies["n"]:
            sentences.append(
                f"{enough:,} distinct synthetic images without a flagged one would bound the copy rate at {bound:.2%}"
                f"{f' under a search that finds {recall:.0%}' if recall > power['low'] else ''} (now {copies['n']:,}): "
                + ("give as many." if foreign else "raise generate.per_class.")
            )
    return sentences
