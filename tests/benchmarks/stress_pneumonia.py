"""Two classifiers of PneumoniaMNIST under stress, on the same test images: our judge, and torchvision's ResNet-18 as anybody trains it.

Both learn from ``train`` and choose on ``val``; ``test`` is asked. Ours is trained by :mod:`evaluation.training` at 28 px, the foreign one
at 64 px, or ``--side``, by AdamW with a cosine, its best epoch by the AUC on ``val``. Both are saved as TorchScript and go through
``synthcohort.stress`` like anybody's. AUCs and their differences of one pair of trainings have intervals over images; of all pairs together
over images and trainings (:mod:`evaluation.intervals`), the differences tested together over all conditions (Holm). ::

    python -m tests.benchmarks.stress_pneumonia --medmnist pneumoniamnist.npz --seeds 3 --out pneumonia.json
"""

from __future__ import annotations

import argparse
import copy
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from evaluation.classifiers import Kind
from evaluation.comparisons import changes
from evaluation.data import Labelled, to_unit
from evaluation.intervals import interval, to_json
from evaluation.metrics import auc, macro_auc_estimate
from evaluation.training import Task, train
from pipeline import api

CLASSES = ("normal", "pneumonia")
BATCH = 256
KEPT = ("n", "fit", "compared", "mean_drop", "worst", "shown", "harm")
Split = tuple[NDArray[np.uint8], NDArray[np.int64]]


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Train both, put them under stress, print a table, and write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--medmnist", type=Path, required=True, help="pneumoniamnist.npz")
    parser.add_argument("--seeds", type=int, default=3, help="pairs of trainings")
    parser.add_argument("--epochs", type=int, default=20, help="of the foreign network")
    parser.add_argument("--side", type=int, default=64, help="of the foreign network's images, to which the published 28 px are enlarged")
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
    rows: list[dict[str, Any]] = []
    answers: list[dict[str, NDArray[Any]]] = []
    result: dict[str, Any] = {"options": {key: str(value) for key, value in vars(options).items() if key not in ("out", "medmnist")}}
    with tempfile.TemporaryDirectory(prefix="stress-pneumonia-") as place:
        folder = Path(place)
        data = folder / "test.npz"
        np.savez(data, test_images=splits["test"][0], test_labels=splits["test"][1])
        for seed in range(options.seeds):
            began = time.process_time()
            theirs = foreign(splits["train"], splits["val"], seed, options.epochs, options.side, device)
            ours = judge(splits["train"], splits["val"], seed, options.kind, options.ceiling, device)
            spent = time.process_time() - began
            models = [
                saved(theirs, folder / f"foreign-{seed}.pt", options.side, 3, "[0, 1]"),
                saved(ours, folder / f"judge-{seed}.pt", 28, 1, "[-1, 1]"),
            ]
            out = folder / f"out-{seed}"
            found = api.stress(model=models[0], against=models[1], data=data, modality="DX", out=out).result
            rows.append({"seed": seed, "training_seconds": spent} | {key: found.get(key) for key in KEPT})
            print(*lines(rows[-1]), sep="\n", flush=True)
            with np.load(out / "answers.npz", allow_pickle=False) as arrays:
                answers.append(dict(arrays))
            if found["compared"] and len({len(one["conditions"]) for one in answers}) == 1:
                result |= {"rows": rows, "together": together(answers)}
                print(*together_lines(result["together"]), sep="\n", flush=True)
            if options.out is not None:
                options.out.write_text(json.dumps(result | {"rows": rows}, indent=1) + "\n")
    return result


def together(answers: Sequence[Mapping[str, NDArray[Any]]]) -> dict[str, Any]:
    """AUC of both models and their difference under every condition, over all pairs of trainings.

    Args:
        answers: what each pair's ``answers.npz`` holds, of the same images in one order.

    Returns:
        ``images``, ``trainings``, and ``conditions``: name (empty: as they are), ``foreign``, ``judge`` and ``difference``.
    """
    labels = answers[0]["labels"]
    of = np.arange(len(labels))
    pairs = {}
    for number, name in enumerate(answers[0]["conditions"].tolist()):
        one, other = (np.stack([each[key][number] for each in answers]) for key in ("probabilities", "against"))
        pairs[name] = (macro_auc_estimate(one, labels, of), macro_auc_estimate(other, labels, of))
    by = changes(pairs)
    found = [
        {"condition": name, "foreign": interval(one), "judge": interval(other), "difference": by[name]}
        for name, (one, other) in pairs.items()
    ]
    return dict(to_json({"images": len(labels), "trainings": len(answers), "conditions": found}))


def together_lines(found: dict[str, Any]) -> list[str]:
    """As :func:`lines`, of all pairs of trainings."""
    told = [f"{found['trainings']} pairs of trainings, {found['images']} images, {len(found['conditions'])} conditions"]
    for one in found["conditions"]:
        if not one["condition"] or one["difference"]["stands"]:
            where = one["condition"] or "as they are"
            told.append(f"{where:22} foreign {_shown(one['foreign'])}  judge {_shown(one['judge'])}  {_shown(one['difference'])}")
    return told


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


def foreign(learn: Split, choose: Split, seed: int, epochs: int, side: int, device: str) -> nn.Module:
    """torchvision's ResNet-18 of random weights, of inputs ``[n, 3, side, side]`` in 0..1, to logits."""
    from torchvision.models import resnet18

    torch.manual_seed(seed)
    network = resnet18(num_classes=len(CLASSES)).to(device)
    optimiser = torch.optim.AdamW(network.parameters(), 1e-3, weight_decay=0.05)
    images, labels = _inputs(learn[0], side).to(device), torch.from_numpy(learn[1]).to(device)
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
                [network(part) @ torch.tensor([-1.0, 1.0], device=device) for part in _inputs(choose[0], side).to(device).split(512)]
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


def _inputs(images: NDArray[np.uint8], side: int) -> Tensor:
    x = torch.from_numpy(images)[:, None].float() / 255
    return functional.interpolate(x, (side, side), mode="bilinear", antialias=True, align_corners=False).expand(-1, 3, -1, -1).contiguous()


def _shown(one: dict[str, Any]) -> str:
    return f"{one['value']:+.3f} [{one['low']:+.3f}, {one['high']:+.3f}]" if one["low"] is not None else f"{one['value']}"


if __name__ == "__main__":
    main()
