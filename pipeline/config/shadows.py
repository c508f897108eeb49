"""The section ``shadows``: trainings on other images of the cohort, with which membership in the run's own is attacked."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator

from pipeline.config.section import Section, unit


class ShadowsConfig(Section):
    """Trainings on other images of the cohort, with which membership in the run's own is attacked."""

    trainings: Annotated[int, Field(ge=0, le=256), unit("trainings")] = 0
    """Shadow trainings, each as long as the run's own: 0 for none, otherwise 4 at least. 8 find most of what 15 find; without any the
    weights never pass."""
    draws: Annotated[int, Field(ge=1, le=1000), unit("draws")] = 4
    """Noise draws for each noise level of the attack on the weights."""

    @field_validator("trainings")
    @classmethod
    def _enough(cls, value: int) -> int:
        if 0 < value < 4:
            raise ValueError("fewer than 4 do not tell how much trainings differ by chance: 0 leaves the stage out")
        return value
