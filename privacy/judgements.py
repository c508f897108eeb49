"""The kinds of check that the gate knows: what each one's numbers must be, and the verdict and the reason that follow from them alone."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from privacy import bounds, kinds, limits
from privacy.limits import FALSE_ALARMS

Numbers = Mapping[str, Any]
NUMBERS = ("value", "low", "high", "n", "threshold")
NOT_JUDGED = "not judged"
DRAWN = ("by this program", "at random, as declared", "unknown")
"""How it was decided who is sealed: a control is a random sample of the same source, or it is none."""
STARTED = ("nobody else", "other patients", "others, as declared")
"""On whom the model was trained beside the training patients, in weights that its own began from."""
_LABEL = re.compile(r"[a-z][a-z0-9_]{0,39}( [0-9]{1,4}(\.[0-9]{1,4})?)?")
LABELS = 100
"""Kinds of planted copies, at the most."""


def judged(name: str, subject: str, numbers: Numbers) -> dict[str, Any]:
    """A check with the verdict and the reason that follow from its numbers; without any, or with n = 0, it is ``not judged``.

    Raises:
        ValueError: no such check, a number that is none or out of its range, or another threshold than the gate's.
    """
    kind = next((kind for kind in KINDS if (kind.name, kind.subject) == (name, subject)), None)
    if kind is None:
        raise ValueError("the gate knows no such check")
    values = {key: numbers.get(key) for key in NUMBERS} | {"n": numbers.get("n", 0)}
    if not _count(values["n"]):
        raise ValueError(f"the check {name} of the {subject} counts no whole number of cases")
    if values["n"] == 0:
        if any(values[key] is not None for key in NUMBERS if key not in ("n", "threshold")):
            raise ValueError(f"the check {name} of the {subject} has figures of nothing measured")
        values["threshold"], verdict, reason = None, NOT_JUDGED, kind.unmeasured
    else:
        values |= {key: numbers.get(key) for key in kind.further}
        if not kind.sound(values):
            raise ValueError(f"the check {name} of the {subject} has a number that is none, out of its range, or another threshold")
        verdict, reason = kind.judge(values)
    return {"name": name, "subject": subject, "meaning": kind.meaning, **values, "verdict": verdict, "reason": reason}


def label(kind: str, strength: float | None) -> str:
    """Name of a kind of planted copy at a strength."""
    return kind if strength is None else f"{kind} {strength:g}"


def _copies(x: Numbers) -> tuple[str, str]:
    flagged, unit, undecided = x["flagged"], x["unit"], x["undecided"]
    copies = "is a copy of a training image" if flagged == 1 else "are copies of training images"
    copied = f"{flagged} of {x['images']} synthetic images {copies}."
    led = f"The {x['leading_run']} {unit}s nearest to synthetic images were all trained on (probability {x['run_p']:.2g} by chance)."
    exposed = f"{x['exposed']} training {unit if x['exposed'] == 1 else f'{unit}s'}"
    bounded = (
        f"At most {x['high']:.2%} of the synthetic images are copies ({x['threshold']:.2%} allowed), of at most {exposed} over all "
        f"releases of the cohort ({x['exposed_threshold']} allowed), with {x['confidence']:.1%} confidence."
    )
    evidence = [copied] * (flagged > 0) + [led] * (x["run_p"] < x["run_threshold"])
    if evidence:
        return "fail", " ".join(evidence)
    if undecided:
        are, may = ("is", "It may be a copy, or a twin") if undecided == 1 else ("are", "They may be copies, or twins")
        return "inconclusive", (
            f"{undecided} of {x['images']} synthetic images {are} nearer to training images than chance allows, but no nearer than real "
            f"ones of different {unit}s are to one another (sealed ones with such a twin: {x['twins']}). {may} too."
        )
    if x["high"] > x["threshold"] or x["exposed"] > x["exposed_threshold"]:
        return "inconclusive", bounded
    return "pass", f"None of {x['images']:,} synthetic images is nearer to a training image than chance allows. {bounded}"


def _repeats(x: Numbers) -> tuple[str, str]:
    known = f", {x['explained']} of them as often as the cohort's own images do," if x["explained"] else ""
    repeat, are = ("repeats" if x["repeats"] == 1 else "repeat"), ("is" if x["constants"] == 1 else "are")
    idle = f"{x['repeats']:,} of {x['n']:,} synthetic images {repeat} another one{known} and {x['constants']} {are} of one value"
    reason = f"{idle}: {x['value']:.2%}, where {x['threshold']:.2%} are allowed."
    return "pass" if x["high"] <= x["threshold"] else "inconclusive", reason


def _search_power(x: Numbers) -> tuple[str, str]:
    reason = (
        f"Of every required kind of planted copy the search finds at least {x['low']:.1%}, the worst of them being "
        f"“{kinds.name(x['worst'])}” ({x['threshold']:.0%} are asked for)."
    )
    return "pass" if x["low"] >= x["threshold"] else "inconclusive", reason


def _holdout(x: Numbers) -> tuple[str, str]:
    unit = x["unit"] if x["n"] == 1 else f"{x['unit']}s"
    reason = f"The search is calibrated on {x['n']} sealed {unit}; {x['threshold']} are asked for."
    if x["drawn"] == DRAWN[2]:
        return "inconclusive", f"{reason} They were not declared as held out at random before the training, so that they control nothing."
    return "pass" if x["n"] >= x["threshold"] else "inconclusive", reason


def _split_bias(x: Numbers) -> tuple[str, str]:
    bound = bounds.widened(x["value"], x["high"], 1 - x["confidence"])
    if x["low"] > limits.CHANCE:
        return "inconclusive", "Train and sealed images differ by themselves, so that the one side is no control of the other."
    reason = f"Without the generator, train and sealed images are told apart with an AUC of at most {bound:.3f} ({x['threshold']} allowed)."
    return "pass" if bound <= x["threshold"] else "inconclusive", reason


def _membership(subject: str) -> Callable[[Numbers], tuple[str, str]]:
    """Judges the attacks on a subject: each may fail it, and only shadow trainings may clear it."""

    def judge(x: Numbers) -> tuple[str, str]:
        evidence = list(_evidence(subject, x))
        if evidence:
            return "fail", " ".join(evidence)
        nothing = f"No attack on the {subject} tells who was trained on"
        if not x["trainings"]:
            reason = f"{nothing}, but without shadow trainings the strong ones were not tried: that certifies nothing."
            return (NOT_JUDGED if subject == "images" else "inconclusive"), reason
        error = 1 - x["confidence"]
        area = bounds.widened(x["value"], x["high"], error)
        found = bounds.widened(x["tpr"]["value"], x["tpr"]["high"], error)
        reason = (
            f"{nothing}: with {x['trainings']} shadow trainings an AUC of at most {area:.3f} ({x['threshold']} allowed) and at most "
            f"{found:.1%} found at 1% false alarms ({limits.MAX_MEMBERSHIP_TPR:.0%} allowed), against {x['non_members']} non-members."
        )
        strong = x["trainings"] >= limits.MIN_TRAININGS and x["non_members"] >= limits.MIN_HOLDOUT
        clear = strong and area <= x["threshold"] and found <= limits.MAX_MEMBERSHIP_TPR
        if not strong:
            reason += f" {limits.MIN_TRAININGS} trainings and {limits.MIN_HOLDOUT} non-members are asked for."
        return "pass" if clear else "inconclusive", reason

    return judge


def _evidence(subject: str, x: Numbers) -> list[str]:
    """What shows that a subject gives away who was trained on, each at its share of the false alarms."""
    found = []

    def told(attack: str, measure: Numbers, level: float, allowed: float, what: str) -> None:
        low = bounds.widened(measure["value"], measure["low"], level)
        if low > allowed:
            found.append(f"{attack} {what.format(measure['value'], low)} ({allowed} is allowed).")

    area = "tells training images from others with an AUC of {:.3f}, at least {:.3f}"
    if x["trainings"]:
        told("An attack with shadow trainings", x, FALSE_ALARMS[f"{subject}_auc"], x["threshold"], area)
        what = "finds {:.1%} of the members at 1% false alarms, at least {:.1%}"
        told("An attack with shadow trainings", x["tpr"], FALSE_ALARMS[f"{subject}_tpr"], limits.MAX_MEMBERSHIP_TPR, what)
    if x["loss"] is not None:
        told("The loss alone", x["loss"], FALSE_ALARMS["loss_auc"], x["threshold"], area)
    if (run := x["one_run"]) is not None:
        epsilon = bounds.epsilon_lower(run["correct"], run["guesses"], FALSE_ALARMS[f"{subject}_epsilon"])
        if epsilon > limits.MAX_EPSILON[subject]:
            found.append(
                f"{run['correct']} of {run['guesses']} guesses which of two was trained on are right: ε is at least {epsilon:.2f} "
                f"({limits.MAX_EPSILON[subject]:g} is allowed)."
            )
    return found


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 48


def _share(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


def _unit(value: Any) -> bool:
    return value in ("patient", "image")


def _ordered(x: Any) -> bool:
    """Whether value and bounds are shares, and the value lies between the bounds."""
    return isinstance(x, Mapping) and all(_share(x.get(key)) for key in ("value", "low", "high")) and x["low"] <= x["value"] <= x["high"]


def _copy_counts(x: Numbers) -> bool:
    counts = all(_count(x[key]) for key in ("flagged", "undecided", "twins", "images", "leading_run", "exposed")) and _unit(x["unit"])
    levels = x["run_threshold"] == FALSE_ALARMS["leading_run"] and x["exposed_threshold"] == limits.MAX_EXPOSED
    shares = all(_share(x[key]) for key in ("run_p", "recall", "threshold", "confidence"))
    recall, number = x["earlier_recall"], x["earlier_attempt"]
    before = (recall is None and number is None) or (_share(recall) and (number is None or (_count(number) and number > 0)))
    if not (counts and levels and shares and before and _ordered(x)):
        return False
    near = x["flagged"] + x["undecided"]
    return bool(max(near, x["n"]) <= x["images"] and (x["twins"] or not x["undecided"]) and 0 < x["threshold"] <= limits.MAX_COPY_RATE)


def _repeat_counts(x: Numbers) -> bool:
    counts = all(_count(x[key]) for key in ("repeats", "explained", "constants")) and max(x["repeats"], x["constants"]) <= x["n"]
    return bool(counts and x["explained"] <= x["repeats"] and _ordered(x) and x["threshold"] == limits.MAX_REPEATS)


def _recalls(x: Numbers) -> bool:
    pixels = x["pixels"]
    if not (_count(pixels) and all(_share(x[key]) for key in ("value", "low", "confidence")) and x["low"] <= x["value"]):
        return False
    for table in (x["required"], x["others"]):
        if not isinstance(table, Mapping) or len(table) > LABELS or not all(isinstance(name, str) for name in table):
            return False
        if not all(_LABEL.fullmatch(name) and _hits(pair) for name, pair in table.items()):
            return False
    asked = set(limits.required_kinds(pixels))
    named, rest = ({name.partition(" ")[0] for name in table} for table in (x["required"], x["others"]))
    fits = named == asked and not rest & asked and x["worst"] in x["required"]
    return bool(fits and x["high"] is None and x["threshold"] == limits.MIN_RECALL)


def _hits(pair: Any) -> bool:
    return isinstance(pair, list) and len(pair) == 2 and _count(pair[0]) and _count(pair[1]) and pair[1] > 0 and pair[0] <= pair[1]


def _held(x: Numbers) -> bool:
    sides = _count(x["train"]) and _count(x["audit"]) and x["audit"] >= x["n"] and _unit(x["unit"]) and x["drawn"] in DRAWN
    sides = sides and x["started"] in STARTED
    return bool(sides and x["value"] == x["n"] and x["low"] is None and x["high"] is None and x["threshold"] == limits.MIN_HOLDOUT)


def _bias(x: Numbers) -> bool:
    return bool(_ordered(x) and _share(x["confidence"]) and x["threshold"] == limits.MAX_SPLIT_BIAS)


def _attacks(x: Numbers) -> bool:
    if not (_count(x["trainings"]) and _count(x["non_members"]) and _share(x["confidence"])):
        return False
    run = x["one_run"]
    guessed = run is None or (
        isinstance(run, Mapping)
        and set(run) == {"pairs", "guesses", "correct"}
        and all(_count(value) for value in run.values())
        and run["correct"] <= run["guesses"] <= run["pairs"]
    )
    if not guessed or x["threshold"] != limits.MAX_MEMBERSHIP_AUC or (x["loss"] is not None and not _measure(x["loss"])):
        return False
    if x["trainings"]:
        return _ordered(x) and _measure(x["tpr"])
    alone = {key: None for key in ("value", "low", "high")} if x["loss"] is None else x["loss"]
    return x["tpr"] is None and (x["loss"] is not None or run is not None) and all(x[key] == alone[key] for key in ("value", "low", "high"))


def _measure(x: Any) -> bool:
    return _ordered(x) and set(x) == {"value", "low", "high", "n"} and _count(x["n"])


@dataclass(frozen=True)
class Kind:
    """One kind of check.

    Attributes:
        name, subject: its name, and what it says something about.
        meaning: what its value is.
        sound: whether its numbers are numbers, in their range, and its threshold the gate's.
        judge: from its numbers to ``(verdict, reason)``.
        further: its numbers beside NUMBERS.
        unmeasured: the reason when nothing was measured.
    """

    name: str
    subject: str
    meaning: str
    sound: Callable[[Numbers], bool]
    judge: Callable[[Numbers], tuple[str, str]]
    further: tuple[str, ...]
    unmeasured: str = "This was not measured."


SUBJECTS = ("images", "weights")
ATTACKS = ("trainings", "non_members", "tpr", "loss", "one_run", "confidence")
KINDS = (
    Kind(
        "copies",
        "images",
        "Share of copies among the distinct synthetic images, allowing for what the search would miss, and the patients behind them; upper "
        "bounds count. No image may be flagged, nor training patients lead the ranking by nearest synthetic image more than chance allows. "
        "Undecided images count as copies here: they are as near as real ones of the cohort, its twins, are to one another.",
        _copy_counts,
        _copies,
        (
            *("flagged", "undecided", "twins", "images", "leading_run", "run_p", "run_threshold", "unit", "exposed", "exposed_threshold"),
            *("recall", "earlier_recall", "earlier_attempt", "confidence"),
        ),
    ),
    Kind(
        "repeats",
        "images",
        "Share of synthetic images that repeat another one, mirrored or not, or are of one value.",
        _repeat_counts,
        _repeats,
        ("repeats", "explained", "constants"),
    ),
    Kind(
        "membership_images",
        "images",
        "AUC of telling training images from sealed ones by the synthetic images, with shadow trainings; bounds count.",
        _attacks,
        _membership("images"),
        ATTACKS,
        unmeasured="Membership was not told from the images by any attack, because none was tried.",
    ),
    Kind(
        "power",
        "images",
        "Share of planted copies of the worst required kind that the search finds; the lower bound counts, for all kinds together.",
        _recalls,
        _search_power,
        ("worst", "required", "others", "pixels", "confidence"),
        unmeasured="The search's power was not measured on every required kind of copy: finding nothing does not certify the images.",
    ),
    Kind(
        "holdout",
        "images",
        "Sealed patients or images, never seen by the generator, that calibrate the search.",
        _held,
        _holdout,
        ("train", "audit", "unit", "drawn", "started"),
        unmeasured="Nobody whom the generator never saw calibrates the search.",
    ),
    Kind(
        "split_bias",
        "images",
        "AUC of a classifier of train against holdout that never sees the generator: above 0.5, they differ by themselves.",
        _bias,
        _split_bias,
        ("confidence",),
        unmeasured="Whether train and holdout differ by themselves was not measured.",
    ),
    Kind(
        "membership_weights",
        "weights",
        "AUC of telling training images from sealed ones by the weights, with shadow trainings; bounds count.",
        _attacks,
        _membership("weights"),
        ATTACKS,
    ),
    Kind(
        "split_bias",
        "weights",
        "AUC of a classifier that never sees the weights: above 0.5, train and audit differ by themselves.",
        _bias,
        _split_bias,
        ("confidence",),
    ),
)
