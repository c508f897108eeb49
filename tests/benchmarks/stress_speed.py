"""How fast the stress test of somebody's model is, how much of the time is the model's own, and how its memory grows with the cases.

A ResNet-18 as TorchScript with random weights names random pictures; what it says of each, with some noise, is the label, so that it is
fit. Nothing of it is trained, and nothing is downloaded. Where only memory is asked about, ``--network tiny`` is three layers. ::

    python -m tests.benchmarks.stress_speed --images 1000 10000 --out speed.json
    python -m tests.benchmarks.stress_speed --images 1000 10000 --side 32 --network tiny --out memory.json
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from evaluation.shifts import SHIFTS, fitting
from pipeline import api
from pipeline.models import stress
from pipeline.models.contract import Contract
from pipeline.models.load import load, outputs, prepared

MODULE = "tests.benchmarks.stress_speed"
CLASSES = ("lower", "higher")


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure, print a table, and write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[1000, 10_000])
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--network", choices=("resnet18", "tiny"), default="resnet18")
    parser.add_argument("--shifts", type=int, default=20, help="how many: those of radiographs, then others that take grey images")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    if len(options.images) > 1:
        return _each_alone(options)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    found = []
    some = mock.patch.object(stress, "fitting", lambda modality, channels: _shifts(modality, options.shifts))
    with tempfile.TemporaryDirectory(prefix="stress-speed-") as place, some:
        folder = Path(place)
        model = _model(folder, options.side, options.network)
        for count in options.images:
            data = _pictures(folder / f"cases-{count}", model, count, options.side, device)
            found.append(measured(model, data, folder / f"out-{count}"))
            print(_line(found[-1]), flush=True)
    result = {
        "side": options.side,
        "shifts": options.shifts,
        "network": options.network,
        "device": torch.cuda.get_device_name() if device == "cuda" else f"{os.cpu_count()} cores",
        "rows": found,
    }
    if options.out is not None:
        options.out.write_text(json.dumps(result, indent=1) + "\n")
    return result


def _each_alone(options: argparse.Namespace) -> dict[str, Any]:
    """Every number of images in a process of its own: what one test imports and leaves must not count as the next one's memory."""
    rows: list[dict[str, Any]] = []
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="stress-speed-") as place:
        for count in options.images:
            out = Path(place) / "one.json"
            given = ["--images", count, "--side", options.side, "--network", options.network, "--shifts", options.shifts, "--out", out]
            subprocess.run([sys.executable, "-W", "ignore", "-m", MODULE, *map(str, given)], check=True)
            result = json.loads(out.read_text())
            rows += result["rows"]
    result |= {"rows": rows, "memory_ratio": rows[-1]["peak_mib"] / rows[0]["peak_mib"]}
    print(f"most memory at {rows[-1]['cases']:,} cases over that at {rows[0]['cases']:,}: {result['memory_ratio']:.3f}", flush=True)
    if options.out is not None:
        options.out.write_text(json.dumps(result, indent=1) + "\n")
    return result


def _shifts(modality: str, count: int) -> tuple[str, ...]:
    """So many shifts of grey images, those that fit the modality first: no modality has 20 of its own."""
    return tuple(dict.fromkeys((*fitting(modality, 1), *(name for name, one in SHIFTS.items() if not one.colour))))[:count]


def measured(model: Path, data: Path, out: Path) -> dict[str, Any]:
    """One stress test: cases, answers, seconds of the shifted pass and of the model in it, and the most memory that all processes held."""
    watch = _Watch()
    with watch:
        began = time.monotonic()
        test = api.stress(model=model, data=data, out=out, modality="DX")
        whole = time.monotonic() - began
    took = test.result["time"]
    return {
        "cases": test.result["n"],
        "fit": test.result["fit"]["why"],
        "answers": took["images"],
        "seconds": took["seconds"],
        "model_share": took["model"] / took["seconds"],
        "whole_seconds": whole,
        "peak_mib": watch.peak >> 20,
        "peak_by": {name: size >> 20 for name, size in watch.by.items()},
    }


def _line(row: dict[str, Any]) -> str:
    return (
        f"{row['cases']:,} cases, {row['answers']:,} answers in {row['seconds']:.1f} s ({row['answers'] / row['seconds']:,.0f} a second), "
        f"model's own time {row['model_share']:.0%}, whole test {row['whole_seconds']:.1f} s, "
        f"at most {row['peak_mib']:,} MiB ({', '.join(f'{name} {size:,}' for name, size in row['peak_by'].items())})"
    )


def _model(folder: Path, side: int, network: str) -> Path:
    from torchvision.models import resnet18

    torch.manual_seed(0)
    path = folder / "model.pt"
    if network == "tiny":
        module: torch.nn.Module = torch.nn.Sequential(
            torch.nn.Conv2d(3, 8, 7, 4, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(4), torch.nn.Flatten(), torch.nn.Linear(128, 2)
        )
    else:
        module = resnet18(num_classes=2)
    torch.jit.trace(module.eval(), torch.rand((2, 3, side, side))).save(str(path))  # type: ignore[no-untyped-call]
    path.with_suffix(".yaml").write_text(f"size: {side}\nchannels: 3\nclasses: [{', '.join(CLASSES)}]\noutput: logits\n")
    return path


def _pictures(folder: Path, model: Path, count: int, side: int, device: str) -> Path:
    """Smooth random pictures, each in the folder of what the model says of it, with a tenth of them the other way round."""
    rng = np.random.default_rng(count)
    images: NDArray[np.uint8] = np.empty((count, side, side), np.uint8)
    for row in images:
        small = Image.fromarray(rng.integers(0, 256, (8, 8), np.uint8))
        row[:] = np.asarray(small.resize((side, side), Image.Resampling.BICUBIC))
    contract = Contract((side, side), 3, "NCHW", "float32", (0.0, 1.0), (), (), "stretch", CLASSES, "logits", True, None)
    loaded = load(str(model), "torchscript", device)
    scores = []
    for start in range(0, count, 256):
        x = torch.from_numpy(images[start : start + 256]).to(device).float()[:, None] / 255
        raw = outputs(loaded, prepared(x, contract), contract)
        scores.append(raw[:, 1] - raw[:, 0])
    score = np.concatenate(scores)
    higher = (score > np.median(score)) ^ (rng.random(count) < 0.1)
    for number, (image, label) in enumerate(zip(images, higher)):
        file = folder / CLASSES[int(label)] / f"{number:06d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(file, compress_level=1)
    return folder


class _Watch:
    """The most memory (resident, bytes) that this process and all that it started held at one time, and by whom."""

    def __init__(self) -> None:
        self.peak = 0
        self.by: dict[str, int] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> _Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._ended.wait(0.2):
            sizes = _resident()
            if sum(sizes.values()) > self.peak:
                own = sizes.pop(os.getpid(), 0)
                first, *others = [*sorted(sizes.values(), reverse=True), 0]
                self.by = {"this process": own, "the largest other": first, "all others": sum(others)}
                self.peak = sum(self.by.values())


def _resident() -> dict[int, int]:
    """Bytes by process, of this one and all below it."""
    parents, sizes = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                parents[int(entry.name)] = int(fields[1])
                sizes[int(entry.name)] = int(fields[21]) * os.sysconf("SC_PAGE_SIZE")
            except (OSError, ValueError, IndexError):
                continue
    ours = {os.getpid()}
    while grown := {child for child, parent in parents.items() if parent in ours} - ours:
        ours |= grown
    return {pid: sizes.get(pid, 0) for pid in ours}


if __name__ == "__main__":
    main()
