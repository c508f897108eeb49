"""How often each bound that the gate reads lies on the wrong side of the truth, at the sizes where it is read.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.bounds --jobs 2 --out results

Every bound comes from the function that the gate calls, at the error that the gate gives it. A row has the error that is allowed and how
often it happened, with Clopper and Pearson's 95 % interval; the two-sided intervals behind them are those of ``coverage.py``.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from evaluation import intervals, metrics
from evaluation.data import Labelled
from evaluation.intervals import Interval
from privacy import audit, bounds, gate, limits, one_run
from privacy.judgements import DRAWN
from privacy.tail import leading_run
from tests.benchmarks import report
from tests.benchmarks.coverage import Cell, fitted, rows_of, shift_of

PLANTED = 100
"""Planted copies of a kind, as ``audit.planted`` has it."""
Rng = np.random.Generator


class Row(NamedTuple):
    """How often a bound erred: its name, where, the share that it allows itself, draws, and errors among them."""

    bound: str
    at: str
    allowed: float
    draws: int
    errors: int


def counted(errs: Callable[..., bool], *columns: NDArray[np.int64]) -> int:
    """Draws of counts that err; those with the same counts are looked at once."""
    different, times = np.unique(np.stack(columns, axis=1), axis=0, return_counts=True)
    return int(sum(times[index] for index, counts in enumerate(different.tolist()) if errs(*counts)))


def found(worst: int, kinds: int) -> dict[str, tuple[int, int]]:
    """Planted copies of every required kind, of which all were found but for one kind: where others are missed too, the worst bound only
    falls."""
    return {f"kind {number}": (worst if number == 0 else PLANTED, PLANTED) for number in range(kinds)}


def search_power(rng: Rng, draws: int, *, recall: float, kinds: int, attempt: int) -> list[Row]:
    """The worst recall of the required kinds, of which one has this recall: half of an attempt's error."""
    error = (1 - limits.confidence(attempt)) / 2
    worst = rng.binomial(PLANTED, recall, draws)
    errors = counted(lambda right: bounds.worst_recall(found(right, kinds), error)[1] > recall, worst)
    return [Row("power, low", f"{kinds} kinds, one of recall {recall}, attempt {attempt}", error, draws, errors)]


def copies(rng: Rng, draws: int, *, images: int, copied: int, recall: float, kinds: int, attempt: int) -> list[Row]:
    """The share of copies where images are copies by chance, so many in the mean; and the copied patients where so many are."""
    error = 1 - limits.confidence(attempt)

    def made(flagged: int, worst: int) -> dict[str, Any]:
        low = bounds.worst_recall(found(worst, kinds), error / 2)[1]
        return gate.copy_bounds(flagged, images, images, low, (None, None), error)

    worst = rng.binomial(PLANTED, recall, draws)
    rate, share = rng.binomial(images, copied / images * recall, draws), copied / images
    of_them = rng.binomial(copied, recall, draws)
    at = f"{copied} of {images}, recall {recall}, attempt {attempt}"
    return [
        Row("copies, high", at, error, draws, counted(lambda flagged, least: made(flagged, least)["high"] < share, rate, worst)),
        Row("copies, exposed", at, error, draws, counted(lambda flagged, least: made(flagged, least)["exposed"] < copied, of_them, worst)),
    ]


@functools.cache
def passed(flagged: int, worst: int, images: int, attempt: int, earlier: float | None) -> tuple[bool, float]:
    """Whether a set passes that is honest but for what is flagged and planted; and its search's recall."""
    kinds = limits.required_kinds(28)
    fine = {"value": 0.5, "low": 0.45, "high": 0.55, "n": 1000}
    measured = {
        "unit": "patient",
        "drawn": DRAWN[0],
        "pixels": 28,
        "n": {"train": 1300, "audit": 1000, "synthetic": images, "holdout_units": 1000},
        "copies": {
            "flagged": flagged,
            "undecided": 0,
            "twins": 0,
            "leading_run": 1,
            "run_p": 0.5,
            "repeats": 0,
            "explained": 0,
            "constants": 0,
        },
        "power": [{"kind": kind, "planted": PLANTED, "found": worst if kind == kinds[0] else PLANTED} for kind in kinds],
        "split_bias": fine,
    }
    checks = gate.checks(measured, attempt=attempt, earlier_recall=earlier)
    return gate.decide(checks, attempt=attempt)["verdict"] == "pass", checks[0]["recall"]


