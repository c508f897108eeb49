"""A whole configuration: one section a stage."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pipeline.config.audit import AuditConfig
from pipeline.config.evaluate import EvaluateConfig
from pipeline.config.generate import GenerateConfig
from pipeline.config.ingest import IngestConfig
from pipeline.config.release import ReleaseConfig
from pipeline.config.section import Section
from pipeline.config.stress import StressConfig
from pipeline.config.train import TrainConfig


class Config(Section):
    """A whole run."""

    name: Annotated[str, Field(max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
    """Name of the run; its folder is ``runs/<name>`` unless ``--out`` says otherwise."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """The one seed of the run: cohort, splits, training, generation and resampling derive theirs from it."""
    ingest: IngestConfig
    train: TrainConfig
    generate: GenerateConfig
    audit: AuditConfig = AuditConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    stress: StressConfig = StressConfig()
    release: ReleaseConfig = ReleaseConfig()
