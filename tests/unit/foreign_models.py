"""Small models of the kinds that people have, of images whose class is their brightness, and a stand-in for a model's process."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from pipeline.models.child import ModelFailed
from pipeline.models.contract import Contract
from pipeline.models.load import Loaded, outputs, prepared

CLASSES = ("dark", "bright")


def brightness_images(n: int, seed: int = 0, shape: tuple[int, int] = (24, 26)) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """``uint8 [n, 1, *shape]`` and their classes."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    pixels = rng.normal(90 + 70 * labels[:, None, None], 18, (n, *shape))
    return pixels.clip(0, 255).astype(np.uint8)[:, None], labels


def picture_folder(root: Path, n: int = 60) -> Path:
    """PNG files in class folders, with a ``labels.csv`` of two images a patient."""
    lines = ["file,label,patient_id,sex"]
    for number, (image, label) in enumerate(zip(*brightness_images(n))):
        file = root / CLASSES[label] / f"{number:03d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[0]).save(file)
        lines.append(f"{CLASSES[label]}/{file.name},{CLASSES[label]},p{number // 2},{'FM'[number % 3 // 2]}")
    (root / "labels.csv").write_text("\n".join(lines) + "\n")
    return root


def trained(module: torch.nn.Module, channels: int, side: int, steps: int = 12) -> torch.nn.Module:
    """The module, trained for a few steps to tell dark from bright, in evaluation mode."""
    images, labels = brightness_images(32, seed=5, shape=(side, side))
    x = torch.from_numpy(images.astype(np.float32) / 255).expand(-1, channels, -1, -1)
    optimizer = torch.optim.Adam(module.parameters(), 3e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(module(x), torch.from_numpy(labels)).backward()
        optimizer.step()
    return module.eval()


class InProcess:
    """What :class:`pipeline.models.child.Child` is to its callers, without a process."""

    def __init__(self, loaded: Loaded) -> None:
        self.loaded = loaded

    def raw(self, images: Sequence[NDArray[Any]], contract: Contract) -> tuple[dict[str, float], NDArray[np.float64]]:
        """As the child's."""
        try:
            x = torch.cat([prepared(torch.from_numpy(np.stack([image])).float() / 255, contract) for image in images])
            return {"low": float(x.float().min()), "high": float(x.float().max())}, outputs(self.loaded, x, contract)
        except Exception as error:
            raise ModelFailed("run", f"{type(error).__name__}: {' '.join(str(error).split())}") from None
