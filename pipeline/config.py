"""Typed, frozen run configuration: one model a stage, read from one commented YAML file.

Unknown keys, duplicate keys and values of the wrong type are errors, reported together in one line. YAML is read by the
1.2 rules for booleans: only ``true`` and ``false`` are booleans, so that a class called ``no`` or ``on`` stays a string.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pipeline.errors import InputError
from pipeline.release.gate import MAX_COPY_RATE

Fraction = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """One part of a configuration: frozen, and closed to unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class QueryConfig(Section):
    """What is asked of a PACS over DICOMweb; every criterion narrows the answer."""

    url: str
    """Root of the DICOMweb service, such as ``https://pacs.example.org/dicom-web``. A user and a password come from the environment
    (SYNTHCOHORT_DICOMWEB_USER, SYNTHCOHORT_DICOMWEB_PASSWORD), never from here."""
    modality: str
    """Modality of the series, such as ``DX``."""
    dates: Annotated[str, Field(pattern=r"^\d{8}(-\d{8})?$")] | None = None
    """Study dates, ``YYYYMMDD`` or ``YYYYMMDD-YYYYMMDD``."""
    body_part: str | None = None
    """Body Part Examined, such as ``CHEST``."""


class IngestConfig(Section):
    """What is read, at which size, and how patients are split."""

    source: Literal["phantom", "dicom", "dicomweb", "nifti", "pictures", "medmnist"]
    """Where the images come from: the embedded phantom, a folder of DICOM files, a PACS, a folder of NIfTI volumes, a folder of PNG, JPEG
    or TIFF pictures, or a MedMNIST data set."""
    path: Path | None = None
    """The folder of the files. dicomweb: the folder with the label table. medmnist: the folder with the ``.npz`` (by default the medmnist
    package's own root)."""
    query: QueryConfig | None = None
    """dicomweb: where the PACS is, and what is asked of it."""
    dataset: str | None = None
    """medmnist: the data set's flag, such as ``breastmnist``."""
    labels: str = "labels.csv"
    """A CSV inside ``path`` with a column ``file``, ``sop_instance_uid``, ``series_instance_uid`` or ``patient_id``, and a column
    ``label``; a table by file may have ``patient_id`` too. pictures: where there is none, the folder of a picture names its class."""
    label_field: str | None = None
    """dicom, dicomweb: an attribute whose value is the class, such as ``BodyPartExamined``, instead of a table."""
    several_findings: bool = False
    """Whether an image can have several findings, or none: ``labels`` then has a column for each class, with 1, 0 or -1 (unknown)."""
    classes: tuple[str, ...] | None = None
    """The class names in order; a label that is none of them is an error. phantom, medmnist: the data set's own classes."""
    dimensions: Literal[2, 3] | None = None
    """2: every image or frame by itself; 3: volumes, which dicom assembles from series. By default 3 for nifti and for MedMNIST's 3-D sets,
    otherwise 2."""
    size: Annotated[int, Field(ge=16, le=512)] = 32
    """Side of the square images, or cubic volumes, that the pipeline works on, in pixels."""
    spacing: Annotated[float, Field(gt=0)] | None = None
    """Millimetres between pixels; by default each image is scaled so that its longer side fills the square."""
    colour: bool = False
    """Three channels instead of luminance. MedMNIST's colour sets always have three."""
    bits: Literal[8, 16] = 8
    """Bits of each value; 16 keeps what the source has beyond 8."""
    scaling: dict[str, Literal["header", "percentile"] | tuple[float, float]] = Field(default_factory=dict)
    """Display range by modality, such as ``CT: [-160, 240]`` or ``MR: percentile``: a window in the modality's units, the percentiles .5
    and 99.5 of each image, or ``header``, the default: the file's own window, percentiles where it has none."""
    modality: str | None = None
    """nifti, pictures: the DICOM modality of the images, such as ``CT``, which the files do not say."""
    burned_in: Literal["strict", "search", "declared"] = "strict"
    """Which images are left out for text in their pixels. strict: what declares text, what is of a kind that nearly always has it
    (ultrasound, photographs, secondary captures) and does not deny it, and where a search of the pixels finds text; search: the pixels
    decide on such kinds; declared: only what the header declares. MedMNIST is not searched: it is published without text."""
    phantom_patients: Annotated[int, Field(ge=1)] = 1000
    """phantom: how many patients to draw; each has one to four images."""
    audit_share: Fraction = 1 / 3
    """Share of train + audit that is sealed from training and used as non-members; the audit's power hangs on it."""
    val_share: Fraction = 0.15
    """Share of all patients used to select and to fit encoders (a data set's official split wins)."""
    test_share: Fraction = 0.2
    """Share of all patients that is reported once (a data set's official split wins)."""

    @property
    def volumes(self) -> bool:
        """Whether the images are three-dimensional."""
        if self.source == "medmnist":
            return str(self.dataset).endswith("3d")
        return (self.dimensions or (3 if self.source == "nifti" else 2)) == 3

    @property
    def multi_label(self) -> bool:
        """Whether an image can have several findings, or none."""
        return self.several_findings or self.dataset == "chestmnist"

    def not_trainable(self) -> str | None:
        """Why the stages after ingest cannot use the cohort; None where they can."""
        which = [(self.volumes, "3-D volumes"), (self.bits == 16, "16-bit images"), (self.multi_label, "images with several findings")]
        found = [name for holds, name in which if holds]
        if not found:
            return None
        return f"this configuration ingests {' and '.join(found)}; the stages after ingest take 2-D 8-bit images with one class each"

    @model_validator(mode="after")
    def _needs(self) -> IngestConfig:
        folder, given = self.source in ("dicom", "nifti", "pictures"), f"when ingest.source is {self.source}"
        if (folder or (self.source == "dicomweb" and self.label_field is None)) and self.path is None:
            raise ValueError(f"ingest.path is needed {given}: give --set ingest.path=FOLDER")
        if (folder or self.source == "dicomweb") and not self.classes:
            raise ValueError(f"ingest.classes is needed {given}: name the classes of the label column")
        if self.source == "dicomweb" and self.query is None:
            raise ValueError(f"ingest.query is needed {given}: give its url and modality")
        if self.source == "medmnist" and self.dataset is None:
            raise ValueError("ingest.dataset is needed when ingest.source is medmnist, such as breastmnist")
        if self.label_field is not None and (self.source not in ("dicom", "dicomweb") or self.several_findings):
            raise ValueError("ingest.label_field goes with ingest.source dicom or dicomweb, and with one class an image")
        if (self.source, self.dimensions) in (("nifti", 2), ("pictures", 3), ("phantom", 3)):
            raise ValueError(f"ingest.dimensions {self.dimensions} does not go with ingest.source {self.source}: leave it out")
        if self.source == "medmnist" and (self.bits == 16 or self.colour or self.spacing or self.scaling or self.several_findings):
            raise ValueError(
                "ingest.bits, colour, spacing, scaling and several_findings do not go with MedMNIST: its images come as they are"
            )
        if any(not isinstance(how, str) and how[0] >= how[1] for how in self.scaling.values()):
            raise ValueError("ingest.scaling: a window is [low, high], with low under high")
        if self.val_share + self.test_share >= 0.9:
            raise ValueError("ingest.val_share + ingest.test_share leave too little to train on: keep their sum under 0.9")
        return self


