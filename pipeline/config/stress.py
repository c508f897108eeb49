"""The section ``stress``: which classifiers are put under stress, and how much work goes into it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints, model_validator

from pipeline.config.section import LETTERS, Images, Location, Section, unit

ModelName = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=LETTERS)]


class StressConfig(Section):
    """Which classifiers are put under stress, and how much work goes into it: always the evaluation's real-trained ones, and with ``model``
    somebody's own on the same test patients, as ``synthcohort stress`` does."""

    images: Images = 400
    """Test images that every corruption is tried on, at the most; rare classes are kept whole."""
    model: ModelName | None = None
    """A model of yours that is put under stress on the run's test patients: ONNX (`.onnx`), TorchScript (`.pt`), torch.export (`.pt2`) or
    `module:callable`. What is found lies in `stress/model/`, with `stress.html` to be read first."""
    against: ModelName | None = None
    """A second model, compared with ``model`` on the same patients."""
    contract: Location | None = None
    """A YAML file that says what ``model`` takes; by default the one beside it with the suffix `.yaml`."""
    against_contract: Location | None = None
    """The same of ``against``; by default the one beside it, or that of ``model``."""
    rules: Location | None = None
    """A YAML list of acceptance rules for ``model``, such as `sensitivity(effusion) >= 0.85 at blur 2`."""
    memory: Annotated[float, Field(gt=0, le=1e6), unit("GiB")] = 8.0
    """What a model's process may hold."""
    seconds: Annotated[float, Field(gt=0, le=1e6), unit("seconds")] = 2.0
    """For an answer of a model's to one image, on average."""

    @model_validator(mode="after")
    def _fits_together(self) -> StressConfig:
        fields = type(self).model_fields
        others = sorted(name for name in fields.keys() - {"model", "images"} if getattr(self, name) != fields[name].default)
        if self.model is None and others:
            raise ValueError(f"stress.{others[0]} belongs to a model of yours: give stress.model")
        if self.against is None and self.against_contract is not None:
            raise ValueError("stress.against_contract belongs to a second model: give stress.against")
        return self
