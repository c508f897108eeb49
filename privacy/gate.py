"""The gate: from measured checks to ``pass``, ``fail`` or ``inconclusive``.

Three steps, all pure. :func:`checks` turns an audit into checks; what a check concludes follows from its own numbers alone
(:mod:`privacy.judgements`), against constants that are the same for every configuration (:mod:`privacy.limits`). :func:`decide` turns
checks into the verdict, so that anybody who holds a ``gate.json`` can reach it again.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Decimal
from types import MappingProxyType
from typing import Any

from privacy import advice, bounds, kinds, limits
from privacy.judgements import DRAWN, KINDS, NOT_JUDGED, STARTED, SUBJECTS, judged, label

REPLICATION = "The run is a replication: its splits are its own and not the cohort's, so that it counts as no attempt and is not released."
MADE_BY = "The images fail, and they are made from these weights alone: what the images give away, so do the weights."
BEGAN = "The training began from weights that were trained on other patients, whom no check looked for."
HIDDEN = "copies that were hidden on purpose, or changed in ways of which none were planted"
BESIDE = "what the given files hold beside the images that were judged, such as metadata, transparency, finer detail or colour"
Earlier = tuple[float | None, int | None]
"""Of the cohort's earlier releases, the lowest recall that the search had in one, and the highest number of their attempts."""
LAST_PLACE = Decimal("0.0001")
"""Last place of what an attack measured. A verdict is published: all sixteen digits of an AUC would tell that two releases come from one
model, or from one attack on it, and say nothing of a patient, since a standard error is a hundred times this."""
OUTWARD = {"value": ROUND_HALF_EVEN, "low": ROUND_FLOOR, "high": ROUND_CEILING}
"""How it is rounded: an interval grows, so that no bound is better than the one that was measured."""


def checks(
    audit: Mapping[str, Any],
    max_copy_rate: float | None = None,
    *,
    attempt: int = 1,
    earlier_recall: float | None = None,
    earlier_attempt: int | None = None,
) -> list[dict[str, Any]]:
    """The checks of an audit, one of every kind that the gate knows.

    Args:
        audit: as :func:`privacy.audit.summarise` makes it.
        max_copy_rate: a stricter bound than the gate's own.
        attempt: which attempt on its cohort this is, from 1.
        earlier_recall: the lowest recall that the search had, at least, in an earlier release of the cohort; None where there is none.
        earlier_attempt: the highest number of the attempts that those releases were; None where there is none.

    Returns:
        Mappings with ``name``, ``subject`` (images or weights), ``meaning``, ``value``, ``low``, ``high``, ``n`` and ``threshold``, the
        kind's further numbers, ``verdict`` (pass, fail, inconclusive or not judged) and ``reason`` (a sentence).

    Raises:
        ValueError: ``max_copy_rate`` is laxer than the gate's own, or a measure is no number or out of its range.
        KeyError: the audit lacks a measure.
    """
    n, unit, sure = audit["n"], audit["unit"], limits.confidence(attempt)
    held, sides = n["holdout_units"], {"train": n["train"], "audit": n["audit"], "unit": unit, "drawn": audit["drawn"]}
    sides["started"] = audit.get("started", STARTED[0])  # an earlier version did not ask
    power = _power(audit["power"], audit["pixels"], sure)
    bias = {**_whole(audit.get("split_bias")), "threshold": limits.MAX_SPLIT_BIAS, "confidence": sure}
    foreign = audit["drawn"] != DRAWN[0]
    measured: dict[tuple[str, str], dict[str, Any]] = {
        ("copies", "images"): _copies(audit, power.get("low") or 0.0, (earlier_recall, earlier_attempt), sure)
        | {"threshold": limits.copy_bound(max_copy_rate), "unit": unit},
        ("repeats", "images"): _repeats(n["synthetic"], *(audit["copies"][key] for key in ("repeats", "explained", "constants"))),
        ("membership_images", "images"): _membership(audit, "images", sure),
        ("power", "images"): power,
        ("holdout", "images"): {"value": held, "n": held, "threshold": limits.MIN_HOLDOUT, **sides} if held else {},
        ("split_bias", "images"): bias if foreign else {},
        ("membership_weights", "weights"): _membership(audit, "weights", sure),
        ("split_bias", "weights"): {} if foreign else bias,
    }
    return [judged(kind.name, kind.subject, measured[kind.name, kind.subject]) for kind in KINDS]


