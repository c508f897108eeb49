"""Differences with their confidence intervals, and which of those that are read together are shown. All in float64.

Of the same rows they are paired by patient and by training seed; of different patients they come from the interval of each.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike

from evaluation.intervals import Change, Interval, edge, share_interval
from evaluation.metrics import Estimate, Floats
from evaluation.variation import student_t, variation

Key = TypeVar("Key")


def difference(one: Estimate, other: Estimate, confidence: float = 0.95) -> Interval:
    """The interval of ``one − other`` on the same rows, paired by patient and by training seed.

    Two imaginary patients of each class, one for whom the first does better by half of what a patient can weigh and one for the other, keep
    the width away from 0 where hardly any row differs (after Bonett & Price 2012, "Adjusted Wald confidence interval for a difference of
    binomial proportions based on paired data").

    Of shares it holds every true difference d whose distance is at most t standard errors *at d* too (Tango's 1998 score interval): they
    differ by d only where d of the patients do, and none of n may while d is up to t²/(n + t²). Several trainings make that less only as
    far as each misses other patients: where all miss the same ones they tell no more than one.
    """
    return _paired(one, other)(confidence)


def apart(one: Estimate, other: Estimate, confidence: float = 0.95) -> Interval:
    """The interval of ``one − other``, shares of different patients, from the interval of each (Newcombe 1998, "Interval estimation for the
    difference between independent proportions", method 10, with Clopper and Pearson's in place of Wilson's); ``n`` is that of both."""
    first, second = share_interval(one, confidence), share_interval(other, confidence)
    value = first.value - second.value
    low = value - math.hypot(first.value - first.low, second.high - second.value)
    high = value + math.hypot(first.high - first.value, second.value - second.low)
    return Interval(value, low, high, first.n + second.n)


def p_value(one: Estimate, other: Estimate) -> float:
    """Two-sided p of no difference: the level at which :func:`difference` begins to hold 0; NaN where that has no bounds."""
    return _level(_paired(one, other))


def p_apart(one: Estimate, other: Estimate) -> float:
    """The same of :func:`apart`."""
    return _level(lambda confidence: apart(one, other, confidence))


def holm(p_values: ArrayLike) -> Floats:
    """Holm's (1979) adjusted p-values of ``[m]``, in their order; NaN stays, and counts as no comparison."""
    p = np.asarray(p_values, np.float64)
    adjusted = np.full(len(p), math.nan)
    order = [index for index in np.argsort(p) if math.isfinite(p[index])]
    largest = 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * float(p[index])))
        adjusted[index] = largest
    return adjusted


def changes(pairs: Mapping[Key, tuple[Estimate, Estimate]]) -> dict[Key, Change]:
    """``one − other`` of every pair, each with its own interval, and tested together (Holm 1979)."""
    adjusted = holm([p_value(one, other) for one, other in pairs.values()])
    return {key: Change(difference(*pair), float(p)) for (key, pair), p in zip(pairs.items(), adjusted, strict=True)}


def _paired(one: Estimate, other: Estimate) -> Callable[[float], Interval]:
    """:func:`difference` at any confidence."""
    joint = dataclasses.replace(one, by_seed=one.by_seed - other.by_seed, influence=one.influence - other.influence)
    value, spread = joint.value, variation(joint, imaginary=True)
    if spread is None or not math.isfinite(value):
        return lambda confidence: Interval(value, math.nan, math.nan, one.n)

    alike = max(_alike(one), _alike(other))

    def at(confidence: float) -> Interval:
        reach, t = spread.reach(confidence), student_t(confidence, spread.freedom)
        low, high = max(-1.0, value - reach), min(1.0, value + reach)
        if not (one.counts and other.counts):
            return Interval(value, low, high, one.n)

        def holds(truth: float) -> bool:
            return abs(truth - value) <= t * math.sqrt(one.reference(abs(truth)) * alike)

        return Interval(value, min(low, edge(holds, value, -1.0)), max(high, edge(holds, value, 1.0)), one.n)

    return at


def _alike(estimate: Estimate) -> float:
    """How much of a share's variance over patients is left in the mean of its trainings: all of it where they miss the same patients, one
    part of as many as there are where each misses others."""
    spread, expected = variation(estimate), estimate.reference(estimate.value)
    if spread is None or not expected > 0:
        return 1.0
    return min(1.0, max(spread.patients / expected, 1 / spread.seeds))


def _level(at: Callable[[float], Interval]) -> float:
    """The two-sided p of 0 that belongs to an interval at any confidence, by bisection of its logarithm; NaN without bounds."""
    if not math.isfinite(at(0.95).low):
        return math.nan
    low, high = math.log(1e-12), 0.0
    for _ in range(50):
        middle = (low + high) / 2
        found = at(1 - math.exp(middle))
        low, high = (middle, high) if found.low <= 0 <= found.high else (low, middle)
    return math.exp(high)
