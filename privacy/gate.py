"""The gate: from measured checks to ``pass``, ``fail`` or ``inconclusive``. Its constants are the same for every configuration.

Two steps, both pure. :func:`checks` turns an audit into checks; what a check concludes follows from its own numbers alone
(:func:`judged`). :func:`decide` turns checks into the verdict, so that anybody who holds a ``gate.json`` can reach it again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

MAX_COPY_RATE = 0.005
"""Upper 95 % bound of the share of copies: fewer than one image in two hundred. 0 flagged of 600 images reach it with a perfect search;
a laxer bound would let a release of a thousand images hold ten patients, a stricter one asks for sets larger than people publish."""
MIN_RECALL = 0.80
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
CHANCE = 0.5
"""AUC of guessing."""
REPLICATION = "The run is a replication: its splits are its own and not the cohort's, so that it counts as no attempt and is not released."

Numbers = Mapping[str, Any]
NUMBERS = ("value", "low", "high", "n", "threshold")
VERDICTS = ("pass", "fail", "inconclusive")
NOT_JUDGED = "not judged"


def copy_bound(max_copy_rate: float | None) -> float:
    """The bound on the share of copies, which a configuration may only tighten. Raises ValueError for a laxer one."""
    if max_copy_rate is None:
        return MAX_COPY_RATE
    if not 0 < max_copy_rate <= MAX_COPY_RATE:
        raise ValueError(f"{max_copy_rate} is no bound between 0 and the gate's {MAX_COPY_RATE}: it may only be tightened")
    return max_copy_rate


def checks(audit: Mapping[str, Any], max_copy_rate: float | None = None) -> list[dict[str, Any]]:
    """The checks of an audit, one of every kind that the gate knows.

    Args:
        audit: as :func:`privacy.audit.summarise` makes it.
        max_copy_rate: a stricter bound than MAX_COPY_RATE.

    Returns:
        Mappings with ``name``, ``subject`` (images or weights), ``meaning``, ``value``, ``low``, ``high``, ``n`` and ``threshold``, the
        kind's further numbers, ``verdict`` (pass, fail, inconclusive or not judged) and ``reason`` (a sentence).

    Raises:
        ValueError: ``max_copy_rate`` is laxer than the gate's own, or a measure is no number or out of its range.
        KeyError: the audit lacks a measure.
    """
    found, n, unit = audit["copies"], audit["n"], audit["unit"]
    core = [row for row in audit["power"] if row["core"]]
    planted = sum(row["planted"] for row in core)
    recall = sum(row["found"] for row in core) / planted if planted else None
    run = {key: found[key] for key in ("flagged", "leading_run", "run_p")} | {"run_threshold": RUN_PROBABILITY, "unit": unit}
    attacked = audit.get("membership", {})
    held, sides = n["holdout_units"], {"train": n["train"], "audit": n["audit"], "unit": unit}
    measured: dict[tuple[str, str], dict[str, Any]] = {
        ("copies", "images"): {**found["rate"], "threshold": copy_bound(max_copy_rate), **run},
        ("power", "images"): {"value": recall, "low": found["recall_low"], "n": planted, "threshold": MIN_RECALL} if planted else {},
        ("holdout", "images"): {"value": held, "n": held, "threshold": MIN_HOLDOUT, **sides} if held else {},
        ("membership_weights", "weights"): _measured(attacked.get("auc"), MAX_MEMBERSHIP_AUC),
        ("split_bias", "weights"): _measured(attacked.get("control_auc"), CHANCE),
    }
    return [judged(kind.name, kind.subject, measured.get((kind.name, kind.subject), {})) for kind in KINDS]


def _measured(measure: Mapping[str, Any] | None, threshold: float) -> dict[str, Any]:
    """The numbers of an interval; none where it is not defined, because no bootstrap draw held both sides."""
    if measure is None or any(measure[key] is None for key in ("value", "low", "high")):
        return {}
    return {**measure, "threshold": threshold}


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
        if kind.sound is None or kind.judge is None or not kind.sound(values):
            raise ValueError(f"the check {name} of the {subject} has a number that is none, out of its range, or another threshold")
        verdict, reason = kind.judge(values)
    return {"name": name, "subject": subject, "meaning": kind.meaning, **values, "verdict": verdict, "reason": reason}


def decide(found: Iterable[Mapping[str, Any]], *, replication: bool = False) -> dict[str, Any]:
    """The verdict that follows from checks.

    A subject has the worst verdict of its checks: fail, then inconclusive, then pass. A check that is *not judged* counts as inconclusive
    where the gate cannot do without it (copies, power and holdout for images; membership_weights, split_bias and power for weights: no
    measured detection power means no pass) and does not count elsewhere (repeats, membership_images). Weights of which nothing was
    judged, because a foreign set comes without them, are *not judged* themselves.

    Args:
        found: as :func:`checks` makes them, every kind once and in its order; numbers may have been through JSON.
        replication: whether the run has splits of its own, so that it is never released: no better than inconclusive.

    Returns:
        ``verdict`` (that of the images, which is what a release holds), ``unit``, ``images`` and ``weights`` (``verdict`` and
        ``reasons``, one for each check that decides), and ``needed``: what would settle an inconclusive verdict.

    Raises:
        ValueError: a check is missing, strange or twice there, or its verdict or reason does not follow from its numbers.
    """
    table = [dict(check) if isinstance(check, Mapping) else {} for check in found]
    if [(check.get("name"), check.get("subject")) for check in table] != [(kind.name, kind.subject) for kind in KINDS]:
        raise ValueError("the checks are not those of the gate, each once and in its order")
    for check in table:
        if judged(check["name"], check["subject"], check) != check:
            raise ValueError(f"the check {check['name']} of the {check['subject']} does not follow from its own numbers")
    by_name = {(check["name"], check["subject"]): check for check in table}
    units = {check["unit"] for check in table if "unit" in check}
    if len(units) != 1:
        raise ValueError("the checks protect different units, or none")
    tables = {subject: [by_name[kind.name, kind.subject] for kind in KINDS if kind.subject == subject] for subject in SUBJECTS}
    verdicts = {subject: _verdict(subject, its, replication) for subject, its in tables.items()}
    return {"verdict": verdicts["images"]["verdict"], "unit": units.pop(), **verdicts, "needed": _needed(by_name)}


def contradictions(found: Iterable[Mapping[str, Any]]) -> list[str]:
    """What is wrong among the numbers of checks that :func:`decide` takes: bounds that do not follow from the counts, one sentence each.

    The bounds are Clopper and Pearson's (1934); that of the copies allows for what the search would miss, by the power check.
    """
    from evaluation.intervals import clopper_pearson, clopper_pearson_lower, clopper_pearson_upper

    by_name = {(check["name"], check["subject"]): check for check in found}
    copies, power, held = by_name["copies", "images"], by_name["power", "images"], by_name["holdout", "images"]["n"]
    sentences = []
    if power["n"]:
        hits = round(power["value"] * power["n"])
        if not _same((power["value"], hits / power["n"]), (power["low"], clopper_pearson_lower(hits, power["n"]))):
            sentences.append("the bound of the check power does not follow from its counts")
    if copies["n"]:
        flagged, n = copies["flagged"], copies["n"]
        upper = min(1.0, clopper_pearson_upper(flagged, n) / power["low"]) if power["low"] else 1.0
        pairs = (copies["value"], flagged / n), (copies["low"], clopper_pearson(flagged, n).low), (copies["high"], upper)
        if not _same(*pairs) or (copies["leading_run"] == 0 or not held) != (copies["run_p"] == 1):
            sentences.append("the bounds of the check copies do not follow from its counts and the search's power")
    return sentences


def _same(*pairs: tuple[float, float]) -> bool:
    return all(math.isclose(one, other, rel_tol=1e-6, abs_tol=1e-12) for one, other in pairs)


def _verdict(subject: str, table: list[dict[str, Any]], replication: bool) -> dict[str, Any]:
    required = {kind.name for kind in KINDS if kind.subject == subject and kind.required}
    by_verdict: dict[str, list[str]] = {verdict: [] for verdict in ("fail", "inconclusive", "pass")}
    for check in table:
        if check["verdict"] != NOT_JUDGED:
            by_verdict[check["verdict"]].append(check["reason"])
        elif check["name"] in required:
            by_verdict["inconclusive"].append(check["reason"])
    if subject == "weights" and all(check["verdict"] == NOT_JUDGED for check in table):
        return {"verdict": NOT_JUDGED, "reasons": by_verdict["inconclusive"]}
    if replication:
        by_verdict["fail" if by_verdict["fail"] else "inconclusive"].append(REPLICATION)
    return next({"verdict": verdict, "reasons": reasons} for verdict, reasons in by_verdict.items() if reasons or verdict == "pass")


def _needed(by_name: Mapping[tuple[str, str], Mapping[str, Any]]) -> list[str]:
    copies, power, holdout = (by_name[name, "images"] for name in ("copies", "power", "holdout"))
    # A foreign set comes without weights: its generator and its holdout are somebody else's.
    foreign = all(check["verdict"] == NOT_JUDGED for (_, subject), check in by_name.items() if subject == "weights")
    sentences = []
    if holdout["verdict"] == NOT_JUDGED:
        sentences.append(f"{MIN_HOLDOUT} patients or images whom the generator never saw are needed, and none are there.")
    if holdout["verdict"] == "inconclusive" and foreign:
        sentences.append(
            f"{MIN_HOLDOUT} {holdout['unit']}s whom the generator never saw are needed and {holdout['n']} are there: a holdout of "
            f"{MIN_HOLDOUT} would do, beside what ingest.val_share and test_share take of it."
        )
    elif holdout["verdict"] == "inconclusive":
        unit, held = holdout["unit"], holdout["n"]
        share = holdout["audit"] / (holdout["train"] + holdout["audit"])
        sentences.append(
            f"{MIN_HOLDOUT} sealed {unit}s are needed and {held} are there: a cohort of {math.ceil(MIN_HOLDOUT / share)} {unit}s in train "
            f"and audit together (now {round(held / share)}) would do at the present ingest.audit_share of {share:.2f}."
        )
    if power["verdict"] == "inconclusive":
        sentences.append(
            "The search must tell copies from chance resemblance better: more sealed images steady its threshold, and a larger "
            "ingest.size gives it more to compare."
        )
    if copies["verdict"] == "inconclusive" and not copies["flagged"] and power["low"]:
        bound = copies["threshold"]
        # 1 - 0.05^(1/N) <= bound · recall
        enough = math.ceil(math.log(0.05) / math.log1p(-bound * power["low"]))
        sentences.append(
            f"{enough} synthetic images without a flagged one would bound the copy rate at {bound:.2%} (now {copies['n']}): "
            + ("give as many." if foreign else "raise generate.per_class.")
        )
    return sentences


def _copies(x: Numbers) -> tuple[str, str]:
    flagged, n, unit = x["flagged"], x["n"], x["unit"]
    copied = f"{flagged} of {n} synthetic images are copies of training images."
    led = f"The {x['leading_run']} {unit}s nearest to synthetic images were all trained on (probability {x['run_p']:.2g} by chance)."
    bounded = f"At most {x['high']:.2%} of the synthetic images are copies (95 % bound); {x['threshold']:.2%} are allowed."
    evidence = [copied] * (flagged > 0) + [led] * (x["run_p"] < x["run_threshold"])
    if evidence:
        return "fail", " ".join(evidence)
    if x["high"] > x["threshold"]:
        return "inconclusive", bounded
    return "pass", f"None of {n} synthetic images is nearer to a training image than chance allows. {bounded}"


def _search_power(x: Numbers) -> tuple[str, str]:
    reason = f"The search finds at least {x['low']:.1%} of planted copies; {x['threshold']:.0%} are asked for."
    return "pass" if x["low"] >= x["threshold"] else "inconclusive", reason


def _holdout(x: Numbers) -> tuple[str, str]:
    reason = f"The search is calibrated on {x['n']} sealed {x['unit']}s; {x['threshold']} are asked for."
    return "pass" if x["n"] >= x["threshold"] else "inconclusive", reason


def _membership(x: Numbers) -> tuple[str, str]:
    reason = f"An attack tells training images from others with an AUC of {x['value']:.3f} ({x['low']:.3f} to {x['high']:.3f}); "
    verdict = "fail" if x["low"] > x["threshold"] else "pass" if x["high"] <= x["threshold"] else "inconclusive"
    return verdict, reason + f"{x['threshold']} is allowed."


def _split_bias(x: Numbers) -> tuple[str, str]:
    if x["low"] > x["threshold"]:
        return "inconclusive", "Train and audit images differ by themselves, so that the attack cannot be judged."
    return "pass", "Train and audit images cannot be told apart without the weights."


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 48


def _share(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


def _interval(threshold: Callable[[], float], *, tighter: bool = False) -> Callable[[Numbers], bool]:
    """Whether value and bounds are shares, the bounds in order, and the threshold is the gate's (or below it)."""

    def sound(x: Numbers) -> bool:
        if not all(_share(x[key]) for key in ("value", "low", "high", "threshold")) or x["low"] > x["high"]:
            return False
        return bool(0 < x["threshold"] <= threshold() if tighter else x["threshold"] == threshold())

    return sound


