"""Sampling as configured: images that depend on class and seed alone, guidance, and averages solved after training."""

import itertools
import json
import typing
from pathlib import Path

import numpy as np
import pytest
import torch
from model_facts import MODEL
from safetensors.torch import save_file

from pipeline.config import GenerateConfig, load_config
from pipeline.denoiser import build_denoiser
from pipeline.diffusion import ema
from pipeline.diffusion.conditioning import Condition
from pipeline.diffusion.guidance import guided
from pipeline.diffusion.mixture import fit
from pipeline.diffusion.noise import StepNoise
from pipeline.diffusion.samplers import SAMPLERS
from pipeline.diffusion.schedules import RANGE, SCHEDULES, karras_sigmas
from pipeline.errors import InputError
from pipeline.generate import Sampling, average, load_guide
from pipeline.images import from_unit

LABELS = np.arange(12) % 2
SEEDS = [10**12 + 7 * number for number in range(12)]


def denoiser_of(seed: int, size: int = 16):
    """A network with random weights in every layer, so that class and place matter to it."""
    denoiser = build_denoiser(MODEL | {"shape": [1, size, size]}, np.full((1, size, size), -0.2, np.float32)).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for value in denoiser.parameters():
        value.add_(0.1 * torch.randn(value.shape, generator=generator))
    return denoiser


DENOISER = denoiser_of(0)


MIXTURE = fit(0.4 * np.random.default_rng(0).normal(size=(500, 1, 16, 16)).astype(np.float32), np.arange(500) % 2, 2, seed=0)


def of(labels) -> Condition:
    return Condition.of_classes(np.array(labels), 2)


def made(labels=LABELS, seeds=SEEDS, guide=None, **options) -> np.ndarray:
    section = GenerateConfig(per_class=1, **({"steps": 4} | options))
    return Sampling(DENOISER, MODEL, section, "cpu", guide, MIXTURE if section.levels[1] < RANGE[1] else None)(of(labels), list(seeds))


def store(folder: Path, denoiser) -> Path:
    folder.mkdir(exist_ok=True)
    save_file({name: value.contiguous() for name, value in denoiser.state_dict().items()}, folder / "model.safetensors")
    (folder / "model.json").write_text(json.dumps(MODEL | {"shape": list(denoiser.mean.shape)}))
    return folder


@pytest.mark.parametrize(
    "options",
    [*({"sampler": name} for name in SAMPLERS), {"sampler": "ddim", "eta": 0.5}, {"guidance_scale": 2.0}, {"levels": (0.02, 8.0)}],
)
def test_an_image_is_the_same_whatever_stands_beside_it(options, float32):
    together = made(**options)
    backwards = made(LABELS[::-1], SEEDS[::-1], **options)[::-1]
    np.testing.assert_array_equal(backwards, together)
    alone = np.concatenate([made(LABELS[[i]], [SEEDS[i]], **options) for i in range(3)])
    in_parts = np.concatenate([made(LABELS[part], SEEDS[part], **options) for part in (slice(5), slice(5, 12))])
    for other, images in ((alone, together[:3]), (in_parts, together)):
        difference = np.abs(other.astype(int) - images)
        assert difference.max() <= 1
        assert (difference > 0).mean() < 1e-2
    assert len(np.unique(together, axis=0)) == 12


@pytest.mark.parametrize("config", ["quickstart", "pneumoniamnist", "breastmnist"])
def test_the_shipped_configurations_sample_as_the_formulas(config, float32):
    section = load_config(config).generate
    labels = torch.from_numpy(LABELS)
    low, high = (bound * 0.4 for bound in section.guidance_interval)
    denoise = guided(DENOISER, of(LABELS), scale=section.guidance_scale, interval=(low, high))
    levels = karras_sigmas(section.steps, *(bound * 0.4 for bound in section.levels)).tolist()
    stream = StepNoise(SEEDS, (1, 16, 16), "cpu")
    noise, parts = stream(), MIXTURE.parts(labels, stream.uniform())
    x = DENOISER.mean + levels[0] * noise if section.levels[1] == RANGE[1] else MIXTURE.noisy(noise, parts, levels[0])
    with torch.inference_mode():
        images = SAMPLERS[section.sampler](denoise, x, levels)
    made = Sampling(DENOISER, MODEL, section, "cpu", mixture=MIXTURE if section.levels[1] < RANGE[1] else None)(of(LABELS), SEEDS)
    assert np.abs(made.astype(int) - from_unit(images.numpy())).max() == 0


