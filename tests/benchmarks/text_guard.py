"""The text guard: recall by letter height and contrast, false quarantine on clean images, time.

    SYNTHCOHORT_DATA=... python -m tests.benchmarks.text_guard --out results

Recall is measured on text in faces that the detector was not fitted to (all but the raster face), on phantoms, speckle, noise and, where
SYNTHCOHORT_DATA names the real files, on real slices; a picture holds one line of five letters or more. Contrast is the step between text
and what is under it, as a share of the picture's range. The real DICOM files were looked at by eye: those in `WITH_TEXT` show writing.
"""

from __future__ import annotations

import argparse
import json
import os
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.stats import beta

from pipeline.ingest.deidentify.allow_list import MARKERS
from pipeline.ingest.deidentify.text_guard import THRESHOLD, has_text, planes
from tests.benchmarks.look_alikes import look_alikes, slices
from tests.benchmarks.text_pictures import HELD_OUT_FACES, Grey, background, burn, finish, ink, phantom, text_score, words

HEIGHTS = (8, 10, 12, 16, 24, 40, 80)
CONTRASTS = (0.1, 0.2, 0.4, 0.8)
SIDE = 320
PARTS = ("recall", "false", "markers", "scripts", "real_with_text", "ms_per_megapixel")
# Text counts where its contrast is so many times the deviation of what is under it, at the scale of its strokes: a person can read it.
LEGIBLE = 3
# Invented names and words; no face for Chinese, Japanese and Korean comes with matplotlib, so nothing is known of them.
SCRIPTS = {
    "Cyrillic": ("Иванов Пётр", "БОЛЬНИЦА 7", "Смирнова А."),
    "Greek": ("Παπαδόπουλος", "ΝΟΣΟΚΟΜΕΙΟ"),
    "Armenian": ("Գրիգորյան", "Հիվանդանոց"),
    "Arabic, letters unjoined": ("محمد أحمد", "مستشفى"),
}
WITH_TEXT = frozenset({"examples_jpeg2k", "examples_palette", "examples_rgb_color", "examples_ybr_color", "GDCMJ2K_TextGBR"})


