"""Fit the text detector of `pipeline.ingest.deidentify.text_detector` to drawn text, and write its weights.

    python -m tests.benchmarks.fit_text_detector --workers 2 --pictures 60000 --epochs 11
    python -m tests.benchmarks.fit_text_detector --workers 2 --go-on --seed 1000 --pictures 40000 --epochs 5

The second command goes on from the weights before with new pictures, and can be repeated with another seed. The weights that are there came
of an earlier detector that went on with 48 000 pictures from seed 10000 for 4 epochs, and with 12 000 of these and 14 000 from seed 90000,
with scales over pictures and more small letters, for 3; the screen of the 48 000 for 14.

Every batch is drawn anew (:mod:`tests.benchmarks.text_pictures`, and :mod:`tests.benchmarks.clean_pictures` for what only looks like text).
A cell of 8x8 pixels is positive where a line of three letters or more crosses it, and negative everywhere else, one- and two-letter markers
included. Two networks are fitted: the detector, and the screen that says where the detector is to look.
"""

from __future__ import annotations

import argparse
import functools
import math
import multiprocessing
import time
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.numpy import save_file
from safetensors.torch import load_file
from scipy.ndimage import maximum_filter
from torch import nn
from torch.nn import functional

from pipeline.ingest.deidentify.text_detector import STRIDE, normalize
from pipeline.ingest.deidentify.text_screen import FAINT, FLOOR, WEIGHTS
from tests.benchmarks.clean_pictures import clean
from tests.benchmarks.text_pictures import FIT_FACES, Grey, background, burn, finish, ink, words

SIDE = 96
LAYERS = ((1, 32, 8, 4), (32, 48, 3, 2), (48, 48, 3, 1), (48, 48, 3, 1), (48, 48, 3, 1), (48, 1, 1, 1))
"""Channels in and out, side of the kernel, stride."""
SCREEN = ((16, 24, 1, 1), (24, 32, 2, 2), (32, 24, 3, 1), (24, 1, 1, 1))
"""The same for the screen, which starts from the 4x4 means of 2x2 pixels in each block of 8x8."""
FLAT, ALONG = np.full(4, 0.5, np.float32), np.array([-1.5, -0.5, 0.5, 1.5], np.float32) / np.float32(5**0.5)
PLANE = np.stack([np.outer(FLAT, FLAT), np.outer(FLAT, ALONG), np.outer(ALONG, FLAT)], axis=-1).reshape(16, 3)
"""An orthonormal basis of the planes over 4x4 values."""
Sample = tuple[NDArray[np.float32], NDArray[np.float32]]


