"""When trainings end."""

import math
from collections.abc import Callable

import pytest

from evaluation.plateau import GAIN, LEAST, PATIENCE, Plateau

CHECK = 1024


def ends(loss: Callable[[int], float], most: int = 400_000) -> int:
    """At how many images trainings with this held-out loss end."""
    plateau = Plateau()
    for seen in range(CHECK, most, CHECK):
        plateau.look(seen, [loss(seen)])
        if plateau.reached:
            return seen
    return most


def test_a_loss_that_stands_still_ends_after_the_least_wait() -> None:
    assert ends(lambda seen: 0.7) == CHECK + LEAST


def test_a_loss_that_falls_once_ends_a_share_of_that_later() -> None:
    at = 40 * CHECK
    assert ends(lambda seen: 0.7 if seen < at else 0.3, most=10**6) < at, "it stood still for longer than it waits"
    falling = lambda seen: 1.0 - 0.9 * min(seen, at) / at  # noqa: E731
    assert ends(falling) == pytest.approx(at * (1 + PATIENCE), abs=4 * CHECK)


def test_a_loss_that_falls_with_the_square_root_goes_on_until_what_it_gains_is_small() -> None:
    end = ends(lambda seen: 20 / math.sqrt(seen))
    gain = 20 / math.sqrt(end / (1 + PATIENCE)) - 20 / math.sqrt(end)
    assert gain == pytest.approx(GAIN[1], abs=0.004)


def test_the_mean_counts_and_swings_of_one_training_do_not() -> None:
    plateau = Plateau()
    plateau.look(CHECK, [0.5, 0.5])
    plateau.look(2 * CHECK, [0.3, 0.7])
    assert (plateau.best, plateau.gained) == (0.5, CHECK)
    plateau.look(3 * CHECK, [0.3, 0.5])
    assert (plateau.best, plateau.gained) == (0.4, 3 * CHECK)


def test_a_loss_that_is_no_number_is_no_gain() -> None:
    plateau = Plateau()
    for loss in (math.nan, 0.6, math.nan):
        plateau.look(CHECK, [loss])
    assert plateau.best == 0.6
    assert ends(lambda seen: math.nan) == math.ceil(LEAST / CHECK) * CHECK