class TrainConfig(Section):
    """The network and how it is trained."""

    images: Positive
    """Length of training, in images drawn (with repetition) from the training split."""
    batch: Positive = 64
    """Images in one optimiser step."""
    accumulate: Positive = 1
    """Forward and backward passes that share one optimiser step, each with batch / accumulate images: for a batch that does not fit."""
    backbone: Literal["unet", "monai"] = "unet"
    """The network: the project's own, or MONAI's DiffusionModelUNet (which knows neither dropout nor told augmentation: set both to 0)."""
    widths: tuple[Positive, ...] = (64, 128)
    """Channels of the U-Net at each resolution, finest first; each level halves the side."""
    blocks: Positive = 2
    """Residual blocks at each resolution."""
    patch: Literal[1, 2, 4] = 2
    """Side of the pixel-unshuffle at the input: the network works at size / patch."""
    upsample: Literal["convolve", "shuffle"] = "convolve"
    """How the decoder doubles its grid: nearest neighbour and a 3 x 3 convolution, or a 2 x 2 transposed one, which is cheaper."""
    attention: tuple[Positive, ...] = (8,)
    """Sides (in the network's own grid) at which self-attention follows each block."""
    objective: Literal["edm", "epsilon", "x0", "v", "flow"] = "edm"
    """What the network predicts; every sampler works with all of them."""
    noise_schedule: Literal["edm", "ddpm_linear", "ddpm_cosine", "sigmoid", "flow"] = "edm"
    """Which noise levels are trained on."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Dropout inside the residual blocks, the finest of several resolutions left out."""
    label_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Probability, for each image, that its label is replaced by the learned null class (classifier-free guidance)."""
    augment: Annotated[float, Field(ge=0, le=1)] = 0.12
    """Probability of each geometric augmentation; the network is told of them, so that they do not leak."""
    balance: Annotated[float, Field(ge=0, le=1)] = 0.5
    """How far class sampling is evened out: 0 draws images at their own prevalence, 1 draws every class equally often."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    """Peak learning rate."""
    plateau: Annotated[int, Field(ge=0)] = 0
    """Images after which the learning rate falls with the inverse square root of the images seen (EDM2); 0 for never."""
    decay: Annotated[float, Field(ge=0, le=1)] = 0.4
    """Last share of the training over which the learning rate falls to 0; with 0, every moment is as good a place to stop as the end."""
    ema: Annotated[float, Field(gt=0, lt=0.28)] = 0.1
    """Width of the power-function EMA relative to the training length (EDM2's sigma_rel)."""
    ema_snapshots: Annotated[int, Field(ge=0)] = 0
    """Moments, evenly spaced, at which two averages are stored, so that ``generate.ema`` can choose any other width after training."""
    compile: bool = False
    """Compile the network, and on a GPU replay each step as one CUDA graph (worth it for minutes of training or more)."""
    checkpointing: bool = False
    """Compute the blocks' activations again in the backward pass instead of keeping them: less memory, a third more work."""
    checkpoint_images: Positive = 20_000
    """Images between two checkpoints."""
    start_from: Path | None = None
    """Warm start: another run's ``train`` folder, or a ``.safetensors`` file of the same network (MONAI's own for its backbone). The run
    must show, under the same project key, that it was trained on patients of this run's train split alone, or on none of this cohort."""
    start_trained_on: Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]{8,300}$")] | None = None
    """Warm start from weights without a run, such as published ones: on what they were trained, in a sentence. Giving it declares that none
    of this cohort's patients was among it; nobody can verify that, and the release says so."""
    start_classes: dict[str, str] = {}
    """Warm start: this run's class to the earlier run's, where the names differ; equal names need no entry."""
    frozen: tuple[str, ...] = ()
    """Parts that keep their first weights, as the beginnings of parameter names, such as ``network.down``."""

    @model_validator(mode="after")
    def _fits_together(self) -> TrainConfig:
        if self.batch % self.accumulate:
            raise ValueError(f"train.batch {self.batch} is not a multiple of train.accumulate {self.accumulate}")
        if self.backbone == "monai" and (self.augment or self.dropout or self.checkpointing or self.upsample != "convolve"):
            raise ValueError(
                "train.backbone monai needs train.augment=0, train.dropout=0, train.checkpointing=false and train.upsample=convolve: "
                "it knows none of them"
            )
        if (self.start_classes or self.frozen or self.start_trained_on) and self.start_from is None:
            raise ValueError("train.start_classes, start_trained_on and frozen belong to a warm start: give train.start_from too")
        return self