def main() -> None:
    """Print the tables; write them where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=100, help="for each height and contrast")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn: another one gives other pictures with and without text")
    parser.add_argument("--only", nargs="*", choices=PARTS, default=PARTS)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    named = os.environ.get("SYNTHCOHORT_DATA")
    data, pictures, seed = Path(named) if named else None, arguments.pictures, arguments.seed
    parts: dict[str, Callable[[], Any]] = {
        "recall": lambda: recall(pictures, seed),
        "false": lambda: false_quarantine(data, pictures * 10, seed),
        "markers": lambda: markers(pictures * 4),
        "scripts": lambda: scripts(pictures),
        "real_with_text": lambda: with_text(data) if data else "SYNTHCOHORT_DATA is not set",
        "ms_per_megapixel": milliseconds,
    }
    found = {}
    for part in arguments.only:
        found[part] = parts[part]()
        SHOWN[part](found[part])
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / "text_guard.json").write_text(json.dumps(found, indent=1))


def recall(pictures: int, seed: int = 0) -> dict[str, dict[str, Any]]:
    """Share of pictures with text in which it is found, by letter height (em, pixels) and contrast."""
    table: dict[str, dict[str, Any]] = {}
    for height in HEIGHTS:
        for contrast in CONTRASTS:
            rng = np.random.default_rng([1, height, int(100 * contrast)] + [seed] * (seed > 0))
            drawn = [written(rng, height, contrast) for _ in range(pictures)]
            hits, alone = sum(map(has_text, drawn)), sum(text_score(picture) >= THRESHOLD for picture in drawn)
            cell = {"found": hits, "of": pictures, "low": lower(hits, pictures), "by the detector alone": alone}
            table.setdefault(str(height), {})[str(contrast)] = cell
    return table


def scripts(pictures: int) -> dict[str, Any]:
    """Share of pictures in which text in scripts that the detector was not fitted to is found, at 12 to 24 px and contrast .5."""
    found = {}
    for name, lines in SCRIPTS.items():
        rng = np.random.default_rng([4, len(name)])
        faces, choices = ("DejaVuSans", "DejaVuSans-Bold"), list(lines)
        pictured = (written(rng, int(rng.integers(12, 24)), 0.5, lines=choices, faces=faces) for _ in range(pictures))
        hits = sum(map(has_text, pictured))
        found[name] = {"found": hits, "of": pictures}
    return found


def written(
    rng: np.random.Generator,
    height: int,
    contrast: float,
    letters: int | None = None,
    lines: list[str] | None = None,
    faces: tuple[str, ...] = HELD_OUT_FACES,
) -> Grey:
    """A picture with one line of text of the given em height and contrast: one of ``lines``, or as a scanner would print it."""
    while True:
        side = max(SIDE, 8 * height)
        picture = background(rng, side, side)
        text = words(rng) if letters is None else str(rng.choice(["R", "L"])) if letters == 1 else words(rng, letters)
        text = str(rng.choice(lines)) if lines else text
        covered = ink(text, str(rng.choice(faces)), height, bool(rng.random() < 0.5))
        marker = all(word in MARKERS for word in text.upper().split())  # these stay on purpose
        if (letters is None and (marker or len(text.replace(" ", "")) < 5)) or covered.shape[1] > side - 6:
            continue
        _, line = burn(picture, covered, 0, np.random.default_rng(place := int(rng.integers(2**31))))
        assert line is not None
        top, left, bottom, right = line.box
        under = picture[top:bottom, left:right]
        level, span = float(under.mean()), max(float(np.ptp(np.quantile(picture, [0.005, 0.995]))), 0.5)
        if float((under - gaussian_filter(under, height / 4)).std()) > contrast * span / LEGIBLE:
            continue
        value = level + contrast * span
        value = value if value <= 1 else level - contrast * span
        if value < 0:
            value = 1.0 if level < 0.5 else 0.0
        return finish(burn(picture, covered, value, np.random.default_rng(place))[0], rng)


def markers(pictures: int) -> dict[str, Any]:
    """Share of pictures with R or L alone, or with two to four letters, that are quarantined, at heights of 16 to 48 px."""
    rng = np.random.default_rng(2)
    marked = [
        burn(phantom(rng, SIDE, SIDE), ink(str(rng.choice(["R", "L"])), "DejaVuSans-Bold", int(rng.integers(16, 48)), True), 1.0, rng)[0]
        for _ in range(pictures)
    ]
    found = {"1, white and bold on a phantom radiograph": {"found": sum(map(has_text, marked)), "of": pictures}}
    for letters in (1, 2, 3, 4):
        rng = np.random.default_rng([2, letters])
        hits = sum(has_text(written(rng, int(rng.integers(16, 48)), 0.6, letters)) for _ in range(pictures))
        found[str(letters)] = {"found": hits, "of": pictures}
    return found


def false_quarantine(data: Path | None, pictures: int, seed: int = 0) -> dict[str, Any]:
    """Share of clean pictures that are taken for text, by source, with the upper bound of its 95 % interval."""
    from pipeline.phantom.image import phantom_arrays

    rng = np.random.default_rng(3 + 1000 * seed)
    phantoms = phantom_arrays(pictures // 3, 44 + 1000 * seed, 256)[0][:, 0].astype(np.float32)
    real = list(clean(data)) if data is not None else []
    named = [("drawn: noise, speckle, shapes, rulers, wires, traces", finish(background(rng, SIDE, SIDE), rng)) for _ in range(pictures)]
    named += [("phantom radiographs, 256 px", phantom) for phantom in phantoms]
    named += [*look_alikes(slices(iter(real)), pictures // 5, 7 + 1000 * seed), *(real if seed == 0 else [])]
    sources: dict[str, list[tuple[bool, float]]] = {}
    for name, picture in named:
        sources.setdefault(name, []).append((has_text(picture), text_score(picture)))
    result = {}
    for name, found in sources.items():
        hits, scores = sum(text for text, _ in found), [score for _, score in found]
        alone = sum(score >= THRESHOLD for score in scores)
        interval = {"high": 1 - lower(len(found) - hits, len(found)), "largest": max(scores)}
        result[name] = {"found": hits, "of": len(found), "by the detector alone": alone, **interval}
    return result


def clean(data: Path) -> Iterator[tuple[str, Grey]]:
    """Real images without text: every slice of the volumes, every decodable DICOM file that shows none."""
    import nibabel

    for path in sorted((data / "nifti_small").glob("*.nii*")):
        if "label" in path.name or "output" in path.name:
            continue
        values = np.asarray(nibabel.load(path).dataobj, np.float32)  # type: ignore[attr-defined]
        values = values[..., 0] if values.ndim == 4 else values
        for axis in range(3):
            for plane in np.moveaxis(values, axis, 0):
                if min(plane.shape) >= 32 and np.ptp(plane) > 0:
                    yield "NIfTI slices (CT, MR), all three directions", plane
    for path, pixels in dicom(data):
        if path.stem not in WITH_TEXT:
            for plane in planes(pixels):
                yield "DICOM images", plane
    for split, count in (("pneumoniamnist", 300), ("breastmnist", 300)):
        with np.load(data / split / f"{split}.npz") as arrays:
            for image in arrays["test_images"][:count]:
                yield f"{split}, 28 px enlarged to 224", _enlarged(image)


def _enlarged(image: Any) -> Grey:
    from PIL import Image

    return np.asarray(Image.fromarray(image.astype(np.float32)).resize((224, 224), Image.Resampling.BICUBIC), np.float32)


def dicom(data: Path) -> Iterator[tuple[Path, Any]]:
    """Every DICOM file of the real folders that decodes, at least 32 px: ``[C, H, W]``, the first frame of several."""
    import pydicom

    for path in sorted(path for folder in data.glob("dicom_*") for path in folder.rglob("*.dcm")):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                header = pydicom.dcmread(path, force=True)
                pixels = header.pixel_array.astype(np.float32)
            except Exception:
                continue
        if header.get("Modality") in ("SEG", "SM") or "PixelData" not in header:
            continue
        colour = header.get("SamplesPerPixel", 1) == 3
        pixels = pixels[0] if pixels.ndim == 3 + colour else pixels
        pixels = np.moveaxis(pixels, -1, 0) if colour else pixels[None]
        if min(pixels.shape[1:]) >= 32:
            yield path, pixels


def with_text(data: Path) -> dict[str, dict[str, float]]:
    """What the guard says of every real file that shows writing, and the detector's score."""
    found = {path.stem: planes(pixels) for path, pixels in dicom(data) if path.stem in WITH_TEXT}
    return {name: {"found": any(map(has_text, pictures)), "score": max(map(text_score, pictures))} for name, pictures in found.items()}


