"""The section ``evaluate``: how much work the evaluation puts into its classifiers."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pipeline.config.section import Images, Section


class EvaluateConfig(Section):
    """How much work the evaluation puts into its classifiers."""

    seeds: Annotated[int, Field(ge=2, le=100)] = 3
    """Independent trainings of each downstream classifier."""
    classifier_images: Images = 8_000
    """Images seen in one training of a downstream classifier."""
    classifier: Literal["small", "resnet18"] = "small"
    """Network of the downstream and two-sample classifiers: a small residual network for a CPU, or ResNet-18."""
