"""The section ``release``: what a release says of itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationInfo, field_validator

from pipeline.config.section import Line, Section, unit


class ReleaseConfig(Section):
    """What a release says of itself."""

    title: Line = "Synthetic cohort"
    """Title of the data card."""
    licence: Line = "unspecified"
    """Licence under which the synthetic images are released, as an SPDX identifier."""
    contact: Line = "unspecified"
    """Whom a user of the release may ask."""
    max_copy_rate: Annotated[float, Field(gt=0), unit("as a share")] | None = None
    """A stricter upper bound on the share of copies than the gate's own; a laxer one is refused where a run is planned."""
    sign: Path | None = None
    """An Ed25519 private key (PEM, without a passphrase) to sign the release with; the key file is no part of what is released."""

    @field_validator("title", "licence", "contact")
    @classmethod
    def _one_line(cls, text: str, info: ValidationInfo) -> str:
        if not text.isprintable():
            raise ValueError(f"release.{info.field_name} has line breaks or control characters: write it on one line")
        return text
