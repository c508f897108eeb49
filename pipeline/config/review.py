"""The section ``review``: what a person is shown before images leave."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pipeline.config.section import Section, unit


class ReviewConfig(Section):
    """What a person is shown before images leave, in ``review/review.html``."""

    images: Annotated[int, Field(ge=1, le=100), unit("images")] = 8
    """Sealed and synthetic images of each class that are shown beside each other, at the most."""
