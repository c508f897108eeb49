"""The section ``train``: the network and how it is trained."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from pipeline.config.section import AUTO, Batch, Fitted, Images, Location, Section, unit

Channels = Annotated[int, Field(ge=1, le=8192), unit("channels")]


class TrainConfig(Section):
    """The network and how it is trained."""

    images: Fitted[Images] | None = None
    """Length of training, in images drawn (with repetition) from the training split. `auto` keeps the last moment before the losses on
    training and on unseen patients part, and leaves widths, dropout and augment to the cohort where they are not given."""
    minutes: Annotated[float, Field(gt=0, le=100_000), unit("minutes")] | None = None
    """Length of training in minutes, instead of `images`: some steps are timed, and the images that follow are recorded. Leaves widths,
    dropout and augment to the cohort where they are not given."""
    batch: Batch = 64
    """Images in one optimiser step."""
    accumulate: Annotated[int, Field(ge=1, le=65_536), unit("passes")] = 1
    """Forward and backward passes that share one optimiser step, each with batch / accumulate images: for a batch that does not fit."""
    backbone: Literal["unet", "monai"] = "unet"
    """The network: the project's own, or MONAI's DiffusionModelUNet (which knows neither dropout nor told augmentation: set both to 0)."""
    widths: Fitted[Annotated[tuple[Channels, ...], Field(min_length=1, max_length=8)]] = (64, 128)
    """Channels of the U-Net at each resolution, finest first; each level halves the side. `auto` fits them to the cohort."""
    blocks: Annotated[int, Field(ge=1, le=32), unit("blocks")] = 2
    """Residual blocks at each resolution."""
    patch: Literal[1, 2, 4] = 2
    """Side of the pixel-unshuffle at the input: the network works at size / patch."""
    upsample: Literal["convolve", "shuffle"] = "convolve"
    """How the decoder doubles its grid: nearest neighbour and a 3 x 3 convolution, or a 2 x 2 transposed one, which is cheaper."""
    attention: Annotated[tuple[Annotated[int, Field(ge=1, le=512), unit("pixels")], ...], Field(max_length=8)] = (8,)
    """Sides (in the network's own grid) at which self-attention follows each block."""
    objective: Literal["edm", "epsilon", "x0", "v", "flow"] = "edm"
    """What the network predicts; every sampler works with all of them."""
    noise_schedule: Literal["edm", "ddpm_linear", "ddpm_cosine", "sigmoid", "flow"] = "edm"
    """Which noise levels are trained on."""
    dropout: Fitted[Annotated[float, Field(ge=0, lt=1), unit("as a probability")]] = 0.1
    """Dropout inside the residual blocks, the finest of several resolutions left out. `auto` fits it to the cohort."""
    attributes: tuple[str, ...] = ()
    """What the model is told of, and can be asked for, beside findings: names of ``ingest.attributes``, or of the columns ``view``,
    ``laterality``, ``site``, ``sex``, ``age_band`` and ``acquisition``. Texts that fewer than 11 training patients have stay unknown."""
    text: bool = False
    """Whether the model reads the images' reports too (``ingest.report``), by cross-attention, and can be given a text to draw."""
    label_dropout: Annotated[float, Field(ge=0, lt=1), unit("as a probability")] = 0.1
    """Probability, for each image, that its label is replaced by the learned null class (classifier-free guidance); with several
    findings, attributes or a text, that all of them are; otherwise any number of them is kept, each as often. 0 keeps all always."""
    augment: Fitted[Annotated[float, Field(ge=0, le=1), unit("as a probability")]] = 0.12
    """Probability of each geometric augmentation; the network is told of them, so that they do not leak. `auto` fits it to the cohort."""
    balance: Annotated[float, Field(ge=0, le=1), unit("as a share")] = 0.5
    """How far class sampling is evened out: 0 draws images at their own prevalence, 1 draws every class equally often."""
    learning_rate: Annotated[float, Field(ge=1e-8, le=1)] = 1e-3
    """Peak learning rate."""
    plateau: Annotated[int, Field(ge=0, le=10**9), unit("images")] = 0
    """Images after which the learning rate falls with the inverse square root of the images seen (EDM2); 0 for never."""
    decay: Annotated[float, Field(ge=0, le=1), unit("of the training")] = 0.4
    """Last share of the training over which the learning rate falls to 0; with 0, every moment is as good a place to stop as the end,
    which is the default where `images` is `auto`."""
    ema: Annotated[float, Field(ge=0.001, lt=0.28), unit("of the training")] = 0.1
    """Width of the power-function EMA relative to the training length (EDM2's sigma_rel)."""
    ema_snapshots: Annotated[int, Field(ge=0, le=1000), unit("moments")] = 0
    """Moments, evenly spaced, at which two averages are stored, so that ``generate.ema`` can choose any other width after training."""
    compile: bool = False
    """Compile the network, and on a GPU replay each step as one CUDA graph (worth it for minutes of training or more)."""
    checkpointing: bool = False
    """Compute the blocks' activations again in the backward pass instead of keeping them: less memory, a third more work."""
    checkpoint_images: Images = 20_000
    """Images between two checkpoints."""
    start_from: Location | None = None
    """Warm start: another run's ``train`` folder, or a ``.safetensors`` file of the same network (MONAI's own for its backbone). The run
    must show, under the same project key, that it was trained on patients of this run's train split alone, or on none of this cohort."""
    start_trained_on: Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]{8,300}$")] | None = None
    """Warm start from weights without a run, such as published ones: on what they were trained, in a sentence. Giving it declares that none
    of this cohort's patients was among it; nobody can verify that, and the release says so."""
    start_classes: dict[str, str] = Field(default_factory=dict)
    """Warm start: this run's class to the earlier run's, where the names differ; equal names need no entry."""
    frozen: tuple[str, ...] = ()
    """Parts that keep their first weights, as the beginnings of parameter names, such as ``network.down``."""

    @property
    def unfitted(self) -> tuple[str, ...]:
        """The settings that are left to the cohort."""
        return tuple(name for name in ("images", "widths", "dropout", "augment") if getattr(self, name) == AUTO)

    @property
    def length(self) -> int:
        """``images``, of a section that leaves nothing to the cohort any more."""
        assert isinstance(self.images, int)
        return self.images

    @model_validator(mode="before")
    @classmethod
    def _left_to_the_cohort(cls, data: Any) -> Any:
        """Who gives no length gives none of what depends on it, unless by name."""
        if not isinstance(data, dict) or (data.get("images") != AUTO and data.get("minutes") is None):
            return data
        return {"widths": AUTO, "dropout": AUTO, "augment": AUTO} | ({"decay": 0.0} if data.get("images") == AUTO else {}) | data

    @model_validator(mode="after")
    def _has_a_length(self) -> TrainConfig:
        if (self.images is None) == (self.minutes is None):
            raise ValueError("train.images (a number, or auto) or train.minutes says how long: give one of them, and null for the other")
        if self.images == AUTO and self.ema_snapshots:
            raise ValueError("train.ema_snapshots are moments of a length that is known: give train.images a number, or leave them out")
        return self

    @model_validator(mode="after")
    def _fits_together(self) -> TrainConfig:
        if self.batch % self.accumulate:
            raise ValueError(f"train.batch {self.batch} is not a multiple of train.accumulate {self.accumulate}")
        told = any(value not in (0, AUTO) for value in (self.augment, self.dropout))
        if self.backbone == "monai" and (told or self.checkpointing or self.upsample != "convolve"):
            raise ValueError(
                "train.backbone monai needs train.augment=0, train.dropout=0, train.checkpointing=false and train.upsample=convolve: "
                "it knows none of them"
            )
        if self.backbone == "monai" and (self.attributes or self.text):
            raise ValueError("train.attributes and text do not go with train.backbone monai, which is told of one class an image")
        if (self.start_classes or self.frozen or self.start_trained_on) and self.start_from is None:
            raise ValueError("train.start_classes, start_trained_on and frozen belong to a warm start: give train.start_from too")
        return self
