"""Words for the keys of results, and what the report's terms mean."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from privacy import kinds

NAMES = {
    "copies": "Copies",
    "repeats": "Repeated images",
    "constants": "Images of one value",
    "membership_images": "Membership from the images",
    "membership_weights": "Membership from the weights",
    "power": "Power of the search",
    "holdout": "Sealed from training",
    "split_bias": "Difference of the sides by themselves",
    "auc": "AUC",
    "tpr_at_1pct_fpr": "Members found at 1% false alarms",
    "tpr_at_01pct_fpr": "Members found at 0.1% false alarms",
    "control_auc": "AUC of the control (no model)",
    "by_sigma": "AUC at noise level",
    "frechet": "Fréchet distance",
    "kid": "Kernel distance (KID)",
    "two_sample": "Two-sample test (0.5 = indistinguishable)",
    "flagged": "Images flagged as copies",
    "undecided": "Images that may be copies or twins",
    "twins": "Sealed images with a twin among the real ones",
    "rate": "Share flagged",
    "threshold": "Distance below which an image is nearer than chance allows",
    "smallest_distance": "Smallest distance",
    "smallest_p": "Smallest probability by chance",
    "pairs": "Pairs of a training and a sealed one",
    "p": "Probability of as much by chance",
    "guesses": "Pairs that the attack guessed",
    "correct": "Guesses that were right",
    "epsilon_low": "ε, at least",
    "leading_run": "Leading run",
    "run_p": "Probability of such a run by chance",
    "values": "Values that it can take",
    "train": "Training images",
    "audit": "Sealed images",
    "members": "Members",
    "worst": "Worst group",
    "explained": "Repeats that the cohort's own explain",
    "repeats_real": "Repeats among the sealed images",
    "cnn": "Small network",
    "plain": "Plain features",
    "imagenet": "ImageNet features",
    "small": "Small residual network",
    "resnet18": "ResNet-18",
    "non_members": "Non-members",
    "prdc": "",
    "precision": "Precision",
    "recall": "Recall",
    "density": "Density",
    "coverage": "Coverage",
    "images": "Images",
    "weights": "Weights",
    "jpeg": "JPEG",
    "ema": "EMA",
    "ema_snapshots": "EMA snapshots",
}
GLOSSARY = {
    "AUC": "area under the ROC curve: the probability that a case of one side scores higher than one of the other; 0.5 is chance.",
    "Attempt": "how many sets of images of this cohort have been judged: to try until one passes is visible.",
    "ε (epsilon)": "the strength of a privacy guarantee: what is shown is a lower bound, so that a small value certifies nothing.",
    "Familywise": "a false alarm anywhere among all images, or all comparisons of a table, has the stated probability, not one for each.",
    "Floor": "what real images that the generator never saw reach against each other: no generator can be expected to do better.",
    "Interval": "the range in brackets: 95% of such ranges hold the true value. A spread over repeats says less, and is named so.",
    "Leading run": "how many synthetic images, the most similar ones first, lie nearest to a training patient before the first one lies "
    "nearest to a sealed one: of a generator that copies nobody, a short one is expected.",
    "Planted copy": "a training image, changed in a known way and hidden among the synthetic ones, to measure whether the search finds it.",
    "Required kind": "a kind of planted copies that the verdict rests on, the worst of them counting. Of images of this size: {required}.",
    "Sealed": "real patients, or images where nobody says whose they are, drawn at random from the same source as the training ones: the "
    "generator never saw them.",
    "Twin": "a real image that is as near to one of another patient as a copy is, such as one of somebody who is counted as two: a "
    "synthetic image that is no nearer to a training image may be a copy or another twin, and is undecided.",
    "Shadow training": "a model of the same recipe on another random part of the cohort, which shows what a member looks like.",
}


def setting(value: Any) -> str:
    """The value of a setting as people write it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {setting(one)}" for key, one in value.items()) or "–"
    if isinstance(value, list | tuple):
        return ", ".join(map(setting, value)) or "–"
    if isinstance(value, int | float):
        return f"{value:,}" if isinstance(value, int) else f"{value:g}"
    return "–" if value is None or value == "" else str(value)


def glossary(required: Iterable[str]) -> dict[str, str]:
    """What the report's terms mean where the verdict rests on these kinds of planted copies."""
    names = ", ".join(map(kinds.name, required))
    return {term: meaning.format(required=names) for term, meaning in GLOSSARY.items()}


def title(key: str) -> str:
    """A key of the results, or a path of keys, as words."""
    names = [name for part in str(key).split(" · ") if (name := NAMES.get(part, part.replace("_", " ")))]
    names[:1] = [name[:1].upper() + name[1:] for name in names[:1]]
    return " · ".join([*names[:1], *map(_within, names[1:])])


def _within(name: str) -> str:
    """A name within a line: small, unless it begins with a word that has capitals of its own, such as AUC and ImageNet, or with ε."""
    first = name.split()[0]
    return name if first[1:] != first[1:].lower() or first == "ε," else name[0].lower() + name[1:]