def milliseconds(side: int = 2048, repeats: int = 5) -> float:
    """CPU time for a megapixel of noise, one core."""
    import threadpoolctl

    picture = np.random.default_rng(0).random((side, side), np.float32)
    with threadpoolctl.threadpool_limits(1):
        text_score(picture)
        started = time.process_time()
        for _ in range(repeats):
            text_score(picture)
        return (time.process_time() - started) / repeats / side**2 * 1e9


def lower(hits: int, count: int) -> float:
    """Lower bound of the 95 % Clopper-Pearson interval (one-sided 97.5 %)."""
    return float(beta.ppf(0.025, hits, count - hits + 1)) if hits else 0.0


def show_recall(found: dict[str, Any]) -> None:
    """The table as Markdown, as those of the other parts."""
    print(f"threshold {THRESHOLD}\n\n| em height, px | " + " | ".join(f"contrast {contrast}" for contrast in CONTRASTS) + " |")
    print("|---" * (1 + len(CONTRASTS)) + "|")
    for height, row in found.items():
        print(f"| {height} | " + " | ".join(f"{100 * cell['found'] / cell['of']:.0f} %" for cell in row.values()) + " |", flush=True)


def show_shares(found: dict[str, Any]) -> None:
    """Markers and scripts."""
    print("\n| | quarantined |\n|---|---|")
    for name, cell in found.items():
        print(f"| {name} | {100 * cell['found'] / cell['of']:.0f} % |", flush=True)


def show_false(found: dict[str, Any]) -> None:
    """Clean images."""
    print("\n| clean images | n | false | 95 % upper bound | largest score |\n|---|---|---|---|---|")
    for name, cell in found.items():
        print(f"| {name} | {cell['of']} | {100 * cell['found'] / cell['of']:.2f} % | {100 * cell['high']:.1f} % | {cell['largest']:.1f} |")
    hits, count = (sum(cell[key] for cell in found.values()) for key in ("found", "of"))
    print(f"| all | {count} | {hits}: {100 * hits / count:.2f} % | {100 * (1 - lower(count - hits, count)):.1f} % | |", flush=True)


SHOWN: dict[str, Callable[[Any], None]] = {
    "recall": show_recall,
    "false": show_false,
    "markers": show_shares,
    "scripts": show_shares,
    "real_with_text": lambda found: print(f"\nreal files with text: {found}"),
    "ms_per_megapixel": lambda found: print(f"CPU time for a megapixel: {found:.0f} ms"),
}


if __name__ == "__main__":
    main()
