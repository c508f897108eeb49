"""Pictures for local eyes, and what was drawn, so that any shifted image can be made again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from evaluation.foreign import Answers
from evaluation.shifts import SEVERITIES, SHIFTS, drawn, shift
from pipeline.models.cases import Case
from pipeline.models.draws import draw
from pipeline.models.stress import Found

if TYPE_CHECKING:
    import pandas as pd

FAILURES, SHIFTED, ANSWERS, DRAWS, SYNTHETIC, PAIRS = FILES = (
    "failures.png",
    "shifts.png",
    "answers.npz",
    "draws.parquet",
    "synthetic.parquet",
    "counterfactuals.png",
)
SIDE = 160
SHOWN = 8
HARMFUL = 3


def write(out: Path, found: Found) -> None:
    """Write :data:`FILES`, as far as there is something for them.

    ``answers.npz`` holds probabilities ``[conditions, n, K]``, a second model's as ``against``, labels ``[n]`` (of several findings
    ``[n, K]``: 1, 0, -1) and conditions; ``synthetic.parquet`` a row for each synthetic case, or for each finding of one: kind, label, what
    the judges say of it, whether it was asked, and what the model said.
    """
    lines, captions = _failures(found)
    if lines:
        sheet(out / FAILURES, lines, SHOWN, captions)
    if found.answers.shifted:
        case = _images(found, [0])[0]
        sheet(out / SHIFTED, [(name, _severities(case, found.seen.seeds[0], name)) for name in found.shifts], 1 + len(SEVERITIES))
        _draws(found).to_parquet(out / DRAWS, index=False)
    if found.made is not None:
        found.made.cases.to_parquet(out / SYNTHETIC, index=False)
        if found.made.pairs:
            tiles = [(title, np.stack([_tile(image / np.float32(255)) for image in images])) for title, images in found.made.pairs]
            sheet(out / PAIRS, tiles, SHOWN)
    arrays: dict[str, Any] = {name: np.stack([one.clean, *one.shifted.values()]) for name, one in _models(found).items()}
    labels = found.test.findings if found.cases.several else found.test.labels
    conditions = np.array(["", *(f"{name} {severity}" for name, severity in found.answers.shifted)])
    np.savez(out / ANSWERS, **arrays, labels=labels, conditions=conditions)


def _models(found: Found) -> dict[str, Answers]:
    """The answers by their name in the archive."""
    return {"probabilities": found.answers} | ({"against": found.against} if found.against is not None else {})


def sheet(path: Path, lines: Sequence[tuple[str, NDArray[np.uint8]]], columns: int, captions: Sequence[Sequence[str]] = ()) -> None:
    """A PNG of magnified images without interpolation.

    Args:
        lines: a title and uint8 images ``[n, C, H, W]`` a line; further images than ``columns`` are left out.
        captions: where given, a text above each image of each line.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.1 * columns + 1.6, (1.3 if captions else 1.1) * max(1, len(lines))), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(max(1, len(lines)), columns, squeeze=False)
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
        axis.set_frame_on(False)
    for number, (title, images) in enumerate(lines):
        axes[number, 0].set_ylabel(title, rotation=0, ha="right", va="center", fontsize=8)
        for column, image in enumerate(images[:columns]):
            picture = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
            axes[number, column].imshow(picture, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            if captions:
                axes[number, column].set_title(captions[number][column], fontsize=6)
    figure.savefig(path)


def _draws(found: Found) -> pd.DataFrame:
    """One row a case, shift and parameter: ``case``, ``seed``, ``shift``, ``parameter``, ``value``."""
    import pandas as pd

    parts = []
    for name in found.shifts:
        values = drawn(name, found.seen.seeds)
        for column, parameter in enumerate(SHIFTS[name].ranges):
            facts = {"case": np.arange(len(values)), "seed": found.seen.seeds, "shift": name, "parameter": parameter}
            parts.append(pd.DataFrame(facts | {"value": values[:, column]}))
    return pd.concat(parts, ignore_index=True)


def _failures(found: Found) -> tuple[list[tuple[str, NDArray[np.uint8]]], list[list[str]]]:
    """Of every class the most confident errors on images as they are; and of the most harmful shifts those that they added."""
    of = _of_findings if found.cases.several else _of_classes
    harmful = [row for row in found.result.get("harm", {}).get("conditions", []) if row["stands"]][:HARMFUL]
    conditions = [None, *((row["shift"], row["severity"]) for row in harmful)]
    lines, captions = [], []
    for condition in conditions:
        for title, rows, texts in of(found, condition):
            if len(rows):
                shown = [_tile(_under(case, found.seen.seeds[row], condition)) for row, case in zip(rows, _images(found, rows))]
                lines.append((title, np.stack(shown)))
                captions.append(texts)
    return lines, captions


def _of_classes(found: Found, condition: tuple[str, int] | None) -> list[tuple[str, NDArray[np.int64], list[str]]]:
    labels, names, p = found.test.labels, found.contract.classes, found.answers.at(condition)
    wrong = p.argmax(axis=1) != labels
    of = {name: wrong & (labels == k) for k, name in enumerate(names)}
    if condition is not None:
        of = {f"{condition[0]} {condition[1]}": wrong & (found.answers.clean.argmax(axis=1) == labels)}
    chosen = {title: _surest(p.max(axis=1), rows) for title, rows in of.items()}
    return [
        (title, rows, [f"{names[labels[row]]} as {names[p[row].argmax()]} {p[row].max():.2f}" for row in rows])
        for title, rows in chosen.items()
    ]


def _of_findings(found: Found, condition: tuple[str, int] | None) -> list[tuple[str, NDArray[np.int64], list[str]]]:
    lines = []
    for k, name in enumerate(found.contract.classes):
        marks, p = found.test.findings[:, k], found.answers.at(condition)[:, k]
        wrong = (marks >= 0) & ((p >= 0.5) != (marks == 1))
        if condition is not None:
            wrong &= (found.answers.clean[:, k] >= 0.5) == (marks == 1)
        rows = _surest(np.abs(p - 0.5), wrong)
        title = name if condition is None else f"{name}, {condition[0]} {condition[1]}"
        lines.append((title, rows, [f"{'with' if marks[row] else 'without'} it, said {p[row]:.2f}" for row in rows]))
    return lines


def _surest(confidence: NDArray[np.float64], wrong: NDArray[np.bool_]) -> NDArray[np.int64]:
    rows = np.flatnonzero(wrong)
    return rows[np.argsort(-confidence[rows], kind="stable")][:SHOWN]


def _images(found: Found, rows: Sequence[int] | NDArray[np.int64]) -> list[Case]:
    """The cases with these numbers, read again."""
    ids = [found.seen.rows[row]["id"] for row in rows]
    known = {case.row["id"]: case for case in found.cases.read(sorted({found.seen.tasks[row] for row in rows}))}
    return [known[name] for name in ids]


def _under(case: Case, seed: int, condition: tuple[str, int] | None) -> NDArray[Any]:
    """An image, shifted, as float32 ``[C, H, W]`` in 0..1."""
    import torch

    unit = case.image.astype(np.float32) / (255 if case.image.dtype == np.uint8 else 65535)
    if condition is None:
        return unit
    x = torch.from_numpy(unit)[None]
    return np.asarray(shift(x, *condition, draw(condition[0], [seed], x))[0].numpy())


def _severities(case: Case, seed: int, name: str) -> NDArray[np.uint8]:
    return np.stack([_tile(_under(case, seed, None if not severity else (name, severity))) for severity in (0, *SEVERITIES)])


def _tile(image: NDArray[Any]) -> NDArray[np.uint8]:
    """uint8 ``[3, SIDE, SIDE]``, with black beside what is no square."""
    values = np.rint(image.clip(0, 1) * 255).astype(np.uint8)
    picture = Image.fromarray(values[0] if len(values) == 1 else values.transpose(1, 2, 0)).convert("RGB")
    scale = SIDE / max(picture.size)
    picture = picture.resize((max(1, round(picture.width * scale)), max(1, round(picture.height * scale))), Image.Resampling.BILINEAR)
    tile = Image.new("RGB", (SIDE, SIDE))
    tile.paste(picture, ((SIDE - picture.width) // 2, (SIDE - picture.height) // 2))
    return np.asarray(tile, np.uint8).transpose(2, 0, 1)
