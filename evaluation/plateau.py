"""When trainings end: held-out patients gain nothing more from them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

LEAST = 8192
"""Images without a gain before a training ends, at the least: a rare finding is learned long after the common ones."""
PATIENCE = 0.5
"""A training ends when half as many images again as it had at its last gain have brought none."""
GAIN = 0.05, 0.01
"""By how much the held-out loss has to fall to count as a gain: the larger of a share of it and nats.

A loss that falls with the square root of the images, as what is merely estimated ever better does, loses nearly a fifth over half as many
images again: such a training goes on until it is down to some hundredths of a nat. A hundredth still moves a share of right answers."""


class Plateau:
    """Whether trainings still gain.

    Attributes:
        reached: whether they have stopped to; it stays so.
    """

    def __init__(self) -> None:
        self.best, self.gained, self.reached = math.inf, 0, False

    def look(self, seen: int, losses: Sequence[float]) -> None:
        """Take note of all their held-out losses (nats) after ``seen`` images: the mean counts, and is no gain where it is NaN."""
        loss, (share, nats) = float(np.mean(losses)), GAIN
        if loss < self.best - (nats if math.isinf(self.best) else max(share * self.best, nats)):
            self.best, self.gained = loss, seen
        self.reached = self.reached or seen - self.gained >= max(LEAST, PATIENCE * self.gained)