def releases(rng: Rng, draws: int, *, images: int, copied: int, recall: float, attempts: int) -> list[Row]:
    """The whole gate, tried again and again with new sets of so many copied patients each: does it let more out than it allows?

    Errors are cohorts of which a set passes although the released ones hold more than :data:`privacy.limits.MAX_EXPOSED` copied patients
    together, or more than :data:`privacy.limits.MAX_COPY_RATE` of it are copies.
    """
    errors = 0
    worst, flagged = (rng.binomial(count, recall, (draws, attempts)) for count in (PLANTED, copied))
    for cohort in range(draws):
        out, earlier = 0, None
        for number in range(attempts):
            leaves, low = passed(int(flagged[cohort, number]), int(worst[cohort, number]), images, number + 1, earlier)
            if leaves:
                out, earlier = out + copied, low if earlier is None else min(low, earlier)
                if out > limits.MAX_EXPOSED or copied / images > limits.MAX_COPY_RATE:
                    errors += 1
                    break
    return [Row("the whole gate", f"{attempts} attempts, {copied} copies in {images}, recall {recall}", 0.05, draws, errors)]


def epsilon(rng: Rng, draws: int, *, mechanism: str, truth: float, pairs: int) -> list[Row]:
    """ε of one run, of a mechanism whose ε is known: what tells of each pair which one is in.

    Randomised response is right with e^ε / (1 + e^ε). Laplace's mechanism answers ±½ + Lap(1 / ε) (sensitivity 1); an answer beyond ±½ has
    the likelihood ratio e^ε, and the surest are guessed, so that the bound is as tight as it can be.
    """
    levels = {0.05: "shown", limits.FALSE_ALARMS["weights_epsilon"]: "judged"}
    guesses, correct = math.ceil(one_run.GUESSED * pairs), np.empty(draws, np.int64)
    for number in range(draws):
        if mechanism == "randomised response":
            apart = np.where(rng.random(pairs) < 1 / (1 + math.exp(-truth)), 1.0, -1.0)
        else:
            apart = 0.5 + rng.laplace(0, 1 / truth, pairs)
        correct[number] = one_run.guess(apart, np.zeros(pairs), rng).correct

    def errs(error: float) -> Callable[[int], bool]:
        return lambda right: bounds.epsilon_lower(right, guesses, error) > truth

    at = f"{mechanism} of ε {truth:g}, {guesses} guesses"
    return [Row(f"ε, low ({name})", at, error, draws, counted(errs(error), correct)) for error, name in levels.items()]


def sides(name: str, at: str, made: list[Interval], truth: float, level: float, attempts: tuple[int, ...] = (1, 3)) -> list[Row]:
    """An interval's lower bound where it fails a set, and its upper bound where it clears one."""
    low = sum(bounds.widened(one.value, one.low, level) > truth for one in made)
    rows = [Row(f"{name}, low (fails)", at, level, len(made), low)]
    for attempt in attempts:
        error = 1 - limits.confidence(attempt)
        high = sum(bounds.widened(one.value, one.high, error) < truth for one in made)
        rows.append(Row(f"{name}, high (clears)", f"{at}, attempt {attempt}", error, len(made), high))
    return rows