class GenerateConfig(Section):
    """How many images are made, and how."""

    per_class: Positive
    """Images generated of every class."""
    steps: Positive = 12
    """Steps from noise to image; each is one network evaluation (two with heun, but for the last)."""
    sampler: Literal["ddpm", "ddim", "euler", "heun", "dpmpp_2m", "dpmpp_2m_sde", "unipc"] = "dpmpp_2m"
    """Sampler; ddpm, dpmpp_2m_sde and ddim with eta > 0 add noise at every step."""
    noise_schedule: Literal["edm", "ddpm_linear", "ddpm_cosine", "sigmoid", "flow"] = "edm"
    """Schedule of the noise levels that the sampler visits, up to 160 times the data's standard deviation."""
    levels: tuple[float, float] = (0.004, 160.0)
    """Lowest and highest noise level that sampling visits, in units of the data's standard deviation. A highest one below 160 starts on a
    mixture of Gaussians of each class's training images under so much noise: [0.02, 8] saves half of the steps on 8-bit images. The lowest
    one counts for the schedule ``edm`` alone."""
    eta: Annotated[float, Field(ge=0, le=1)] = 0.0
    """ddim: how much of each step's noise is drawn anew; 0 is deterministic, 1 is ddpm."""
    guidance_scale: Annotated[float, Field(ge=0)] = 1.0
    """Guidance weight w in D_0 + w (D - D_0), D_0 being the unconditional model unless said otherwise below: 1 is no guidance."""
    guidance_interval: tuple[float, float] = (0.3, 30.0)
    """Noise levels between which guidance acts, in units of the data's standard deviation; outside, the plain conditional model is used."""
    negative_class: str | None = None
    """Class to lead away from, instead of the unconditional model (images of that class itself are left unguided)."""
    autoguidance: Path | None = None
    """Train folder of another run on the same ingest, such as a shorter or smaller training, to lead away from (autoguidance)."""
    ema: Annotated[float, Field(gt=0, lt=0.28)] | None = None
    """Width of the weights' average, solved from the averages that training stored; by default the weights as trained."""
    batch: Positive = 100
    """Images generated together; no image depends on it beyond floating-point rounding."""
    compile: bool = False
    """On a GPU: compile the network and replay the sampling of a batch as one CUDA graph (worth it for many batches)."""

    @model_validator(mode="after")
    def _fits_together(self) -> GenerateConfig:
        if self.eta > 0 and self.sampler != "ddim":
            raise ValueError(f"generate.eta is ddim's: leave it at 0 with the sampler {self.sampler}, or choose generate.sampler=ddim")
        if not 0 <= self.guidance_interval[0] < self.guidance_interval[1]:
            raise ValueError("generate.guidance_interval is the lowest and the highest level, in this order and not below 0")
        if not 0 < self.levels[0] < self.levels[1] <= 160:
            raise ValueError("generate.levels is the lowest and the highest level, in this order, above 0 and up to 160")
        if self.negative_class is not None and self.autoguidance is not None:
            raise ValueError("generate.negative_class and generate.autoguidance exclude each other: guidance leads away from one of them")
        if self.guidance_scale == 1 and (self.negative_class is not None or self.autoguidance is not None):
            raise ValueError("generate.guidance_scale is 1, which is no guidance: set it above 1 to lead away from anything")
        if self.guidance_scale < 1 and self.autoguidance is not None:
            raise ValueError("generate.guidance_scale below 1 makes images of the other run's model: autoguidance needs one above 1")
        return self


