"""What is said of how images were made is what the run's configuration did."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, get_args

import pytest
from release_run import config

from pipeline.config import Config, GenerateConfig, TrainConfig
from pipeline.diffusion.schedules import RANGE
from pipeline.release import making
from pipeline.release.results import Results


def results(train: dict[str, Any] | None = None, **generate: Any) -> Results:
    settings = config().model_dump()
    data = settings | {"train": settings["train"] | (train or {}), "generate": settings["generate"] | generate}
    empty: dict[str, Any] = {key: {} for key in ("deidentification", "model", "audit", "evaluation", "stress")}
    records = {"train": {"summary": {"images_seen": 4096}}}
    cohort = {"counts": {"train": {"normal": 700, "nodule": 350}}}
    return Results(Config.model_validate(data), {}, records, cohort=cohort, **empty)


def test_every_choice_of_a_configuration_has_a_name() -> None:
    assert set(making.SAMPLERS) == set(get_args(GenerateConfig.model_fields["sampler"].annotation))
    assert set(making.OBJECTIVES) == set(get_args(TrainConfig.model_fields["objective"].annotation))
    assert set(making.BACKBONES) == set(get_args(TrainConfig.model_fields["backbone"].annotation))
    assert RANGE[1] == making.HIGHEST


@pytest.mark.parametrize(
    ("settings", "said", "unsaid"),
    [
        ({}, ["from noise", "12 steps of DPM-Solver++(2M)", "without guidance", "2 images of every class"], ["Gaussians"]),
        ({"sampler": "heun", "steps": 1}, ["1 step of Heun's method"], ["DPM-Solver"]),
        ({"sampler": "ddim", "eta": 0.5}, ["DDIM", "eta 0.500"], ["DPM-Solver"]),
        ({"levels": (0.02, 8.0)}, ["a mixture of Gaussians of its class's training images, under noise of 8 times"], ["from noise"]),
        ({"guidance_scale": 1.4}, ["at guidance 1.400 away from no class"], ["without guidance"]),
        ({"guidance_scale": 2, "negative_class": "normal"}, ["at guidance 2 away from class normal"], []),
        ({"guidance_scale": 2, "autoguidance": Path("/srv/roe/train")}, ["away from a weaker model"], ["roe"]),
        ({"per_class": 1}, ["with 1 image of every class"], []),
        ({"ema": 0.05}, ["averaged over training with a width of 0.05"], []),
    ],
)
def test_the_sampling_is_the_one_that_was_configured(settings: dict[str, Any], said: list[str], unsaid: list[str]) -> None:
    sentence = making.sampling(results(**settings))
    assert all(words in sentence for words in said), sentence
    assert not any(words in sentence for words in unsaid), sentence


def test_the_training_is_what_the_run_saw_and_not_what_was_planned() -> None:
    found = results({"objective": "v", "backbone": "monai", "dropout": 0, "augment": 0})
    assert making.training(found) == "trained on 4,096 draws from 1,050 images of the train split"
    assert making.architecture(found).startswith("DiffusionModelUNet of MONAI, trained to predict v")


def test_what_the_denoiser_was_told_of_beside_findings_is_said() -> None:
    assert making.told(results()) == []
    found = results({"attributes": ["severity", "sex"], "text": True})
    read = {"vocabulary": ["effusion", "small"], "features": 0}
    said = making.told(dataclasses.replace(found, model={"conditions": read}))
    assert said == ["Beside findings, it was told of severity, sex, the reports, in 2 words of a closed clinical vocabulary."]
    said = making.told(dataclasses.replace(found, model={"conditions": read | {"features": 384}}))
    assert said[0].endswith("vocabulary, each told by the frozen features of a language model.")
