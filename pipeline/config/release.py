"""The section ``release``: what a release says of itself."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from pipeline.config.section import Line, Section
from pipeline.release.gate import MAX_COPY_RATE


class ReleaseConfig(Section):
    """What a release says of itself."""

    title: Line = "Synthetic cohort"
    """Title of the data card."""
    licence: Line = "unspecified"
    """Licence under which the synthetic images are released, as an SPDX identifier."""
    contact: Line = "unspecified"
    """Whom a user of the release may ask."""
    max_copy_rate: Annotated[float, Field(gt=0)] | None = None
    """A stricter upper bound on the share of copies than the gate's own; a laxer one is refused."""

    @model_validator(mode="after")
    def _only_tightens(self) -> ReleaseConfig:
        if self.max_copy_rate is not None and self.max_copy_rate > MAX_COPY_RATE:
            raise ValueError(f"release.max_copy_rate {self.max_copy_rate} is laxer than the gate's {MAX_COPY_RATE}: only tighten it")
        return self