class AuditConfig(Section):
    """How much work the audit puts into its attacks and its power."""

    encoder_images: Positive = 30_000
    """Images (pairs of views) seen in training the copy-detection encoder."""
    planted: Annotated[int, Field(ge=20)] = 100
    """Copies planted for each kind of transformation to measure the search's power."""
    membership_draws: Positive = 4
    """Noise draws for each noise level of the membership attack."""


class EvaluateConfig(Section):
    """How much work the evaluation puts into its classifiers."""

    seeds: Annotated[int, Field(ge=2)] = 3
    """Independent trainings of each downstream classifier."""
    classifier_images: Positive = 8_000
    """Images seen in one training of a downstream classifier."""
    classifier: Literal["small", "resnet18"] = "small"
    """Network of the downstream and two-sample classifiers: a small residual network for a CPU, or ResNet-18."""


class StressConfig(Section):
    """How much work the stress test puts into its classifier."""

    classifier_images: Positive = 8_000
    """Images seen in training the ResNet-18 that is put under stress."""


class ReleaseConfig(Section):
    """What a release says of itself."""

    title: str = "Synthetic cohort"
    """Title of the data card."""
    licence: str = "unspecified"
    """Licence under which the synthetic images are released, as an SPDX identifier."""
    contact: str = "unspecified"
    """Whom a user of the release may ask."""
    max_copy_rate: Annotated[float, Field(gt=0)] | None = None
    """A stricter upper bound on the share of copies than the gate's own; a laxer one is refused."""

    @model_validator(mode="after")
    def _only_tightens(self) -> ReleaseConfig:
        if self.max_copy_rate is not None and self.max_copy_rate > MAX_COPY_RATE:
            raise ValueError(f"release.max_copy_rate {self.max_copy_rate} is laxer than the gate's {MAX_COPY_RATE}: only tighten it")
        return self