def shadow_auc(rng: Rng, draws: int, *, patients: tuple[int, int], truth: float, images: int = 1) -> list[Row]:
    """The AUC of an attack with shadow trainings: scores of images, of which a patient has several."""
    cell, made = Cell("auc", patients, truth, images, 0.5 if images > 1 else 0.0), []
    for _ in range(draws):
        label, patient, noise = rows_of(cell, rng)
        made.append(intervals.interval(metrics.auc_estimate(noise + shift_of(truth) * label, label == 1, patient)))
    at = f"{' + '.join(map(str, patients))} patients of 1 to {images} images, truth {truth}"
    return sides("membership AUC", at, made, truth, limits.FALSE_ALARMS["weights_auc"])


def shadow_tpr(rng: Rng, draws: int, *, patients: tuple[int, int], auc: float) -> list[Row]:
    """The rate at 1 % false alarms, of scores with an AUC."""
    cell, made = Cell("tpr", patients, auc), []
    shift = shift_of(auc)
    for _ in range(draws):
        label, patient, noise = rows_of(cell, rng)
        made.append(intervals.tpr_interval(noise + shift * label, label == 1, patient, 0.01))
    truth = float(norm.sf(norm.isf(0.01) - shift))
    at = f"{' + '.join(map(str, patients))} patients, truth {truth:.3f}"
    return sides("membership TPR", at, made, truth, limits.FALSE_ALARMS["weights_tpr"])


def loss_auc(rng: Rng, draws: int, *, patients: tuple[int, int]) -> list[Row]:
    """The AUC of the loss alone, cross-fitted, of a model that remembers nobody."""
    made = []
    for _ in range(draws):
        label, patient, fold, scores = fitted(Cell("cross_fitted", patients, 0.0), rng)
        made.append(intervals.cross_fitted(scores, label == 1, patient, fold))
    return sides("loss AUC", f"{' + '.join(map(str, patients))} patients, truth .5", made, 0.5, limits.FALSE_ALARMS["loss_auc"], ())


def split_bias(rng: Rng, draws: int, *, patients: tuple[int, int]) -> list[Row]:
    """The control without a generator, of two samples of one source: Gaussian images with two strong components in common."""
    made = []
    for _ in range(draws):
        shared = rng.standard_normal((2, 64))
        pixels = rng.standard_normal((sum(patients), 64)) + rng.standard_normal((sum(patients), 2)) @ shared
        images = np.clip(128 + 20 * pixels, 0, 255).astype(np.uint8).reshape(-1, 1, 8, 8)
        whole = Labelled.of_classes(images, np.zeros(len(images), np.int64), np.arange(len(images)), 1)
        made.append(audit.split_bias(whole.take(slice(patients[0])), whole.take(slice(patients[0], None)), rng))
    at = f"{' + '.join(map(str, patients))} patients of one source"
    above = sum(one.low > limits.CHANCE for one in made)
    return [
        Row("split bias, low (they differ)", at, 0.025, draws, above),
        *sides("split bias", at, made, 0.5, limits.FALSE_ALARMS["loss_auc"])[1:],
    ]


def run_of_patients(rng: Rng, draws: int, *, patients: tuple[int, int]) -> list[Row]:
    """The leading run where nobody is copied."""
    level = limits.FALSE_ALARMS["leading_run"]
    errors = sum(leading_run(*np.split(rng.random(sum(patients)), [patients[0]])).p_value < level for _ in range(draws))
    return [Row("leading run", f"{' + '.join(map(str, patients))} patients", level, draws, errors)]


