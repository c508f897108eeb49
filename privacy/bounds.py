"""Bounds from counts: what so many of so many allow to say, and with which error. All in float64, all pure.

``error`` is always the probability that a bound lies on the wrong side of the truth, at most; ``tests/benchmarks/bounds.py`` simulates how
often that is, at the sizes where the gate reads them.

SciPy is imported where it is used: a plan, which has a second, asks for closed forms alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

Counts = Mapping[str, tuple[int, int]]


def share_upper(hits: int, n: int, error: float) -> float:
    """Upper bound of a share that lies under the truth with probability ``error`` at most (Clopper & Pearson 1934)."""
    if hits >= n:
        return 1.0
    from scipy.special import betaincinv

    return float(betaincinv(hits + 1, n - hits, 1 - error))


def share_lower(hits: int, n: int, error: float) -> float:
    """Lower bound of a share that lies over the truth with probability ``error`` at most (Clopper & Pearson 1934)."""
    if hits <= 0:
        return 0.0
    if hits == n:
        return float(error ** (1 / n))  # P(n hits of n) = share^n
    from scipy.special import betaincinv

    return float(betaincinv(hits, n - hits + 1, error))


def worst_recall(recalls: Counts, error: float) -> tuple[str, float]:
    """The kind with the smallest lower bound, and that bound, where all bounds hold together but for ``error`` (Bonferroni over kinds).

    Args:
        recalls: copies found and planted, by kind; at least one kind.
    """
    bounds = {kind: share_lower(found, planted, error / len(recalls)) for kind, (found, planted) in recalls.items()}
    worst = min(bounds, key=lambda kind: (bounds[kind], kind))
    return worst, bounds[worst]


def copy_rate_upper(flagged: int, n: int, recall: float, error: float) -> float:
    """Upper bound of the share of copies where a search with at least this recall flagged so many of n distinct images.

    A quotient of two bounds: with half of the error spent here and the other half on ``recall``, it holds but for their sum.
    """
    return min(1.0, share_upper(flagged, n, error) / recall) if recall > 0 and n else 1.0


def exposed_upper(flagged: int, images: int, recall: float, error: float) -> int:
    """Upper bound of the copied patients among ``images`` that were all searched with at least this recall, and so many were flagged.

    The largest M ≤ images with P(at most ``flagged`` of M are found) > ``error``. Of several releases in which nothing was found, the
    lowest recall bounds them all together: wherever the M copies lie, each is missed with 1 − recall at most, so that P ≤ (1 − recall)^M.
    """
    if recall <= 0:
        return images
    from scipy.special import bdtr

    low, high = flagged, images
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if bdtr(flagged, middle, recall) > error else (low, middle - 1)
    return low


def enough_images(recall: float, bound: float, error: float) -> int:
    """Distinct images of which none is flagged that bound the rate of copies: 1 − error^(1/n) ≤ bound · recall."""
    return math.ceil(math.log(error) / math.log1p(-bound * recall))


def widened(value: float, bound: float, error: float) -> float:
    """A share's bound of a two-sided 95 % interval, moved to where it errs with ``error`` on its side: a normal's, on the arcsine scale.

    On that scale a share varies as much everywhere (Anscombe 1948), so that bounds near 0 and 1 stay on their side.
    """
    from scipy.special import ndtri

    ratio = float(ndtri(1 - error) / ndtri(0.975))
    centre, end = (math.asin(math.sqrt(min(max(x, 0.0), 1.0))) for x in (value, bound))
    return math.sin(min(max(centre + (end - centre) * ratio, 0.0), math.pi / 2)) ** 2


def leading_run_power(copied: int, sealed: float, level: float) -> float:
    """Probability that the leading-run test sees ``copied`` patients at a level, where a share ``sealed`` of very many is sealed.

    The copied lead; then others follow at random, each of train with 1 − sealed. Seen is a run of L with (1 − sealed)^L ≤ level.
    """
    needed = math.ceil(math.log(level) / math.log1p(-sealed) - 1e-9)
    return float((1 - sealed) ** max(0, needed - copied))


def epsilon_lower(correct: int, guesses: int, error: float = 0.05, *, coins: int = 0, delta: float = 0.0) -> float:
    """Lower bound of ε, which lies over the truth with probability ``error`` at most; 0 where nothing is shown.

    Args:
        correct: guesses that were right, v.
        guesses: their number r, fixed beforehand.
        coins: m, of which they are guesses; needed with ``delta`` alone.
        delta: of (ε, δ).

    Raises:
        ValueError: the counts are not in their order, or ``delta`` comes without ``coins``.
    """
    if not 0 <= correct <= guesses or (delta > 0 and coins < guesses):
        raise ValueError(f"{correct} of {guesses} guesses about {coins} coins: the counts must not fall in this order")
    if delta == 0:
        from scipy.special import betaincinv

        share = float(betaincinv(correct, guesses - correct + 1, error)) if correct else 0.0
        return max(0.0, math.log(share / (1 - share))) if share > 0 else 0.0
    low, high = 0.0, 50.0
    if p_value(correct, guesses, low, coins=coins, delta=delta) > error:
        return 0.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if p_value(correct, guesses, middle, coins=coins, delta=delta) > error else (middle, high)
    return low


def p_value(correct: int, guesses: int, epsilon: float, *, coins: int = 0, delta: float = 0.0) -> float:
    """Bound of the probability that so many guesses are right under (ε, δ).

    Theorem 5.2 of Steinke, Nasr & Jagielski 2023 (arXiv:2305.08846), which :mod:`privacy.one_run` quotes.
    """
    from scipy.special import bdtr, bdtrc

    right = 1 / (1 + math.exp(-epsilon))
    tail = 1.0 if correct == 0 else float(bdtrc(correct - 1, guesses, right))
    if delta == 0 or correct == 0:
        return min(1.0, tail)
    reach = range(1, correct + 1)
    below = [float(bdtr(correct - 1, guesses, right) - (bdtr(correct - 1 - i, guesses, right) if i < correct else 0.0)) for i in reach]
    return min(1.0, tail + coins * delta * max(2 * share / i for share, i in zip(below, reach)))