def test_no_grey_is_made_that_no_training_image_holds(float32):
    section = GenerateConfig(per_class=1, steps=4)
    free = made()
    bounded = Sampling(DENOISER, MODEL | {"greys": [20, 200]}, section, "cpu")(of(LABELS), SEEDS)
    assert free.min() < 20
    assert free.max() > 200
    np.testing.assert_array_equal(bounded, free.clip(20, 200))


def test_a_last_smaller_batch_is_filled_up_to_what_is_captured(monkeypatch, float32):
    section = GenerateConfig(per_class=1, steps=4, batch=8)
    sampling, captured = Sampling(DENOISER, MODEL, section, "cpu"), []

    def capture(condition, seeds, away):
        captured.append(len(seeds))
        return sampling._sample

    monkeypatch.setattr(sampling, "_captured", capture)
    sampling.compiled = True
    in_parts = [sampling(of(LABELS[rows]), SEEDS[rows]) for rows in (slice(0, 8), slice(8, 11), slice(11, 12))]
    assert captured == [8]
    assert np.abs(np.concatenate(in_parts).astype(int) - made()).max() <= 1


@pytest.mark.parametrize(("count", "expected"), [(None, True), (100, False), (10**7, True)])
def test_sampling_is_compiled_on_a_gpu_alone_and_for_many_images(count, expected):
    for device in ("cuda", "cpu"):
        sampling = Sampling(DENOISER, MODEL, GenerateConfig(per_class=1, steps=4, compile=True), device, count=count)
        assert sampling.compiled == (expected and device == "cuda")


def test_a_start_on_the_mixture_leads_to_images_of_its_own_at_any_number_of_steps(float32):
    """The network's answers are random here, but smooth: what differs is where the path is entered, and how finely it is followed."""
    finely = made(levels=(0.004, 20.0), steps=40)
    for steps, bound in ((12, 8), (20, 3)):
        assert np.abs(made(levels=(0.004, 20.0), steps=steps).astype(int) - finely).mean() < bound
    assert np.abs(made(steps=40).astype(int) - finely).mean() > 0.5


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_no_level_beyond_the_trained_range_is_asked_for(schedule):
    asked = []

    def spy(module, arguments):
        asked.append(arguments[1].clone())

    handle = DENOISER.register_forward_pre_hook(spy)
    made(noise_schedule=schedule, steps=3)
    handle.remove()
    assert len(asked) == 3
    assert all(float(sigma.max()) <= RANGE[1] * 0.4 * (1 + 1e-6) for sigma in asked)
    assert float(asked[0].min()) > 0.9 * RANGE[1] * 0.4 or schedule == "ddpm_linear"


def test_every_way_of_guidance_makes_other_images_and_where_it_cancels_the_same():
    guide = denoiser_of(1)
    ways = {
        "none": made(),
        "classifier-free": made(guidance_scale=2.0),
        "negative": made(guidance_scale=2.0, negative_class="nodule"),
        "autoguidance": made(guidance_scale=2.0, guide=guide),
    }
    for one, other in itertools.combinations(ways.values(), 2):
        assert np.abs(one[LABELS == 0].astype(int) - other[LABELS == 0]).mean() > 0.5
    # Images of the negative class itself are left unguided; so are all where the guide is the model.
    assert np.abs(ways["negative"][LABELS == 1].astype(int) - ways["none"][LABELS == 1]).max() <= 1
    assert np.abs(made(guidance_scale=2.0, guide=DENOISER).astype(int) - ways["none"]).max() <= 1
    assert np.array_equal(made(guidance_scale=2.0, guidance_interval=(1e3, 1e4)), ways["none"])