def _copies(audit: Mapping[str, Any], recall: float, earlier: Earlier, sure: float) -> dict[str, Any]:
    """The counts of the copy search and the bounds that follow. Images that repeat another, or show nothing, certify nothing: they do not
    count."""
    found, images = audit["copies"], audit["n"]["synthetic"]
    counts = {key: found[key] for key in ("flagged", "undecided", "twins", "leading_run", "run_p")}
    distinct = max(1, images - found["repeats"] - found["constants"])
    return {
        "n": distinct,
        "images": images,
        **counts,
        **copy_bounds(counts["flagged"] + counts["undecided"], distinct, images, recall, earlier, 1 - sure),
        "run_threshold": limits.FALSE_ALARMS["leading_run"],
        "exposed_threshold": limits.MAX_EXPOSED,
        "recall": recall,
        "earlier_recall": earlier[0],
        "earlier_attempt": earlier[1],
        "confidence": sure,
    }


def copy_bounds(near: int, distinct: int, images: int, recall: float, earlier: Earlier, error: float) -> dict[str, Any]:
    """Share of images that are or may be copies with its bounds, and the upper bound of the copied patients; half of the error is the
    recall's own.

    The patients are those of all releases of the cohort together: by the lowest recall of any, and with the smallest error, so that the
    bound is the same in whatever order they are released, and whichever of them comes last is refused where they are too many.
    """
    hits = min(near, distinct)
    known, number = earlier
    lowest = recall if known is None else min(recall, known)
    least = error if number is None else min(error, 1 - limits.confidence(number))
    return {
        "value": hits / distinct,
        "low": bounds.share_lower(hits, distinct, 0.025),
        "high": bounds.copy_rate_upper(hits, distinct, recall, error / 2),
        "exposed": bounds.exposed_upper(near, images, lowest, least / 2),
    }


def _repeats(images: int, repeats: int, explained: int, constants: int) -> dict[str, Any]:
    """The share of images that repeat another one beyond what the cohort explains, or show nothing. All images are counted: it is known,
    and its bounds are itself."""
    share = min(images, repeats - explained + constants) / images
    exact = {"value": share, "low": share, "high": share}
    return {"n": images, "repeats": repeats, "explained": explained, "constants": constants, "threshold": limits.MAX_REPEATS, **exact}


def _power(rows: Iterable[Mapping[str, Any]], pixels: int, sure: float) -> dict[str, Any]:
    """Copies found and planted, of the required kinds and of the others; nothing where a required kind was not measured."""
    asked = limits.required_kinds(pixels)
    tables: dict[bool, dict[str, list[int]]] = {True: {}, False: {}}
    for row in rows:
        if row["planted"]:
            tables[row["kind"] in asked][label(row["kind"], row.get("strength"))] = [row["found"], row["planted"]]
    required = tables[True]
    if {name.partition(" ")[0] for name in required} != set(asked):
        return {}
    counts = {name: (pair[0], pair[1]) for name, pair in required.items()}
    worst, low = bounds.worst_recall(counts, (1 - sure) / 2)
    found, planted = counts[worst]
    numbers = {"value": found / planted, "low": low, "n": planted, "threshold": limits.MIN_RECALL}
    return {**numbers, "worst": worst, "required": required, "others": tables[False], "pixels": pixels, "confidence": sure}


def _membership(audit: Mapping[str, Any], subject: str, sure: float) -> dict[str, Any]:
    """What the attacks on a subject found; nothing where none was tried."""
    shadows, run = audit.get("shadows") or {}, (audit.get("one_run") or {}).get(subject)
    attacked = shadows.get(subject) or {}
    area, tpr = _whole(attacked.get("auc")), _whole(attacked.get("tpr_at_1pct_fpr"))
    loss = _whole((audit.get("membership") or {}).get("auc")) if subject == "weights" else {}
    tried = bool(area and tpr)
    guessed = {key: run[key] for key in ("pairs", "guesses", "correct")} if run else None
    if not (tried or loss or guessed):
        return {}
    return {
        **(area if tried else loss),
        **({"n": guessed["pairs"]} if guessed and not (tried or loss) else {}),
        "threshold": limits.MAX_MEMBERSHIP_AUC,
        "trainings": shadows["trainings"] if tried else 0,
        "non_members": shadows["non_members"] if tried else 0,
        "tpr": tpr if tried else None,
        "loss": loss or None,
        "one_run": guessed,
        "confidence": sure,
    }


def _whole(measure: Mapping[str, Any] | None) -> dict[str, Any]:
    """The numbers of an interval, to :data:`LAST_PLACE`; none where it is not defined, because too few stand on a side."""
    if measure is None or any(measure[key] is None for key in OUTWARD):
        return {}
    return {key: _rounded(measure[key], to) for key, to in OUTWARD.items()} | {"n": measure["n"]}


