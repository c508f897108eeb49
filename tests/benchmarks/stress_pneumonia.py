"""Two classifiers of PneumoniaMNIST under stress, on the same test images: our judge, and torchvision's ResNet-18 as anybody trains it.

Both learn from ``train`` and choose on ``val``; ``test`` is asked. Ours is trained by :mod:`evaluation.training` at 28 px, the foreign one
at 64 px by AdamW with a cosine, its best epoch by the AUC on ``val``. Both are saved as TorchScript and go through ``synthcohort.stress``
like anybody's; AUCs and their differences have intervals over patients' images and hold for these trainings. ::

    python -m tests.benchmarks.stress_pneumonia --medmnist pneumoniamnist.npz --seeds 3 --out pneumonia.json
"""

from __future__ import annotations

import argparse
import copy
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from evaluation.classifiers import Kind
from evaluation.data import Labelled, to_unit
from evaluation.metrics import auc
from evaluation.training import Task, train
from pipeline import api

CLASSES = ("normal", "pneumonia")
SIDE = 64
BATCH = 256
Split = tuple[NDArray[np.uint8], NDArray[np.int64]]


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Train both, put them under stress, print a table, and write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--medmnist", type=Path, required=True, help="pneumoniamnist.npz")
    parser.add_argument("--seeds", type=int, default=3, help="pairs of trainings")
    parser.add_argument("--epochs", type=int, default=20, help="of the foreign network")
    parser.add_argument("--kind", choices=("small", "resnet18"), default="resnet18", help="of our judge")
    parser.add_argument("--ceiling", type=int, default=400_000, help="images in training ours, at the most")
    parser.add_argument("--few", type=int, help="only so many images of every split, to see that it runs")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with np.load(options.medmnist, allow_pickle=False) as arrays:
        splits = {
            name: (arrays[f"{name}_images"][: options.few], arrays[f"{name}_labels"].reshape(-1)[: options.few].astype(np.int64))
            for name in ("train", "val", "test")
        }
    rows = []
    with tempfile.TemporaryDirectory(prefix="stress-pneumonia-") as place:
        folder = Path(place)
        data = folder / "test.npz"
        np.savez(data, test_images=splits["test"][0], test_labels=splits["test"][1])
        for seed in range(options.seeds):
            theirs = foreign(splits["train"], splits["val"], seed, options.epochs, device)
            ours = judge(splits["train"], splits["val"], seed, options.kind, options.ceiling, device)
            models = [
                saved(theirs, folder / f"foreign-{seed}.pt", SIDE, 3, "[0, 1]"),
                saved(ours, folder / f"judge-{seed}.pt", 28, 1, "[-1, 1]"),
            ]
            found = api.stress(model=models[0], against=models[1], data=data, modality="DX", out=folder / f"out-{seed}").result
            rows.append({"seed": seed} | {key: found.get(key) for key in ("n", "fit", "compared", "mean_drop", "worst", "shown", "harm")})
            print(*lines(rows[-1]), sep="\n", flush=True)
    result = {"options": {key: str(value) for key, value in vars(options).items() if key not in ("out", "medmnist")}, "rows": rows}
    if options.out is not None:
        options.out.write_text(json.dumps(result, indent=1) + "\n")
    return result


def lines(row: dict[str, Any]) -> list[str]:
    """AUC of both and their difference, as the images are and under the shifts where it is shown."""
    if not row["compared"]:
        return [f"seed {row['seed']}: {row['fit']['why']}"]
    told = []
    for one in row["compared"]:
        if one["shift"] is None or one["gain"]["stands"]:
            where = "as they are" if one["shift"] is None else f"{one['shift']} {one['severity']}"
            told.append(
                f"seed {row['seed']} {where:22} foreign {_shown(one['auc'])}  judge {_shown(one['against'])}  {_shown(one['gain'])}"
            )
    return told


def foreign(learn: Split, choose: Split, seed: int, epochs: int, device: str) -> nn.Module:
    """torchvision's ResNet-18 of random weights, of inputs ``[n, 3, SIDE, SIDE]`` in 0..1, to logits."""
    from torchvision.models import resnet18

    torch.manual_seed(seed)
    network = resnet18(num_classes=len(CLASSES)).to(device)
    optimiser = torch.optim.AdamW(network.parameters(), 1e-3, weight_decay=0.05)
    images, labels = _inputs(learn[0]).to(device), torch.from_numpy(learn[1]).to(device)
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs * -(-len(labels) // BATCH))
    best, kept = -1.0, copy.deepcopy(network.state_dict())
    for _ in range(epochs):
        network.train()
        for rows in torch.randperm(len(labels)).to(device).split(BATCH):
            moves = torch.randint(-4, 5, (2,)).tolist()
            optimiser.zero_grad(set_to_none=True)
            functional.cross_entropy(network(images[rows].roll(moves, (2, 3))), labels[rows]).backward()
            optimiser.step()
            rate.step()
        network.eval()
        with torch.inference_mode():
            scores = torch.cat(
                [network(part) @ torch.tensor([-1.0, 1.0], device=device) for part in _inputs(choose[0]).to(device).split(512)]
            )
        if (area := auc(scores.double().cpu().numpy(), choose[1] == 1)) > best:
            best, kept = area, copy.deepcopy(network.state_dict())
    network.load_state_dict(kept)
    return network.eval()


def judge(learn: Split, choose: Split, seed: int, kind: Kind, ceiling: int, device: str) -> nn.Module:
    """Our own, of inputs ``[n, 1, 28, 28]`` in −1..1, to logits."""
    held = Labelled.of_classes(choose[0][:, None], choose[1], np.arange(len(choose[1])), 2)
    [one] = train([Task(to_unit(learn[0][:, None]), learn[1], 2, seed, held)], kind=kind, ceiling=ceiling, device=device)
    return one.classifier.network.eval()


def saved(network: nn.Module, path: Path, side: int, channels: int, span: str) -> Path:
    """The network as TorchScript on the CPU, with its contract beside it."""
    example = torch.rand((2, channels, side, side))
    torch.jit.trace(network.to("cpu").to(memory_format=torch.contiguous_format), example).save(str(path))  # type: ignore[no-untyped-call]
    contract = f"size: {side}\nchannels: {channels}\nrange: {span}\nclasses: [{', '.join(CLASSES)}]\noutput: logits\n"
    path.with_suffix(".yaml").write_text(contract)
    return path


def _inputs(images: NDArray[np.uint8]) -> Tensor:
    x = torch.from_numpy(images)[:, None].float() / 255
    return functional.interpolate(x, (SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False).expand(-1, 3, -1, -1).contiguous()


def _shown(one: dict[str, Any]) -> str:
    return f"{one['value']:+.3f} [{one['low']:+.3f}, {one['high']:+.3f}]" if one["low"] is not None else f"{one['value']}"


if __name__ == "__main__":
    main()
