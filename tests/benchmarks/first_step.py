"""How long until a training's first step is taken, and how fast are those after it: compiled and not?

Each in a process of its own with a new cache of compiled code, then once more with what the first left there. ``first step`` holds the
compilation, the steps that warm up, and the capture of a CUDA graph; importing and moving the data are beside it.

    python -m tests.benchmarks.first_step --out results
    python -m tests.benchmarks.first_step --cases pneumoniamnist:28 dicom_folder:64 dicom_folder:128 --out results
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from pipeline import compilation, runtime
from pipeline.config import load_config
from tests.benchmarks import report, speed_cases

BENCHMARK = "first_step"
RESULT = "@result "
WAYS = ("compiled", "eager")
TINY = ("train.widths=[16,32]", "train.blocks=1", "train.batch=4")
GIVEN = "train.images=1000000"


def child(name: str, size: int, way: str, seconds: float, tiny: bool) -> dict[str, Any]:
    """One training of noise, from its making to its speed."""
    from pipeline.diffusion.unet import UNet

    runtime.limit_threads()
    device = runtime.device()
    overrides = ["ingest.path=none", GIVEN, "train.widths=auto", *(TINY if tiny else ()), f"train.compile={str(way != 'eager').lower()}"]
    section = load_config(name, overrides).train
    assert section is not None
    widths = (128, 256) if size <= 32 else (64, 128, 256)
    chosen = section.widths if isinstance(section.widths, tuple) else widths
    layout = {"blocks": section.blocks, "attention": section.attention, "patch": section.patch, "upsample": section.upsample}
    network = UNet(channels=1, classes=speed_cases.CLASSES, size=size, widths=chosen, dropout=0.2, **layout)
    training = speed_cases.real_training(network, section, (section.batch, 1, size, size), device)
    began = time.perf_counter()
    training(1)
    speed_cases.wait(device)
    first = time.perf_counter() - began
    how = {"repeats": 3, "seconds": seconds}
    timed = speed_cases.timings(training, section.batch, device, **how)
    return {"first": first, "images_per_second": timed["median"], "parameters": sum(p.numel() for p in network.parameters())}


def run(case: str, way: str, cache: str, options: argparse.Namespace) -> dict[str, Any]:
    """A child's answer, or its last line."""
    name, _, size = case.partition(":")
    words = json.dumps([name, int(size), way, options.seconds, options.tiny])
    command = [sys.executable, "-m", "tests.benchmarks.first_step", "--child", words]
    began = time.perf_counter()
    done = subprocess.run(command, env=os.environ | {compilation.FOLDER: cache}, capture_output=True, text=True, check=False)
    told = [line.removeprefix(RESULT) for line in done.stdout.splitlines() if line.startswith(RESULT)]
    if not told:
        return {"error": (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]}
    return json.loads(told[-1]) | {"process": time.perf_counter() - began}


def main() -> None:
    """Time every case in every way, cold and warm."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", default=["pneumoniamnist:28", "dicom_folder:64"], metavar="CONFIG:PIXELS")
    parser.add_argument("--ways", nargs="+", default=WAYS, choices=WAYS)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each timing of speed")
    parser.add_argument("--tiny", action="store_true", help="tiny networks, to see that everything runs")
    parser.add_argument("--out", type=Path, default=Path("results"))
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(RESULT + json.dumps(child(*json.loads(options.child))), flush=True)
        return
    record = report.Record(options.out, BENCHMARK, report.facts())
    rows = []
    for case in options.cases:
        for way in options.ways:
            with tempfile.TemporaryDirectory() as cache:
                for state in ("cold", "warm") if way != "eager" else ("cold",):
                    row = {"case": case, "way": way, "cache": state} | run(case, way, cache, options)
                    record.add(row)
                    rows.append(row)
                    print(row, flush=True)
    keys = ("case", "way", "cache", "first", "images_per_second", "process", "error")
    print(f"torch {torch.__version__}\n" + report.markdown(keys, [[row.get(key) for key in keys] for row in rows]))


if __name__ == "__main__":
    main()