def _rounded(value: Any, to: str) -> Any:
    """A share to :data:`LAST_PLACE`, by its shortest decimal form; what is none stays, for its check to refuse."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        return value
    return float(Decimal(repr(float(value))).quantize(LAST_PLACE, to))


def decide(found: Iterable[Mapping[str, Any]], *, attempt: int | None = 1, replication: bool = False) -> dict[str, Any]:
    """The verdict that follows from checks.

    A subject has the worst verdict of its checks: fail, then inconclusive, then pass. A check that is *not judged* counts as inconclusive.
    Two may fail images and clear them of something, but are not asked for, so that their being open changes nothing: ``membership_images``
    (who tries an attack must not fare worse than who does not), and ``split_bias`` where this program drew the split at random. Weights of
    which nothing was judged, because a foreign set comes without them, are *not judged* themselves.

    Weights fail where their images do. An image is a function of the weights and of noise, so that whatever finds a patient in the images
    is an attack on the weights too, and one that the checks of the weights do not run: an AUC over all members stays at guessing where a
    few are copied. It adds no false alarm to those of :data:`limits.FALSE_ALARM`, since such a set has failed already. Weights whose
    training began from weights of other patients are inconclusive at best: no attack looked for those patients.

    Args:
        found: as :func:`checks` makes them, every kind once and in its order; numbers may have been through JSON.
        attempt: which one on its cohort, from 1; the bounds must have its confidence. A replication has none, and is judged as a first one.
        replication: whether the run has splits of its own, so that it is never released: no better than inconclusive.

    Returns:
        ``verdict`` (that of the images, which is what a release holds), ``unit``, ``images`` and ``weights`` (``verdict`` and ``reasons``:
        of the images first what the verdict says and what it does not certify, then one for each check that decides, and last, unless they
        fail, every kind of copy that is not certified), ``needed`` (what would settle an inconclusive verdict, and what to do about copies)
        and ``gate_version``.

    Raises:
        ValueError: a check is missing, strange or twice there, its verdict or reason does not follow from its numbers, or its bounds have
            another confidence than the attempt asks for.
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
    if any(check.get("confidence", sure) != sure for sure in [limits.confidence(attempt or 1)] for check in table):
        raise ValueError("the checks have another confidence than their attempt asks for")
    tables = {subject: [by_name[kind.name, kind.subject] for kind in KINDS if kind.subject == subject] for subject in SUBJECTS}
    ours = by_name["holdout", "images"].get("drawn") == DRAWN[0]
    spared = {("membership_images", "images")} | ({("split_bias", "images")} if ours else set())
    images, unit = _verdict("images", tables["images"], spared, replication), units.pop()
    of_others = by_name["holdout", "images"].get("started") == STARTED[1]
    further = {"fail": [MADE_BY] * (images["verdict"] == "fail"), "inconclusive": [BEGAN] * of_others}
    weights = _verdict("weights", tables["weights"], spared, replication, further)
    others = _uncertified(by_name["power", "images"]) if images["verdict"] != "fail" else {}
    listed = [f"{share}: {', '.join(named)}." for share, named in others.items()]
    images["reasons"] = [_says(images["verdict"], unit, by_name, others), *images["reasons"]]
    images["reasons"] += [f"Copies changed in other ways, and how many of those planted were found. {' '.join(listed)}"] if listed else []
    # Nothing lets a replication pass, and no set of it is an attempt: only what fails in it is worth a word.
    needed = [] if replication and images["verdict"] != "fail" else advice.needed(by_name, limits.confidence(attempt or 1))
    verdicts = {"verdict": images["verdict"], "unit": unit, "images": images, "weights": weights}
    return {**verdicts, "needed": needed, "gate_version": limits.GATE_VERSION}


def contradictions(found: Iterable[Mapping[str, Any]]) -> list[str]:
    """What is wrong among the numbers of checks that :func:`decide` takes: bounds that do not follow from the counts, one sentence each.

    The bounds are Clopper and Pearson's (1934); that of the copies allows for what the search would miss, by the power check.
    """
    by_name = {(check["name"], check["subject"]): check for check in found}
    copies, power, repeats = (by_name[name, "images"] for name in ("copies", "power", "repeats"))
    sentences = []
    if power["n"]:
        counts = {name: (pair[0], pair[1]) for name, pair in power["required"].items()}
        worst, low = bounds.worst_recall(counts, (1 - power["confidence"]) / 2)
        value = counts[worst][0] / counts[worst][1]
        if worst != power["worst"] or power["n"] != counts[worst][1] or not _same(power, {"value": value, "low": low}):
            sentences.append("the bound of the check power does not follow from its counts")
    if copies["n"]:
        recall, images = (power["low"] or 0.0) if power["n"] else 0.0, copies["images"]
        earlier = (copies["earlier_recall"], copies["earlier_attempt"])
        made = copy_bounds(copies["flagged"] + copies["undecided"], copies["n"], images, recall, earlier, 1 - copies["confidence"])
        calibrated = bool(by_name["holdout", "images"]["n"]) and copies["leading_run"] > 0
        if not _same(copies, made | {"recall": recall}) or calibrated == (copies["run_p"] == 1):
            sentences.append("the bounds of the check copies do not follow from its counts and the search's power")
        if repeats["n"] != images or copies["n"] != max(1, images - repeats["repeats"] - repeats["constants"]):
            sentences.append("the checks copies and repeats count different images")
    if repeats["n"] and not _same(repeats, _repeats(*(repeats[key] for key in ("n", "repeats", "explained", "constants")))):
        sentences.append("the share of the check repeats does not follow from its counts")
    return sentences