def _recall(x: Numbers) -> bool:
    return _share(x["value"]) and _share(x["low"]) and x["low"] <= x["value"] and x["high"] is None and x["threshold"] == MIN_RECALL


def _copy_counts(x: Numbers) -> bool:
    counts = _count(x["flagged"]) and x["flagged"] <= x["n"] and _count(x["leading_run"]) and x["unit"] in ("patient", "image")
    return bool(
        counts and _share(x["run_p"]) and x["run_threshold"] == RUN_PROBABILITY and _interval(lambda: MAX_COPY_RATE, tighter=True)(x)
    )


def _held(x: Numbers) -> bool:
    sides = _count(x["train"]) and _count(x["audit"]) and x["audit"] >= x["n"] and x["unit"] in ("patient", "image")
    return bool(sides and x["value"] == x["n"] and x["low"] is None and x["high"] is None and x["threshold"] == MIN_HOLDOUT)


@dataclass(frozen=True)
class Kind:
    """One kind of check.

    Attributes:
        name, subject: its name, and what it says something about.
        meaning: what its value is.
        sound: whether its numbers are numbers, in their range, and its threshold the gate's; None where nothing measures it yet.
        judge: from its numbers to ``(verdict, reason)``.
        further: its numbers beside NUMBERS.
        required: whether the subject cannot pass without it.
        unmeasured: the reason when nothing was measured.
    """

    name: str
    subject: str
    meaning: str
    sound: Callable[[Numbers], bool] | None = None
    judge: Callable[[Numbers], tuple[str, str]] | None = None
    further: tuple[str, ...] = ()
    required: bool = True
    unmeasured: str = "This was not measured."


