"""Our lower bound of ε from one run beside that of jax-privacy (Google DeepMind), on the same guesses at the same error.

It runs where jax-privacy and scipy are installed, and needs nothing else of this project's requirements:

    python -m venv PEER && PEER/bin/pip install jax-privacy scipy
    PEER/bin/python -m tests.benchmarks.one_run_peer

Both follow Steinke, Nasr & Jagielski 2023 (arXiv:2305.08846). The peer's auditor takes scores and calls those above a threshold members: a
right guess is a score of 1 of a member, a wrong one of a non-member, and whoever was not guessed about scores 0. It asks for a δ above 0;
ours at δ = 0 stands beside its own at 1e-15.
"""

from __future__ import annotations

import argparse
import math
from importlib import metadata

import numpy as np

from privacy import bounds

MECHANISMS = ("randomised response", "Laplace")
SIZES = ((60, 300), (160, 800), (300, 1500))
"""Guesses, and coins of which they are."""
EPSILONS = (0.5, 1.0, 3.0)
CASES = ((0.05, 0.0), (0.05, 1e-5), (0.0005, 0.0), (0.0005, 1e-6))
"""Error and δ."""
TINY = 1e-15
AGREE = 1e-4
"""Largest difference that rounding explains: the peer looks for its root to 1e-6."""


def right_guesses(mechanism: str, epsilon: float, guesses: int, coins: int, rng: np.random.Generator) -> int:
    """How many of the surest guesses about fair coins are right, of a mechanism whose ε is known."""
    if mechanism == "Laplace":
        answers = 0.5 + rng.laplace(0, 1 / epsilon, coins)
        return int((answers[np.argsort(-np.abs(answers))[:guesses]] > 0).sum())
    return int(rng.binomial(guesses, 1 / (1 + math.exp(-epsilon))))


def peer(correct: int, guesses: int, coins: int, error: float, delta: float) -> float:
    """jax-privacy's bound for as many right guesses."""
    from jax_privacy import auditing

    inside, outside = np.zeros(coins // 2), np.zeros(coins - coins // 2)
    inside[:correct], outside[: guesses - correct] = 1.0, 1.0
    auditor = auditing.CanaryScoreAuditor(inside, outside)
    return float(auditor.epsilon_one_run(error, delta or TINY, threshold_strategy=auditing.Explicit(0.5)))


def main() -> None:
    """Print the table, and say how far the two lie apart; exits with 1 where that is more than rounding."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    rng = np.random.default_rng(parser.parse_args().seed)
    print(f"jax-privacy {metadata.version('jax-privacy')}")
    print("| mechanism | its ε | right of guesses of coins | error | δ | ours | jax-privacy |\n|---|---|---|---|---|---|---|")
    worst = 0.0
    for mechanism in MECHANISMS:
        for epsilon in EPSILONS:
            for guesses, coins in SIZES:
                correct = right_guesses(mechanism, epsilon, guesses, coins, rng)
                for error, delta in CASES:
                    ours = bounds.epsilon_lower(correct, guesses, error, coins=coins, delta=delta)
                    theirs = peer(correct, guesses, coins, error, delta)
                    worst = max(worst, abs(ours - theirs))
                    counts = f"{correct} of {guesses} of {coins}"
                    print(f"| {mechanism} | {epsilon:g} | {counts} | {error:g} | {delta:g} | {ours:.4f} | {theirs:.4f} |")
    print(f"largest difference {worst:.1e}")
    raise SystemExit(int(worst > AGREE))


if __name__ == "__main__":
    main()
