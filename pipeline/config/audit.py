"""The section ``audit``: how much work the audit puts into its attacks and its power."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pipeline.config.section import Section, unit


class AuditConfig(Section):
    """How much work the audit puts into its attacks and its power."""

    planted: Annotated[int, Field(ge=20, le=10_000), unit("copies")] = 100
    """Copies planted of each kind to measure the search's power; three times as many of the kinds that a verdict rests on."""
    membership_draws: Annotated[int, Field(ge=1, le=1000), unit("draws")] = 4
    """Noise draws for each noise level of the membership attack."""
    holdout_random: bool = False
    """A foreign set: whether ``ingest.holdout`` was held out at random before the generator was trained, which nobody but its maker knows.
    Without it the holdout controls nothing, and no set passes."""
