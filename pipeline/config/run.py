"""A whole configuration: one section a stage."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from pipeline.config.audit import AuditConfig
from pipeline.config.evaluate import EvaluateConfig
from pipeline.config.generate import GenerateConfig
from pipeline.config.ingest import IngestConfig
from pipeline.config.release import ReleaseConfig
from pipeline.config.review import ReviewConfig
from pipeline.config.section import Section
from pipeline.config.shadows import ShadowsConfig
from pipeline.config.stress import StressConfig
from pipeline.config.train import TrainConfig


class Config(Section):
    """A whole run."""

    name: Annotated[str, Field(max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
    """Name of the run; its folder is ``runs/<name>`` unless ``--out`` says otherwise."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """The one seed of the run: cohort, splits, training, generation and resampling derive theirs from it."""
    anyway: bool = False
    """Go on after ingest where the cohort is too small to pass the gate, as ``--anyway`` does: to see what comes out, not to release it."""
    ingest: IngestConfig
    train: TrainConfig | None = None
    """Left out for a foreign set, whose generator is somebody else's (``generate.import_from``): no weights are judged then."""
    generate: GenerateConfig
    shadows: ShadowsConfig = ShadowsConfig()
    audit: AuditConfig = AuditConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    stress: StressConfig = StressConfig()
    review: ReviewConfig = ReviewConfig()
    release: ReleaseConfig = ReleaseConfig()

    @property
    def foreign(self) -> bool:
        """Whether the synthetic images are somebody else's, made after ``ingest.path`` by a generator that never saw ``ingest.holdout``."""
        return self.train is None

    @property
    def judged_by_classifiers(self) -> bool:
        """Whether there are classes to tell apart, and real images beside ``audit`` to train and to test classifiers on."""
        return not self.foreign or (not self.ingest.unlabelled and self.ingest.holdout is not None and self.ingest.val_share > 0)

    @model_validator(mode="after")
    def _fits_together(self) -> Config:
        ingest, own = self.ingest, self.generate.import_from is None
        if self.train is None and own:
            raise ValueError("train is missing: give the section, or generate.import_from to judge a set that is there already")
        if self.train is not None and not own:
            raise ValueError("generate.import_from takes images as they are: leave out the section train")
        if self.shadows.trainings and self.train is None:
            raise ValueError("shadows.trainings repeats the run's own training, and a foreign set has none: leave it out")
        if self.shadows.trainings and self.generate.autoguidance is not None:
            raise ValueError(
                "shadows.trainings cannot repeat generate.autoguidance, whose guide knows the run's own patients: leave one of them out"
            )
        if own and (ingest.holdout is not None or ingest.label_table is not None or ingest.unlabelled):
            raise ValueError("ingest.holdout, label_table and unlabelled belong to a foreign set: give generate.import_from")
        if own and self.audit.holdout_random:
            raise ValueError("audit.holdout_random belongs to a foreign set: this program draws who is sealed by itself")
        if not own and ingest.source not in ("dicom", "pictures"):
            raise ValueError("generate.import_from goes with ingest.source dicom or pictures: a folder of what its generator saw")
        if not own and (ingest.several_findings or ingest.attributes):
            raise ValueError("generate.import_from goes with one class an image: leave out ingest.several_findings and ingest.attributes")
        if ingest.multi_label and self.train is not None and self.train.backbone == "monai":
            raise ValueError("train.backbone monai is told of one class an image, and this cohort has several findings: leave it out")
        if ingest.holdout is None and not ingest.val_share * ingest.test_share:
            raise ValueError("ingest.val_share and ingest.test_share may be 0 with an ingest.holdout alone: keep them above 0")
        return self