RECALLS = ((0.85, 5, 1), (0.98, 5, 1), (0.9, 7, 1), (0.9, 5, 5))
SETS = ((930, 5, 0.98, 5, 1), (800, 4, 0.85, 5, 1), (1500, 8, 0.9, 7, 2), (3000, 10, 0.85, 5, 3), (10_000, 2, 0.8, 5, 1))
COHORTS = ((1500, 4, 0.9, 10), (1500, 4, 0.93, 10), (1500, 2, 0.93, 10), (1500, 1, 0.97, 10), (1200, 7, 0.93, 10))
EPSILONS = ((1.0, 300), (1.0, 800), (3.0, 800), (3.0, 1500))
SCORES = (((300, 300), 0.5, 1), ((300, 300), 0.55, 1), ((800, 300), 0.55, 3), ((1300, 1300), 0.55, 1), ((300, 300), 0.85, 1))
CELLS: tuple[tuple[Callable[..., list[Row]], int, dict[str, Any]], ...] = (
    *((search_power, 100, {"recall": r, "kinds": k, "attempt": a}) for r, k, a in RECALLS),
    *((copies, 100, {"images": n, "copied": m, "recall": r, "kinds": k, "attempt": a}) for n, m, r, k, a in SETS),
    *((releases, 20, {"images": n, "copied": m, "recall": r, "attempts": a}) for n, m, r, a in COHORTS),
    (epsilon, 20, {"mechanism": "randomised response", "truth": 0.0, "pairs": 800}),
    *((epsilon, 20, {"mechanism": m, "truth": e, "pairs": n}) for m in ("randomised response", "Laplace") for e, n in EPSILONS),
    *((shadow_auc, 20, {"patients": p, "truth": t, "images": i}) for p, t, i in SCORES),
    *((shadow_tpr, 1, {"patients": p, "auc": a}) for p, a in (((300, 300), 0.5), ((800, 800), 0.5), ((800, 800), 0.8))),
    *((loss_auc, 4, {"patients": p}) for p in ((300, 300), (800, 800))),
    (split_bias, 2, {"patients": (300, 300)}),
    (run_of_patients, 20, {"patients": (400, 300)}),
)
"""Each with its share of the draws: cheap ones have more, since small levels ask for many."""


def simulate(number: int, draws: int, seed: int) -> list[Row]:
    """The rows of one cell."""
    function, share, given = CELLS[number]
    started = time.monotonic()
    rows = function(np.random.default_rng([seed, number]), max(10, draws * share // 20), **given)
    for row in rows:
        rate = intervals.clopper_pearson(row.errors, row.draws)
        print(f"{row.bound:<28} {row.at:<62} allowed {row.allowed:<8.3g} erred {rate.value:.5f} [{rate.low:.5f}, {rate.high:.5f}]")
    print(f"  ({time.monotonic() - started:.0f} s)", flush=True)
    return rows


def main(words: list[str] | None = None) -> None:
    """Run the cells, print the table, and write ``bounds.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=20_000, help="of a cell with a share of 20")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--only", default="", help="functions, separated by commas")
    parser.add_argument("--out", type=Path, default=Path("results"))
    options = parser.parse_args(words)
    chosen = [number for number, cell in enumerate(CELLS) if not options.only or cell[0].__name__ in options.only.split(",")]
    with ProcessPoolExecutor(options.jobs) as pool:
        found_rows = pool.map(simulate, chosen, [options.draws] * len(chosen), [options.seed] * len(chosen))
        rows = [row for of_cell in found_rows for row in of_cell]
    rates = [intervals.clopper_pearson(row.errors, row.draws) for row in rows]
    options.out.mkdir(parents=True, exist_ok=True)
    content = {"facts": report.facts(), "seed": options.seed, "rows": [row._asdict() for row in rows]}
    (options.out / "bounds.json").write_text(json.dumps(content, indent=1))
    cells = [
        (row.bound, row.at, f"{row.allowed:.3g}", row.draws, f"{rate.value:.2g} [{rate.low:.2g}, {rate.high:.2g}]")
        for row, rate in zip(rows, rates, strict=True)
    ]
    print(report.markdown(("bound", "at", "error allowed", "draws", "erred"), cells))
    missed = [row for row, rate in zip(rows, rates, strict=True) if rate.low > row.allowed]
    print(f"{len(missed)} of {len(rows)} bounds err more often than they allow themselves")


if __name__ == "__main__":
    main()
