"""The sides of a network's grids are what the network has, and an attention that would be nowhere is told before any work."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline import api, first_config, fit_recipe
from pipeline.config import Config, load_config, shipped
from pipeline.diffusion import grid
from pipeline.diffusion.conditioning import Condition
from pipeline.diffusion.layers import Block
from pipeline.diffusion.unet import UNet
from pipeline.errors import Notice


def config(size: int, **train: Any) -> Config:
    ingest = {"source": "phantom", "size": size}
    return Config.model_validate({"name": "c", "ingest": ingest, "train": {"images": 1} | train, "generate": {"per_class": 1}})


def notices(chosen: Config, folder: Path) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        api.plan(chosen, out=folder / "run")
    return [str(one.message) for one in caught if issubclass(one.category, Notice)]


@pytest.mark.parametrize(("size", "patch", "depth"), [(28, 2, 2), (30, 2, 2), (60, 2, 3), (33, 1, 3), (50, 4, 1)])
def test_sides_are_those_of_the_networks_own_grids(size: int, patch: int, depth: int) -> None:
    expected = grid.sides(size, patch, depth)
    layout: dict[str, Any] = {"channels": 1, "classes": 1, "size": size, "widths": (8,) * depth, "blocks": 1, "patch": patch}
    network = UNet(**layout, dropout=0.0, attention=expected[-1:])
    met: list[tuple[int, bool]] = []
    for block in network.modules():
        if isinstance(block, Block):
            block.register_forward_hook(lambda own, _, made: met.append((made.shape[-1], own.attention is not None)))
    network(torch.zeros(1, 1, size, size), torch.zeros(1), Condition.of_classes(torch.tensor([0]), 1))
    assert {side for side, _ in met} == set(expected)
    assert {side for side, attends in met if attends} == {expected[-1]}


@pytest.mark.parametrize(
    ("size", "train", "said"),
    [
        (28, {}, "names 8, and the network's levels have the sides 14, 7: it attends nowhere; name sides among these, or [] for none"),
        (96, {"widths": "auto", "attention": [8]}, "the sides 48, 24, 12, 6: it attends nowhere"),
        (96, {"minutes": 1, "images": None}, "the sides 48, 24, 12, 6: it attends nowhere"),
        (32, {"attention": [32, 16, 8]}, "names 32, and the network's levels have the sides 16, 8: it attends at 16, 8 alone"),
        (28, {"backbone": "monai", "augment": 0, "dropout": 0}, "it attends nowhere"),
        (30, {}, ""),  # padded to 32
        (28, {"attention": [7]}, ""),
        (28, {"attention": []}, ""),
        (64, {"images": "auto"}, ""),
    ],
)
def test_attention_at_a_side_that_no_level_has_is_told_before_any_work(size: int, train: dict[str, Any], said: str, tmp_path: Path) -> None:
    found = notices(config(size, **train), tmp_path)
    assert len(found) == bool(said)
    assert all(said in one for one in found), found


@pytest.mark.parametrize("name", shipped())
def test_shipped_configurations_are_quiet(name: str, tmp_path: Path) -> None:
    assert notices(load_config(name, [f"ingest.path={tmp_path / 'data'}"]), tmp_path) == []


@pytest.mark.parametrize("size", range(16, 68, 4))
def test_what_init_writes_attends_at_the_coarsest_level(size: int) -> None:
    attention = first_config.recipe(size, "cuda")["attention"]
    widths = fit_recipe.widths(size, 2, fit_recipe.SMALL, "cuda")
    assert attention == f"[{grid.sides(size, 2, len(widths))[-1]}]"
