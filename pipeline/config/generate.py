"""The section ``generate``: how many images are made, and how."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from pipeline.config.ingest import LONGEST, ClassName
from pipeline.config.section import LETTERS, Batch, Location, Section, unit

Deviations = Annotated[float, unit("in standard deviations")]


def _text(value: Any) -> Any:
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


class Asked(Section):
    """Images of one kind that are made. What is not named is left open."""

    findings: tuple[ClassName, ...] = ()
    """Findings that they have; of a model with one class an image, the class."""
    without: tuple[ClassName, ...] = ()
    """Findings that they do not have: asked to be absent or, where an image has one class, the class that guidance leads away from."""
    attributes: dict[Annotated[str, Field(max_length=LONGEST)], Annotated[str, Field(max_length=LONGEST), BeforeValidator(_text)]] = Field(
        default_factory=dict
    )
    """Attributes, such as ``{sex: F, severity: 0.8}``."""
    text: Annotated[str, Field(max_length=LETTERS)] = ""
    """What a report of theirs would say, such as ``small left pleural effusion``, in words that the training images' reports had."""
    without_text: Annotated[str, Field(max_length=LETTERS)] = ""
    """A text that guidance leads away from."""
    count: Annotated[int, Field(ge=1, le=1_000_000), unit("images")]
    """How many."""
    extrapolate: bool = False
    """Make them even where too few training patients had such findings and values of attributes together, or such a word; they are
    marked."""

    @model_validator(mode="after")
    def _not_both(self) -> Asked:
        asked, denied = (
            [*map(_words, names), _words(text)] for names, text in ((self.findings, self.text), (self.without, self.without_text))
        )
        if both := [words for words in asked if words and words in denied]:
            raise ValueError(f"{' '.join(both[0])} is asked for and denied at once: name it once")
        return self


class GenerateConfig(Section):
    """How many images are made, and how."""

    import_from: Location | None = None
    """A foreign set instead of a trained model's: a folder of pictures or DICOM files, an ``.npz`` in MedMNIST's layout (its labels are
    places in ``ingest.classes``), or a release of ours. Labels are found as those of ``ingest.path`` are. No other setting goes with it."""
    per_class: Annotated[int, Field(ge=1, le=1_000_000), unit("images")] | None = None
    """Images generated of every class; needed, but for a foreign set or a plan. Where an image can have several findings, it is images of
    each finding and of none, rare ones first, in the combinations that training images had."""
    plan: tuple[Asked, ...] = ()
    """Instead of `per_class`, what images are made of: a list such as ``[{findings: [effusion], without: [cardiomegaly], attributes: {sex:
    F}, count: 200}]``."""
    steps: Annotated[int, Field(ge=1, le=10_000), unit("steps")] = 12
    """Steps from noise to image; each is one network evaluation (two with heun, but for the last)."""
    sampler: Literal["ddpm", "ddim", "euler", "heun", "dpmpp_2m", "dpmpp_2m_sde", "unipc"] = "dpmpp_2m"
    """Sampler; ddpm, dpmpp_2m_sde and ddim with eta > 0 add noise at every step."""
    noise_schedule: Literal["edm", "ddpm_linear", "ddpm_cosine", "sigmoid", "flow"] = "edm"
    """Schedule of the noise levels that the sampler visits, up to 160 times the data's standard deviation."""
    levels: tuple[Deviations, Deviations] = (0.004, 160.0)
    """Lowest and highest noise level that sampling visits, in units of the data's standard deviation. A highest one below 160 starts on a
    mixture of Gaussians of each class's training images under so much noise: [0.02, 8] saves half of the steps on 8-bit images. The lowest
    one counts for the schedule ``edm`` alone."""
    eta: Annotated[float, Field(ge=0, le=1), unit("as a share")] = 0.0
    """ddim: how much of each step's noise is drawn anew; 0 is deterministic, 1 is ddpm."""
    guidance_scale: Annotated[float, Field(ge=0, le=100)] = 1.0
    """Guidance weight w in D_0 + w (D - D_0), D_0 being the unconditional model unless said otherwise below: 1 is no guidance."""
    guidance_interval: tuple[Deviations, Deviations] = (0.3, 30.0)
    """Noise levels between which guidance acts, in units of the data's standard deviation; outside, the plain conditional model is used."""
    weights: dict[str, Annotated[float, Field(ge=-100, le=100)]] = Field(default_factory=dict)
    """Findings (where an image can have several) and attributes that weigh more by themselves, such as ``{effusion: 2}``: w (D_i - D_0) is
    added, D_i being the model asked for this one and nothing else. Below 0 leads away from what an image is asked for."""
    negative_class: str | None = None
    """Class to lead away from, instead of the unconditional model (images of that class itself are left unguided)."""
    autoguidance: Location | None = None
    """Train folder of another run on the same ingest, such as a shorter or smaller training, to lead away from (autoguidance)."""
    ema: Annotated[float, Field(ge=0.001, lt=0.28), unit("of the training")] | None = None
    """Width of the weights' average, solved from the averages that training stored; by default that of `train.ema`."""
    batch: Batch = 100
    """Images generated together; no image depends on it beyond floating-point rounding."""
    compile: bool = False
    """On a GPU: compile the network and replay the sampling of a batch as one CUDA graph, where enough images are asked for."""

    def images(self, classes: int, several: bool) -> int | None:
        """How many images are made for so many classes; None where it hangs on which findings the training images have together."""
        if self.plan:
            return sum(one.count for one in self.plan)
        return None if self.per_class is None or several else self.per_class * classes

    @model_validator(mode="after")
    def _fits_together(self) -> GenerateConfig:
        if self.import_from is not None and (others := sorted(self.model_fields_set - {"import_from"})):
            raise ValueError(f"generate.import_from takes images as they are: leave out {', '.join(f'generate.{name}' for name in others)}")
        if self.import_from is None and (self.per_class is None) == (not self.plan):
            raise ValueError(
                "generate.per_class is missing" if not self.plan else "generate.per_class and generate.plan exclude each other"
            )
        if self.eta > 0 and self.sampler != "ddim":
            raise ValueError(f"generate.eta is ddim's: leave it at 0 with the sampler {self.sampler}, or choose generate.sampler=ddim")
        if not 0 <= self.guidance_interval[0] < self.guidance_interval[1]:
            raise ValueError("generate.guidance_interval is the lowest and the highest level, in this order and not below 0")
        if not 0 < self.levels[0] < self.levels[1] <= 160:
            raise ValueError("generate.levels is the lowest and the highest level, in this order, above 0 and up to 160")
        if self.negative_class is not None and self.autoguidance is not None:
            raise ValueError("generate.negative_class and generate.autoguidance exclude each other: guidance leads away from one of them")
        if self.weights and self.autoguidance is not None:
            raise ValueError("generate.weights and generate.autoguidance exclude each other: weights compose what one model is asked for")
        if self.guidance_scale == 1 and (self.negative_class is not None or self.autoguidance is not None):
            raise ValueError("generate.guidance_scale is 1, which is no guidance: set it above 1 to lead away from anything")
        if self.guidance_scale < 1 and self.autoguidance is not None:
            raise ValueError("generate.guidance_scale below 1 makes images of the other run's model: autoguidance needs one above 1")
        return self