def network(channels: tuple[tuple[int, int, int, int], ...] = LAYERS) -> nn.Sequential:
    """The convolutions, with a ReLU between them."""
    layers: list[nn.Module] = []
    for before, after, side, stride in channels:
        layers += [nn.Conv2d(before, after, side, stride, (side - stride + 1) // 2), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def draw(rng: np.random.Generator, photographs: list[Grey]) -> Sample:
    """A patch ``[SIDE, SIDE]`` in units of the whole picture's range, and its cells ``[SIDE/8, SIDE/8]``: 1 text, 0 none, -1 left out."""
    picture = clean(rng, SIDE, SIDE) if rng.random() < 0.55 else background(rng, SIDE, SIDE, photographs)
    quiet = bool(rng.random() < 0.3)
    if quiet:  # a dark corner of a picture whose range lies elsewhere
        picture = picture * np.float32(math.exp(rng.uniform(math.log(0.02), 0)))
    cells = np.zeros((SIDE // STRIDE,) * 2, np.float32)
    turns = int(rng.choice([0, 0, 0, 0, 0, 0, 1, 2, 3]))
    picture = np.rot90(picture, -turns).copy()
    for _ in range(rng.integers(1, 5) if rng.random() < 0.5 else 0):
        # From 8 to 26 px; small letters are the hardest, and are drawn more often.
        size = int(8 * 3.25 ** rng.random() ** 2)
        text = words(rng, None if rng.random() < 0.6 else int(rng.integers(3, 7)))
        covered = ink(text, str(rng.choice(FIT_FACES)), size, bool(rng.random() < 0.6))
        covered = (deformed(covered, rng) if rng.random() < 0.5 else covered)[:, : SIDE - 4]
        letters = len(text.replace(" ", ""))
        contrast = np.exp(rng.uniform(np.log(0.04), 0))
        _, line = burn(picture, covered, 0.5, np.random.default_rng(seed := int(rng.integers(2**31))))
        if line is None or letters < 3:
            continue
        top, left, bottom, right = line.box
        under = picture[top:bottom, left:right]
        level = float(under.mean())
        up = rng.random() < 0.75
        value = level + contrast * (1 if up else -1)
        if not 0 <= value <= 1:
            value = level - contrast * (1 if up else -1)
        value = float(np.clip(value, 0, 1))
        boxed = bool(rng.random() < 0.15)
        if outlined := bool(rng.random() < 0.1):
            picture, _ = burn(picture, maximum_filter(covered, 3), float(value < level), np.random.default_rng(seed))
        picture, _ = burn(picture, covered, value, np.random.default_rng(seed), boxed)
        seen = boxed or outlined or abs(value - level) >= max(0.04, 1.3 * float((under - under.mean(1, keepdims=True)).std()))
        _mark(cells, line.box, 1.0 if seen else -1.0)
    picture, cells = np.rot90(picture, turns), np.rot90(cells, turns)
    picture = finish(np.ascontiguousarray(picture), rng)
    # In a real image the range is that of the whole, never less than the patch's.
    span = max(float(np.quantile(picture, 0.995) - np.quantile(picture, 0.005)), 0.1 * float(np.ptp(picture)), 0.7 if quiet else 1e-3)
    picture = (picture - picture.mean()) / np.float32(span * rng.uniform(1, 2))
    return picture, np.ascontiguousarray(cells)


def deformed(covered: Grey, rng: np.random.Generator) -> Grey:
    """Wider or narrower, and slanted now and then: few faces stand for many."""
    height, width = covered.shape
    wide, slant = float(np.exp(rng.normal(0, 0.12))), float(max(0, rng.uniform(-0.3, 0.3)))
    how = Image.Resampling.NEAREST if rng.random() < 0.4 else Image.Resampling.BILINEAR
    size = (int(width * wide + slant * height) + 1, height)
    matrix = (1 / wide, slant / wide, -slant * height / wide, 0, 1, 0)
    return np.asarray(Image.fromarray(covered).transform(size, Image.Transform.AFFINE, matrix, how), np.float32)


def _mark(cells: NDArray[np.float32], box: tuple[int, int, int, int], value: float) -> None:
    """Cells that the box covers by 3 rows and 6 columns or more get ``value``; those that it only touches are left out."""
    top, left, bottom, right = box
    for row in range(top // STRIDE, min(-(-bottom // STRIDE), len(cells))):
        for column in range(left // STRIDE, min(-(-right // STRIDE), len(cells))):
            high = min(bottom, (row + 1) * STRIDE) - max(top, row * STRIDE)
            wide = min(right, (column + 1) * STRIDE) - max(left, column * STRIDE)
            covered = high >= 3 and wide >= 6
            if covered and value > 0:
                cells[row, column] = 1
            elif cells[row, column] != 1:
                cells[row, column] = -1


@functools.cache
def photographs() -> list[Grey]:
    """Pictures without text to crop from: textures and test pictures that scikit-image brings, phantoms at half their size, where the
    vertebrae are as large as letters, and PneumoniaMNIST's training images where SYNTHCOHORT_DATA has them."""
    import os
    from pathlib import Path

    from skimage import data, img_as_float32
    from skimage.color import rgb2gray

    from pipeline.phantom.image import phantom_arrays

    names = ("brick", "grass", "gravel", "cell", "coffee", "chelsea", "moon", "camera", "retina", "immunohistochemistry")
    found = [getattr(data, name)() for name in (*names, "checkerboard", "shepp_logan_phantom")]
    grey = [np.asarray(rgb2gray(image) if image.ndim == 3 else img_as_float32(image), np.float32) for image in found]
    phantoms = phantom_arrays(100, 988, 256)[0][:, 0].astype(np.float32) / 255
    grey += list(phantoms.reshape(-1, 128, 2, 128, 2).mean((2, 4)))
    folder = os.environ.get("SYNTHCOHORT_DATA")
    if folder:
        with np.load(Path(folder, "pneumoniamnist", "pneumoniamnist.npz")) as arrays:
            grey += [image.astype(np.float32) / 255 for image in arrays["train_images"][::40]]
    return grey


def samples(seed: int, count: int) -> Sample:
    """``count`` patches ``float16 [count, SIDE, SIDE]`` and their cells ``int8 [count, SIDE/8, SIDE/8]``."""
    torch.set_num_threads(1)
    rng, pictures = np.random.default_rng(seed), photographs()
    drawn = [draw(rng, pictures) for _ in range(count)]
    return np.stack([one for one, _ in drawn]).astype(np.float16), np.stack([two for _, two in drawn]).astype(np.int8)


def pool(seed: int, count: int, workers: int) -> tuple[torch.Tensor, torch.Tensor]:
    """As :func:`samples`, drawn by several processes; the result depends on neither their number nor their order."""
    with multiprocessing.get_context("fork").Pool(workers) as processes:
        parts = processes.starmap(samples, [(seed + number, 1000) for number in range(count // 1000)], chunksize=1)
    images, cells = zip(*parts)
    return torch.from_numpy(np.concatenate(images))[:, None], torch.from_numpy(np.concatenate(cells))[:, None]


def screened(patches: torch.Tensor, cells: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """``[n, 1, H, W]`` as the screen sees it (`text_screen.screen`), ``[n, 16, H/8, W/8]``, and its cells ``[n, 1, H/16, W/16]``.

    A cell of 16x16 pixels is text where one of its four is, left out where one is left out or where there is nothing to be seen.
    """
    blocks = functional.pixel_unshuffle(functional.avg_pool2d(patches, 2), 4)
    mean, square = blocks.mean(1, keepdim=True), blocks.square().mean(1, keepdim=True)
    mean, square = (functional.avg_pool2d(functional.pad(part, (1, 1, 1, 1), "replicate"), 3, 1) for part in (mean, square))
    even = (blocks - mean) / ((square - mean**2).clamp(min=0).sqrt() + FLOOR)
    plane = functional.conv2d(blocks, torch.from_numpy(PLANE.T[..., None, None].copy()))
    rest = blocks.square().sum(1, keepdim=True) - plane.square().sum(1, keepdim=True)
    alive = functional.avg_pool2d(rest, 2) > 16 * FAINT**2
    coarse = torch.where(functional.max_pool2d(cells, 2) > 0, 1.0, torch.where(functional.max_pool2d(-cells, 2) > 0, -1.0, 0.0))
    return even * functional.interpolate(alive.float(), scale_factor=2), torch.where(alive, coarse, -1.0)


def epoch(images: torch.Tensor, cells: torch.Tensor, batch: int, generator: torch.Generator) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Shuffled batches, each inverted or not."""
    for index in torch.randperm(len(images), generator=generator).split(batch):
        sign = 1 - 2 * torch.randint(0, 2, (len(index), 1, 1, 1), generator=generator)
        yield images[index].float() * sign, cells[index].float()


def loss_of(logits: torch.Tensor, cells: torch.Tensor) -> torch.Tensor:
    """Mean over text, mean over the rest, and the worst cell of the rest in each patch: one false cell quarantines an image."""
    each = functional.binary_cross_entropy_with_logits(logits, cells.clamp(min=0), reduction="none")
    text, rest = cells == 1, cells == 0
    worst = torch.where(rest, each, 0).flatten(1).max(1).values.mean()
    return each[text].mean() + each[rest].mean() + 0.5 * worst


def fit(
    model: nn.Sequential, images: torch.Tensor, cells: torch.Tensor, epochs: int, rate: float, batch: int, generator: torch.Generator
) -> None:
    """AdamW under one cycle of the learning rate."""
    started = time.time()
    model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), rate, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, epochs * -(-len(images) // batch), pct_start=0.1)
    for number in range(epochs):
        total, count = 0.0, 0
        for patches, truth in epoch(images, cells, batch, generator):
            with torch.autocast("cpu", torch.bfloat16):  # twice as fast where the processor has it
                logits = model(patches.to(memory_format=torch.channels_last))
            loss = loss_of(logits.float(), truth)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total, count = total + loss.item(), count + 1
        print(f"epoch {number + 1}, {time.time() - started:.0f} s: loss {total / count:.4f}", flush=True)


def main() -> None:
    """Fit, and write the weights beside the module that uses them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=60_000)
    parser.add_argument("--epochs", type=int, default=11)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--go-on", action="store_true", help="start the detector from the weights that are there")
    arguments = parser.parse_args()
    started = time.time()
    images, cells = pool(arguments.seed, arguments.pictures, arguments.workers)
    print(f"{len(images)} patches drawn in {time.time() - started:.0f} s", flush=True)
    torch.manual_seed(arguments.seed)
    generator = torch.Generator().manual_seed(arguments.seed)
    screen = network(SCREEN)
    seen = [screened(part.float(), truth.float()) for part, truth in zip(images.split(1000), cells.split(1000))]
    fit(screen, torch.cat([one for one, _ in seen]), torch.cat([two for _, two in seen]), arguments.epochs, 6e-3, 256, generator)
    model = network()
    if arguments.go_on:
        before = load_file(WEIGHTS)
        model.load_state_dict({name: value for name, value in before.items() if not name.startswith("screen")})
    even = torch.from_numpy(np.stack([normalize(image.astype(np.float32), 1.0) for image in images[:, 0].numpy()]).astype(np.float16))
    fit(model, even[:, None], cells, arguments.epochs, 2e-3 if arguments.go_on else 4e-3, arguments.batch, generator)
    arrays = {f"screen.{name}": value for name, value in screen.state_dict().items()} | model.state_dict()
    solid = {name: np.ascontiguousarray(value.detach().numpy().astype(np.float32)) for name, value in arrays.items()}
    save_file(solid, WEIGHTS, {"made_by": "tests/benchmarks/fit_text_detector.py"})
    WEIGHTS.chmod(0o644)


if __name__ == "__main__":
    main()
