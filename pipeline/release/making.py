"""How the images of a run came to be, in sentences: what the cards and the report say of network, training and sampling."""

from __future__ import annotations

from pipeline.release.results import Results, counted, dig, number

BACKBONES = {"unet": "U-Net of this project", "monai": "DiffusionModelUNet of MONAI"}
OBJECTIVES = {
    "edm": "preconditioned as EDM (Karras et al. 2022)",
    "epsilon": "trained to predict the noise (Ho et al. 2020)",
    "x0": "trained to predict the image",
    "v": "trained to predict v (Salimans and Ho 2022)",
    "flow": "trained to predict the velocity of a straight path (Lipman et al. 2022)",
}
SAMPLERS = {
    "ddpm": "DDPM's ancestral sampler (Ho et al. 2020)",
    "ddim": "DDIM (Song et al. 2021)",
    "euler": "Euler's method",
    "heun": "Heun's method (Karras et al. 2022)",
    "dpmpp_2m": "DPM-Solver++(2M) (Lu et al. 2022)",
    "dpmpp_2m_sde": "the SDE form of DPM-Solver++(2M) (Lu et al. 2022)",
    "unipc": "UniPC (Zhao et al. 2023)",
}
HIGHEST = 160.0
"""Level of noise, in units of the data's standard deviation, from which nothing of an image is told any more: as :data:`RANGE` of
:mod:`pipeline.diffusion.schedules`, without what that imports."""


def how_made(results: Results) -> list[str]:
    """How the images came to be, a sentence a step."""
    config = results.config
    if config.train is None:
        return [
            "The images were made elsewhere, by a generator that is not known here, and were imported as they are but for their size.",
            "What that generator saw is taken from whoever gave the images: the training images, and never the holdout of "
            f"{number(dig(results.audit, 'n.holdout_units'))} {results.audit.get('unit')}s. The verdict is as true as that is.",
            "No image was removed after the audit: the verdict is that of the whole imported set.",
        ]
    return [
        f"A class-conditional denoiser, a {architecture(results)}, was {training(results)}.",
        *told(results),
        sampling(results),
        f"{config.ingest.audit_share:.0%} of the images for training and audit were sealed from training: the non-members of the audit, "
        f"and the reference of fidelity.",
        "No image was removed after the audit: the verdict is that of the whole generated set.",
    ]


def architecture(results: Results) -> str:
    """The network, as a noun with its size."""
    train, parameters = results.config.train, results.model.get("parameters")
    assert train is not None
    size = f" with {parameters:,} parameters" if isinstance(parameters, int) else ""
    return f"{BACKBONES[train.backbone]}{size}, {OBJECTIVES[train.objective]}"


def training(results: Results) -> str:
    """How long it was trained and on what, as a participle."""
    seen = results.model.get("images", dig(results.records, "train.summary.images_seen"))
    train = (results.cohort.get("counts") or {}).get("train")
    images = f"{sum(train.values()):,} images of the" if isinstance(train, dict) else "the"
    return f"trained on {number(seen)} draws from {images} train split"


def told(results: Results) -> list[str]:
    """What the denoiser was told of beside findings, a sentence where there was anything."""
    train, words = results.config.train, len(dig(results.model, "conditions.vocabulary") or ())
    assert train is not None
    things = list(train.attributes)
    if train.text:
        how = ", each told by the frozen features of a language model" if dig(results.model, "conditions.features") else ""
        things.append(f"the reports, in {counted(words, 'word')} of a closed clinical vocabulary{how}")
    return [f"Beside findings, it was told of {', '.join(things)}."] if things else []


def sampling(results: Results) -> str:
    """The sampler, its steps, where it started, and guidance, as a sentence."""
    generate, several = results.config.generate, results.config.ingest.multi_label
    eta = f" with eta {number(generate.eta)}" if generate.sampler == "ddim" and generate.eta else ""
    start = "noise"
    if generate.levels[1] < HIGHEST:
        start = (
            f"a mixture of Gaussians of its class's training images, under noise of {number(generate.levels[1])} times the data's standard "
            f"deviation,"
        )
    away = "a weaker model" if generate.autoguidance else f"class {generate.negative_class}" if generate.negative_class else "no class"
    guidance = f"at guidance {number(generate.guidance_scale)} away from {away}" if generate.guidance_scale != 1 else "without guidance"
    weights = f", of the weights averaged over training with a width of {generate.ema:g}" if generate.ema is not None else ""
    how = f"{counted(generate.steps, 'step')} of {SAMPLERS[generate.sampler]}{eta}{weights}, {guidance}"
    if generate.per_class is None:
        images = f"as a plan of {counted(len(generate.plan), 'kind')} asked"
    else:
        images = f"with {counted(generate.per_class, 'image')} of every {'finding and of none' if several else 'class'}"
    return f"Each image was drawn from {start} under a seed of its own in {how}, {images}."