def test_a_negative_class_that_the_model_does_not_know_is_refused():
    with pytest.raises(InputError, match="negative_class 'effusion' is no class of the model: use one of normal, nodule"):
        made(guidance_scale=2.0, negative_class="effusion")


def test_a_guide_is_read_from_another_train_folder(tmp_path):
    other = denoiser_of(1)
    guide = load_guide(store(tmp_path / "train", other), DENOISER, MODEL, "cpu")
    for name, value in other.state_dict().items():
        assert torch.equal(guide.state_dict()[name], value)
    with pytest.raises(InputError, match=r"no model\.safetensors there"):
        load_guide(tmp_path / "nowhere", DENOISER, MODEL, "cpu")
    with pytest.raises(InputError, match="another image size"):
        load_guide(store(tmp_path / "larger", denoiser_of(1, size=20)), DENOISER, MODEL, "cpu")


def test_a_width_that_training_did_not_track_is_solved_from_what_it_stored(tmp_path):
    (tmp_path / "ema").mkdir()
    denoiser = denoiser_of(0)
    names, weights = zip(*denoiser.named_parameters())
    widths = {width: [torch.zeros_like(value) for value in weights] for width in (0.05, 0.1, 0.08)}
    generator = torch.Generator().manual_seed(0)
    for step in range(1, 41):
        for value in weights:
            value.add_(0.01 * torch.randn(value.shape, generator=generator))
        for width, averages in widths.items():
            ema.update(averages, weights, step, ema.gamma_of_width(width))
        if step % 10 == 0:
            stored = {f"{width}/{name}": value.clone() for width in (0.05, 0.1) for name, value in zip(names, widths[width])}
            save_file({name: value.contiguous() for name, value in stored.items()}, tmp_path / "ema" / f"{step:08d}.safetensors")
    average(denoiser, tmp_path, MODEL, 0.08)
    wanted = torch.cat([value.flatten() for value in widths[0.08]])
    found = torch.cat([value.flatten() for value in denoiser.parameters()])
    nearest = torch.cat([value.flatten() for value in widths[0.1]])
    assert float((found - wanted).norm()) < 0.1 * float((nearest - wanted).norm())
    assert torch.equal(denoiser.mean, DENOISER.mean)


def test_without_stored_averages_no_other_width_can_be_had(tmp_path):
    for model in (MODEL, {key: value for key, value in MODEL.items() if key != "ema"}):
        with pytest.raises(InputError, match=r"generate\.ema: training stored no averages"):
            average(DENOISER, tmp_path, model, 0.08)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"eta": 0.5}, "generate.eta is ddim's"),
        ({"guidance_interval": (2.0, 1.0)}, "in this order"),
        ({"levels": (8.0, 0.02)}, "in this order"),
        ({"levels": (0.0, 8.0)}, "above 0"),
        ({"levels": (0.02, 200.0)}, "up to 160"),
        ({"guidance_scale": 2.0, "negative_class": "normal", "autoguidance": "elsewhere"}, "exclude each other"),
        ({"negative_class": "normal"}, "guidance_scale is 1"),
        ({"sampler": "plms"}, "sampler"),
        ({"steps": 0}, "steps"),
        ({"ema": 0.3}, "ema"),
    ],
)
def test_options_that_do_not_fit_together_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        GenerateConfig(per_class=1, **options)


def test_the_configuration_names_every_sampler_and_schedule():
    fields = GenerateConfig.model_fields
    assert typing.get_args(fields["sampler"].annotation) == tuple(SAMPLERS)
    assert typing.get_args(fields["noise_schedule"].annotation) == SCHEDULES
