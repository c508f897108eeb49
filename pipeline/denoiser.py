"""The denoiser that a ``model.json`` describes: built, and loaded with its weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline import tensors
from pipeline.artifacts import damage, read_object
from pipeline.conditions import Conditions
from pipeline.diffusion.objectives import Denoiser
from pipeline.errors import InputError


def build_denoiser(model: dict[str, Any], mean: np.ndarray | None = None, words: torch.Tensor | None = None) -> Denoiser:
    """The untrained denoiser that a ``model.json`` describes, around the mean image ``[C, ...]`` (zero where it will be loaded), with
    the features of its ``words`` (:func:`pipeline.word_features.of`; zero, too, where they will be loaded)."""
    channels, *sides = model["shape"]
    conditions = Conditions.of_model(model)
    sizes = conditions.sizes
    layout: dict[str, Any] = {
        "channels": channels,
        "classes": sizes if len(sizes) > 1 else sizes[0],
        "size": max(sides),
        "dims": len(sides),
    }
    if model["backbone"] == "monai":
        from pipeline.diffusion.monai_unet import MonaiUNet

        network: torch.nn.Module = MonaiUNet(**layout, **model["network"], noise_schedule=model["noise_schedule"])
    else:
        from pipeline.diffusion.unet import UNet

        more = {"checkpointing": model["checkpointing"], "upsample": model.get("upsample", "convolve")}
        more |= {"vocabulary": len(conditions.words), "features": conditions.features, "fields_read": model.get("fields_read", False)}
        network = reader = UNet(**layout, **model["network"], **more)
        if words is not None and reader.text is not None:
            reader.text.words.load_state_dict({"features": words}, strict=False)
    centre = torch.zeros(model["shape"]) if mean is None else torch.from_numpy(mean)
    denoiser = Denoiser(network, centre, model["sigma_data"], model["objective"])
    return denoiser.to(memory_format=torch.channels_last if len(sides) == 2 else torch.channels_last_3d)


def load_denoiser(folder: Path, device: str) -> tuple[Denoiser, dict[str, Any]]:
    """The trained denoiser of a train stage, in evaluation mode, and its ``model.json``.

    Raises:
        InputError: a file is missing or damaged, or the weights are not of the network that ``model.json`` describes.
    """
    model, weights = read_object(folder / "model.json"), tensors.read(folder / "model.safetensors")
    try:
        if not _describes(model, weights):
            raise ValueError("not the network of these weights")
        denoiser = build_denoiser(model)
        denoiser.load_state_dict(weights)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RuntimeError, AssertionError, ArithmeticError) as error:
        raise InputError(damage(folder.name, "model.json")) from error
    return denoiser.to(device).eval().requires_grad_(False), model


def greys(model: Mapping[str, Any]) -> tuple[int, int]:
    """Lowest and highest grey of 0..255 that the training images hold, by a ``model.json``; all, where an earlier version wrote it."""
    lowest, highest = model.get("greys", (0, 255))
    return lowest, highest


def _describes(model: dict[str, Any], weights: Mapping[str, torch.Tensor]) -> bool:
    """Whether a ``model.json`` may describe the network of these weights: no larger one is built only to find that it does not."""
    network, classes, widths = model["network"], model["classes"], model["network"]["widths"]
    lowest, highest = greys(model)
    # Each level has as many convolutions of 3 x 3 as blocks, at the least.
    smallest = 9 * network["blocks"] * sum(width**2 for width in widths)
    return (
        smallest <= sum(value.numel() for value in weights.values())
        and len(widths) * network["blocks"] <= len(weights)
        and len(classes) < max(len(value) for value in weights.values() if value.ndim)
        and all(isinstance(name, str) for name in classes)
        and network["patch"] in (1, 2, 4)
        and model["shape"] == list(weights["mean"].shape)
        and 0 < float(model["sigma_data"]) < math.inf
        and 0 <= lowest <= highest <= 255
    )
