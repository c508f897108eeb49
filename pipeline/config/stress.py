"""The section ``stress``: how much work the stress test puts into its classifier."""

from __future__ import annotations

from pipeline.config.section import Images, Section


class StressConfig(Section):
    """How much work the stress test puts into its classifier."""

    classifier_images: Images = 8_000
    """Images seen in training the ResNet-18 that is put under stress."""