def _same(check: Mapping[str, Any], made: Mapping[str, float]) -> bool:
    return all(math.isclose(check[key], value, rel_tol=1e-6, abs_tol=1e-12) for key, value in made.items())


def _verdict(
    subject: str,
    table: list[dict[str, Any]],
    spared: set[tuple[str, str]],
    replication: bool,
    further: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> dict[str, Any]:
    """Verdict and reasons of a subject; ``further`` ones, by verdict, are not its own checks'."""
    by_verdict = {verdict: list(further.get(verdict, ())) for verdict in ("fail", "inconclusive", "pass")}
    for check in table:
        settled = check["verdict"] in ("pass", "fail")
        if settled or (check["name"], subject) not in spared:
            by_verdict[check["verdict"] if settled else "inconclusive"].append(check["reason"])
    if subject == "weights" and all(check["verdict"] == NOT_JUDGED for check in table):
        return {"verdict": NOT_JUDGED, "reasons": by_verdict["inconclusive"]}
    if replication:
        by_verdict["fail" if by_verdict["fail"] else "inconclusive"].append(REPLICATION)
    return next({"verdict": verdict, "reasons": reasons} for verdict, reasons in by_verdict.items() if reasons or verdict == "pass")


def _uncertified(power: Mapping[str, Any]) -> dict[str, list[str]]:
    """The kinds of planted copies that no verdict rests on, the worst found first, by the share of them that the search finds."""
    others = (power["others"] or {}) if power["n"] else {}
    half, enough = "Less than half", f"{limits.MIN_RECALL:.0%} or more"
    shares: dict[str, list[str]] = {half: [], "Half or more": [], enough: []}
    for kind, (hits, planted) in sorted(others.items(), key=lambda item: item[1][0] / item[1][1]):
        share = half if 2 * hits < planted else enough if hits >= limits.MIN_RECALL * planted else "Half or more"
        shares[share].append(f"{kinds.name(kind)} ({hits:,} of {planted:,})")
    return {share: named for share, named in shares.items() if named}


def _says(verdict: str, unit: str, by_name: Mapping[tuple[str, str], Mapping[str, Any]], others: Mapping[str, Sequence[str]]) -> str:
    """The verdict on the images in one sentence, with everything that it does not certify; of the kinds of copies their number."""
    if verdict == "fail":
        return f"Fail: the images give away training {unit}s, or must be taken to."
    membership = by_name["membership_images", "images"]
    open_ = [f"membership from the images ({membership['verdict']})"] if membership["verdict"] != "pass" else []
    open_ += ["what other images of a training patient show", HIDDEN]
    if by_name["holdout", "images"].get("drawn") != DRAWN[0]:
        open_ += [BESIDE]
    if by_name["holdout", "images"].get("drawn") == DRAWN[1]:
        open_ += ["that the generator saw the named images alone and the holdout was drawn at random, both of which were declared"]
    if (started := by_name["holdout", "images"].get("started")) in STARTED[1:]:
        open_ += [f"copies of those on whom the weights that the training began from had been trained ({started})"]
    undecided = by_name["copies", "images"].get("undecided")
    found = [f"{share[0].lower()}{share[1:]} in {len(named)}" for share, named in others.items()]
    if found:
        open_ += [f"copies changed in other ways, named below: of those planted the search finds {', '.join(found)} of these ways"]
    some = "1 image may be a copy" if undecided == 1 else f"{undecided:,} images may be copies"
    sign = some if undecided else "nothing was found"
    said = (
        f"Pass: no sign of any copied {unit} was found, by a search that finds planted copies of every required kind"
        if verdict == "pass"
        else f"Inconclusive: {sign}, {'and' if undecided else 'but'} the evidence does not suffice to let the images leave"
    )
    return f"{said}; not certified: {'; '.join(open_)}."
