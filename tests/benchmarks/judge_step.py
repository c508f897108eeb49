"""Where a judge's training step spends its processor time on a CPU, beside what matrix products reach there. Needs torch and numpy.

    OMP_NUM_THREADS=1 ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 MKL_ENABLE_INSTRUCTIONS=AVX2 \\
        python -m tests.benchmarks.judge_step --out results

One network (``small``), batches of 64 images of 32 x 32 and of noise, as the quickstart has them; processor time, which other work on the
machine moves less than a clock. ``alone`` are its 3 x 3 convolutions, forward and backward, each by itself.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from evaluation.data import Labelled
from evaluation.training import BATCH, CHECK, Learner, Task
from pipeline import runtime

CONVOLUTIONS = ((1, 32, 2, 32), (32, 32, 1, 16), (32, 32, 1, 16), (32, 64, 2, 16), (64, 64, 1, 8))
"""Maps before and after, stride, and side before, of the small network at 32 x 32."""


def milliseconds(work: Callable[[], Any], times: int) -> float:
    """Processor time of one call, the median of so many."""
    for _ in range(5):
        work()
    found = []
    for _ in range(times):
        since = time.process_time()
        work()
        found.append(1e3 * (time.process_time() - since))
    return float(np.median(found))


def learner(rng: np.random.Generator) -> Learner:
    """A training of noise at the quickstart's shape: 2 000 images, 280 held-out ones."""
    labels, held = rng.integers(0, 5, 2000), rng.integers(0, 5, 280)
    choose = Labelled.of_classes(rng.integers(0, 256, (280, 1, 32, 32), dtype=np.uint8), held, np.arange(280), 5)
    task = Task(rng.normal(0, 0.3, (2000, 1, 32, 32)).astype(np.float32), labels, 5, 0, choose)
    moved = {id(array): torch.from_numpy(np.ascontiguousarray(array)) for array in (task.images, choose.unit)}
    return Learner(task, "small", 4096, "cpu", moved)


def convolution(before: int, after: int, stride: int, side: int) -> Callable[[], None]:
    """One convolution, forward and backward; the first needs no gradient of the images."""
    layer = nn.Conv2d(before, after, 3, stride, 1, bias=False).to(memory_format=torch.channels_last)
    x = torch.randn(BATCH, before, side, side).to(memory_format=torch.channels_last).requires_grad_(before > 1)
    upstream = torch.randn_like(layer(x))
    return lambda: layer(x).backward(upstream)


def main() -> None:
    """Measure, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=100)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    runtime.reuse_memory()
    one = learner(np.random.default_rng(0))

    def step() -> None:
        one.advance()
        one.counted()

    square = torch.randn(1024, 1024)
    products = 3 * BATCH * sum(9 * a * b * (side // stride) ** 2 for a, b, stride, side in CONVOLUTIONS[1:])
    products += 2 * BATCH * 9 * 32 * 16**2  # the first: no gradient of the images
    alone = sum(milliseconds(convolution(*shape), options.times) for shape in CONVOLUTIONS)
    found = {
        "step": milliseconds(step, options.times),
        "alone": alone,
        "look": milliseconds(one._loss, max(3, options.times // 10)),
        "steps_a_look": CHECK // BATCH,
        "convolutions_gigaproducts_per_second": products / alone / 1e6,
        "matrices_gigaproducts_per_second": 1024**3 / milliseconds(lambda: square @ square, options.times) / 1e6,
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "bfloat16": bool(one.device == "cpu" and runtime.bf16_pays("cpu")),
    }
    print(json.dumps(found, indent=1))
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "judge_step.json").write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
