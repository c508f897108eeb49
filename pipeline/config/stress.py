"""The section ``stress``: how much work goes into the stress test."""

from __future__ import annotations

from pipeline.config.section import Images, Section


class StressConfig(Section):
    """How much work goes into the stress test; the classifiers under stress are the evaluation's real-trained ones."""

    images: Images = 400
    """Test images that every corruption is tried on, at the most; rare classes are kept whole."""