SUBJECTS = ("images", "weights")
KINDS = (
    Kind(
        "copies",
        "images",
        "Share of copies among the synthetic images, allowing for what the search would miss; the upper bound counts. No image may be "
        "flagged (familywise 5 %), nor training patients lead the ranking by nearest synthetic image more than chance allows.",
        _copy_counts,
        _copies,
        ("flagged", "leading_run", "run_p", "run_threshold", "unit"),
    ),
    Kind(
        "repeats",
        "images",
        "Share of synthetic images that repeat each other.",
        required=False,
    ),
    Kind(
        "membership_images",
        "images",
        "AUC of telling training images from sealed ones by the synthetic images.",
        required=False,
    ),
    Kind(
        "power",
        "images",
        "Share of planted copies (core transformations) that the search finds; the lower bound counts.",
        _recall,
        _search_power,
        unmeasured="The search's power was not measured, so that finding nothing does not certify the images.",
    ),
    Kind(
        "holdout",
        "images",
        "Sealed patients or images, never seen by the generator, that calibrate the search.",
        _held,
        _holdout,
        ("train", "audit", "unit"),
        unmeasured="Nobody whom the generator never saw calibrates the search.",
    ),
    Kind(
        "membership_weights",
        "weights",
        "AUC of telling training images from sealed ones by the weights' loss; the upper bound counts.",
        _interval(lambda: MAX_MEMBERSHIP_AUC),
        _membership,
    ),
    Kind(
        "split_bias",
        "weights",
        "AUC of a classifier that never sees the weights: above 0.5, train and audit differ by themselves.",
        _interval(lambda: CHANCE),
        _split_bias,
    ),
    Kind(
        "power",
        "weights",
        "Share of known members of these weights (planted canaries) that the attack finds.",
        unmeasured="The attack's power on these weights was not measured, so that finding nothing does not certify them.",
    ),
)
