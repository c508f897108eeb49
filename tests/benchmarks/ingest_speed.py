"""Files a second of one core through ingest, against a plain loop and MONAI; memory at 1 000 and 10 000 files.

    python -m tests.benchmarks.ingest_speed --files 400 --out results

Three ways to the same standardised images, each on one core: `ingest` (isolation, standardisation, de-identification, journal), with the
text guard and without; a plain loop of pydicom's `dcmread` and `pixel_array` with the same window and resize; MONAI's `LoadImage` and
`Resize`. The files are DX images of 12 bits, uncompressed, RLE and JPEG 2000. Starting the worker counts. Rounds alternate; ratios are of
the best rounds, because other work on the machine only ever slows one down, and the median over rounds. Memory is the peak of the parent,
each count of files in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.ingest import collect, isolate
from pipeline.ingest.readers import dicom
from pipeline.ingest.standardize import Target, standardize
from tests.benchmarks.hostile_files import KEY, Everything, data_of, header

SIZE = 64
GUARDED = "ingest with text guard"
KINDS = ("uncompressed", "rle", "jpeg2000")


def main() -> None:
    """Measure, print, and write where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=400)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--kinds", nargs="*", default=list(KINDS), choices=KINDS)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--memory", type=int, nargs="*", default=[1000, 10_000])
    parser.add_argument("--peak-of", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if arguments.peak_of:
        print(json.dumps(peak(arguments.peak_of)))
        return
    found: dict[str, Any] = {"side": arguments.side, "size": SIZE, "files": arguments.files}
    found["files_per_second"] = {kind: speeds(kind, arguments.files, arguments.side, arguments.rounds) for kind in arguments.kinds}
    found["ratios"] = {kind: ratios(rates) for kind, rates in found["files_per_second"].items()}
    found["peak_mib"] = {str(count): peaks(count) for count in arguments.memory}
    print(json.dumps(found, indent=1))
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / "ingest_speed.json").write_text(json.dumps(found, indent=1))


def write(folder: Path, kind: str, count: int, side: int) -> None:
    """``count`` files of smooth anatomy with noise."""
    from pydicom.uid import JPEG2000Lossless, RLELossless, generate_uid
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(0)
    anatomy = gaussian_filter(rng.normal(size=(side, side)), side / 20)
    anatomy = 2000 + 1200 * anatomy / np.abs(anatomy).max()
    for number in range(count):
        pixels = np.clip(np.roll(anatomy, 7 * number, 1) + rng.normal(0, 20, (side, side)), 0, 4095).astype(np.uint16)
        found = header(pixels, WindowCenter=2048, WindowWidth=4096, SOPInstanceUID=generate_uid())
        if kind != "uncompressed":
            found.compress({"rle": RLELossless, "jpeg2000": JPEG2000Lossless}[kind], generate_instance_uid=False)
        (folder / f"{number:05d}.dcm").write_bytes(data_of(found))


def speeds(kind: str, files: int, side: int, rounds: int) -> dict[str, list[float]]:
    """Files a second in each of ``rounds``, by way."""
    ways: dict[str, Callable[[Path], None]] = {
        "ingest": lambda folder: ingest(folder, "declared"),
        GUARDED: lambda folder: ingest(folder, "strict"),
        "plain loop": plain,
        "MONAI": monai_loop(),
    }
    found: dict[str, list[float]] = {label: [] for label in ways}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder, kind, files, side)
        for way in ways.values():  # imports, caches, the workers' server
            way(folder)
        for _ in range(rounds):
            for label, way in ways.items():
                started = time.perf_counter()
                way(folder)
                found[label].append(round(files / (time.perf_counter() - started), 1))
    return found


def ratios(rates: dict[str, list[float]]) -> dict[str, Any]:
    """Of the best rounds, and as the median of the rounds: ingest over its peers, and the time with the text guard over that without."""

    def over(peer: str) -> dict[str, float]:
        each = [one / other for one, other in zip(rates["ingest"], rates[peer])]
        return {"best": round(max(rates["ingest"]) / max(rates[peer]), 2), "median": round(float(np.median(each)), 2)}

    guard = 1000 / max(rates[GUARDED]) - 1000 / max(rates["ingest"])
    return {
        "ingest over plain loop": over("plain loop"),
        "ingest over MONAI": over("MONAI"),
        "time with the text guard over time without": over(GUARDED),
        "text guard, ms an image": round(guard, 2),
    }


def ingest(folder: Path, burned_in: str, workers: int = 1) -> None:
    """Everything that ingest does to a file, into a store that is thrown away."""
    names = sorted(path.name for path in folder.glob("*.dcm"))
    settings = collect.Settings(folder, dicom.read_each, Everything(), KEY, Target(SIZE), patients=False, burned_in=burned_in)  # type: ignore[arg-type]
    with tempfile.TemporaryDirectory() as store:
        found = collect.collect(Path(store), settings, [collect.Task((name,)) for name in names], workers)
        assert len(found.images()) == len(names)


def plain(folder: Path) -> None:
    """What a script would do: decode, window, resize, in one process without a bound on anything."""
    import threadpoolctl
    from pydicom import dcmread

    with threadpoolctl.threadpool_limits(1):  # as a worker
        for path in sorted(folder.glob("*.dcm")):
            found = dcmread(path)
            pixels = found.pixel_array.astype(np.float32)[None]
            low = float(found.WindowCenter) - 0.5 - (float(found.WindowWidth) - 1) / 2
            standardize(pixels, low, low + float(found.WindowWidth) - 1, Target(SIZE))


def monai_loop() -> Callable[[Path], None]:
    """MONAI's reader and its resize by area."""
    import torch
    from monai.transforms import Compose, EnsureChannelFirst, LoadImage, Resize

    transform = Compose([LoadImage(image_only=True, reader="PydicomReader"), EnsureChannelFirst(), Resize((SIZE, SIZE), mode="area")])

    def run(folder: Path) -> None:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        for path in sorted(folder.glob("*.dcm")):
            transform(path)
        torch.set_num_threads(threads)

    return run


def peaks(count: int) -> dict[str, int]:
    """Peak memory in MiB of a process that ingests ``count`` files of 128 px, near-duplicates included; each count in a new one."""
    with tempfile.TemporaryDirectory() as name:
        write(Path(name), "uncompressed", count, 128)
        done = subprocess.run([sys.executable, "-m", "tests.benchmarks.ingest_speed", "--peak-of", name], capture_output=True, check=True)
    return dict(json.loads(done.stdout))


def peak(folder: Path) -> dict[str, int]:
    """In the process itself: what it took to collect the files and to cluster them."""
    from pipeline.ingest.duplicates import near_duplicates

    names = sorted(path.name for path in folder.glob("*.dcm"))
    settings = collect.Settings(folder, dicom.read_each, Everything(), KEY, Target(SIZE), patients=False)
    with tempfile.TemporaryDirectory() as store:
        found = collect.collect(Path(store), settings, [collect.Task((name,)) for name in names], isolate.usable_cores())
        collected = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
        images = found.images()
        near_duplicates(images)
        mapped = images.nbytes >> 20  # pages of the file, which the system takes back when it needs them
    whole = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    return {"files": len(names), "reading": collected, "with near-duplicates": whole, "of that the mapped images": mapped}


if __name__ == "__main__":
    main()
