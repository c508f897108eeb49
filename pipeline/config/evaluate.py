"""The section ``evaluate``: which classifiers judge, and how much work goes into them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pipeline.config.section import Images, Location, Section, unit


class EvaluateConfig(Section):
    """Which classifiers judge, and how much work goes into them."""

    seeds: Annotated[int, Field(ge=2, le=100), unit("trainings")] | None = None
    """Independent trainings of each arm and of the encoder, and halvings of the two-sample panel; 5 on a GPU and 3 on a CPU if left out."""
    classifier: Literal["small", "resnet18"] = "small"
    """Network of the arms: a small residual network for a CPU, or ResNet-18. Those trained on real images judge the synthetic ones, and are
    put under stress."""
    arms: Literal["default", "full"] = "default"
    """Training sets that are compared: real, real with classical augmentation, real and synthetic; `full` adds real as often as classes
    occur, synthetic alone, other ratios, synthetic for the rarest class only, and synthetic before real."""
    classifier_images: Images = 100_000
    """Images seen in training one classifier, at the most: it ends at its plateau on held-out patients, or is said not to have."""
    imagenet: Location | None = None
    """A file of torchvision's ResNet-18 or ResNet-50 weights, for the two-sample panel's third judge; by default those that the extra
    `imagenet` installs, if it is."""