class Config(Section):
    """A whole run."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
    """Name of the run; its folder is ``runs/<name>`` unless ``--out`` says otherwise."""
    seed: Annotated[int, Field(ge=0)] = 0
    """The one seed of the run: cohort, splits, training, generation and resampling derive theirs from it."""
    ingest: IngestConfig
    train: TrainConfig
    generate: GenerateConfig
    audit: AuditConfig = AuditConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    stress: StressConfig = StressConfig()
    release: ReleaseConfig = ReleaseConfig()


class _Loader(yaml.SafeLoader):
    """YAML without surprises: duplicate keys are errors, and only true and false are booleans."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise InputError(f"the key {key!r} appears twice (line {node.start_mark.line + 1}): keep one of them")
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|false)$"), ["t", "f"])


def shipped() -> list[str]:
    """Names of the configurations that travel with the package."""
    return sorted(entry.name.removesuffix(".yaml") for entry in resources.files("configs").iterdir() if entry.name.endswith(".yaml"))


def load_config(config: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a configuration: a path to a YAML file, or the name of a shipped one.

    Args:
        config: a file, or a name of :func:`shipped`.
        overrides: ``section.key=value`` strings as ``--set`` gives them; the value is read as YAML.

    Raises:
        InputError: no such configuration, a key or value that the models do not allow (all of them in one line).
    """
    data = _read(config)
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals:
            raise InputError(f"--set {override!r} is not KEY=VALUE: write it as --set train.batch=64")
        *parents, leaf = key.split(".")
        section = data
        for parent in parents:
            section = section.setdefault(parent, {})
            if not isinstance(section, dict):
                raise InputError(f"--set {override!r}: {parent} is not a section")
        section[leaf] = _parse(value, f"--set {override}")
    try:
        return Config.model_validate(data)
    except ValidationError as error:
        raise InputError(f"{config}: {_one_line(error)}") from None


def _read(config: str | Path) -> dict[str, Any]:
    path = Path(config)
    if path.is_file():
        text = path.read_text(encoding="utf-8")
    elif str(config) in shipped():
        text = (resources.files("configs") / f"{config}.yaml").read_text(encoding="utf-8")
    else:
        raise InputError(f"no configuration {str(config)!r}: give a YAML file, or one of {', '.join(shipped())}")
    data = _parse(text, str(config))
    if not isinstance(data, dict):
        raise InputError(f"{config}: not a mapping of sections; see the shipped configs for the layout")
    return data


def _parse(text: str, where: str) -> Any:
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" at line {mark.line + 1}" if mark else ""
        raise InputError(f"{where}: not valid YAML{line}: {getattr(error, 'problem', error)}") from None
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def _one_line(error: ValidationError) -> str:
    problems = []
    for item in error.errors():
        where = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            problems.append(f"unknown key {where}")
        elif item["type"] == "missing":
            problems.append(f"{where} is missing")
        elif item["type"] == "value_error":
            problems.append(str(item["ctx"]["error"]))
        else:
            problems.append(f"{where}: {item['msg'][0].lower()}{item['msg'][1:]}, got {item['input']!r}")
    return "; ".join(problems)
