"""A blinded reading: real and synthetic pictures of a run side by side for people who look, and what their answers say.

Each picture gets a number at random; who is which stands in a key that readers do not get. The real ones are sealed (``audit``) images,
which the generator never saw, as many of a class as synthetic ones, and go through the same writing. A reader rates each picture from 1
(certainly real) to 5 (certainly synthetic), the ordinal scale of ROC studies, and may name the finding. Until somebody who reads such
images for a living has answered, nothing is known of clinical realism.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from evaluation.comparisons import difference
from evaluation.intervals import Interval, interval, share_interval
from evaluation.metrics import auc_estimate, share_estimate
from pipeline import artifacts, folders, runtime
from pipeline.errors import InputError
from pipeline.images import ImageSet

ANSWERS, KEY, SHEETS = "answers.csv", "key.csv", "sheets"
COLUMNS, ROWS = 5, 4
SIDE, MARGIN, CAPTION = 224, 16, 16
"""Pixels that the side of a picture has at least on a sheet, between pictures, and below each for its number."""
REAL, SYNTHETIC = "real", "synthetic"
RATINGS = ("1", "2", "3", "4", "5")
WHAT = "PATIENT DATA - do not pass on. Rate each: 1 certainly real, 2, 3 cannot tell, 4, 5 certainly synthetic"


@dataclass(frozen=True)
class Key:
    """Who is which, by number of picture from 1 on.

    Attributes:
        synthetic: whether a picture is, ``bool [n]``.
        classes: its finding by its label.
        groups: the patient of a real one; a synthetic one is by itself.
    """

    synthetic: NDArray[np.bool_]
    classes: NDArray[np.str_]
    groups: NDArray[np.str_]


@dataclass(frozen=True)
class Score:
    """What one reader's answers say.

    Attributes:
        reader: the file's name without its ending.
        rated: pictures with a rating, of ``pictures``.
        auc: how well the ratings tell synthetic pictures from real ones: .5 for not at all, 1 for always.
        per_class: the same within each class of which both kinds were rated.
        findings: share of pictures whose finding was named as it is labelled, on real ones, on synthetic ones, and their difference
            (synthetic − real); None where none was named of either.
    """

    reader: str
    pictures: int
    rated: int
    auc: Interval
    per_class: Mapping[str, Interval]
    findings: tuple[Interval, Interval, Interval] | None


def export(run: Path, out: Path, per_class: int, seed: int) -> int:
    """Write ``sheets/``, ``answers.csv`` to be filled in, and ``key.csv``; returns how many pictures there are.

    Args:
        run: a run folder with ``ingest`` and ``generate``.
        out: a folder that is not there yet, or is empty; it holds patient data.
        per_class: real images of each class, and synthetic ones, at the most.
        seed: draws them and their order.

    Raises:
        InputError: a stage is not finished, or no class has both; ``out`` holds something or lies in the run folder.
    """
    folders.claim_alone(out, {"RUN": run}, ours=False)
    for stage in ("ingest", "generate"):
        if artifacts.load_record(run / stage) is None:
            raise InputError(f"{run.name} has no finished {stage} stage: finish it first (synthcohort run CONFIG --until generate)")
    sealed, made = ImageSet.load(run / "ingest").split("audit"), ImageSet.load(run / "generate")
    rng = np.random.default_rng(runtime.derive_seed(seed, "reading"))
    chosen = _chosen(sealed, made, per_class, rng)
    if not chosen:
        raise InputError(f"{run.name} has no class with both sealed and synthetic images: nothing to read")
    order = rng.permutation(len(chosen))
    pictures, rows = [], []
    for number, place in enumerate(order, start=1):
        images, row = (made, chosen[place][1]) if chosen[place][0] == SYNTHETIC else (sealed, chosen[place][1])
        name = "id" if images is made or "patient" not in images.rows else "patient"
        pictures.append(np.asarray(images.images[row]))
        rows.append([number, chosen[place][0], images.classes[images.labels[row]], images.rows[name].iloc[row]])
    out.mkdir(parents=True, exist_ok=True, mode=0o700)
    (out / SHEETS).mkdir()
    for page, start in enumerate(range(0, len(pictures), COLUMNS * ROWS), start=1):
        sheet(pictures[start : start + COLUMNS * ROWS], start + 1).save(out / SHEETS / f"sheet-{page:02d}.png")
    _write(out / ANSWERS, ["picture", "rating", "finding"], [[row[0], "", ""] for row in rows])
    _write(out / KEY, ["picture", "origin", "class", "group"], rows)
    return len(rows)


def _chosen(sealed: ImageSet, made: ImageSet, per_class: int, rng: np.random.Generator) -> list[tuple[str, int]]:
    """Origin and row of as many pictures of either origin in each class; of a patient one picture, while there are others."""
    found = []
    for name in made.classes:
        if name not in sealed.classes:
            continue
        real = rng.permutation(np.flatnonzero(sealed.labels == sealed.classes.index(name)))
        if "patient" in sealed.rows:
            patients = sealed.rows["patient"].to_numpy()[real]
            again = np.array([int((patients[:k] == one).sum()) for k, one in enumerate(patients)], np.int64)
            real = real[np.argsort(again, kind="stable")]
        synthetic = rng.permutation(np.flatnonzero(made.labels == made.classes.index(name)))
        count = min(per_class, len(real), len(synthetic))
        found += [(REAL, int(row)) for row in real[:count]] + [(SYNTHETIC, int(row)) for row in synthetic[:count]]
    return found


def sheet(pictures: Sequence[NDArray[np.uint8]], first: int) -> Image.Image:
    """A page of pictures ``uint8 [C, H, W]``, magnified by a whole number and numbered from ``first`` on."""
    height, width = pictures[0].shape[1:]
    times = max(1, -(-SIDE // max(height, width)))
    wide, high = width * times + MARGIN, height * times + CAPTION + MARGIN
    page = Image.new("RGB", (COLUMNS * wide + MARGIN, -(-len(pictures) // COLUMNS) * high + MARGIN + CAPTION), "white")
    draw = ImageDraw.Draw(page)
    draw.text((MARGIN, MARGIN // 2), WHAT, fill="black")
    for place, picture in enumerate(pictures):
        x, y = MARGIN + place % COLUMNS * wide, MARGIN + CAPTION + place // COLUMNS * high
        plane = Image.fromarray(picture[0] if len(picture) == 1 else picture.transpose(1, 2, 0)).convert("RGB")
        page.paste(plane.resize((width * times, height * times), Image.Resampling.NEAREST), (x, y))
        draw.text((x, y + height * times), str(first + place), fill="black")
    return page


def score(folder: Path, answers: Sequence[Path]) -> list[Score]:
    """What readers' answers say, each a filled-in copy of ``answers.csv``.

    Raises:
        InputError: the key is missing or damaged; answers that cannot be read, all of them in one line.
    """
    key = _key(folder / KEY)
    wrong: list[str] = []
    found = [_score(path.stem, key, *_answers(path, len(key.synthetic), wrong)) for path in answers]
    if wrong:
        raise InputError("; ".join(wrong[:8]) + ("" if len(wrong) <= 8 else f"; and {len(wrong) - 8} more"))
    return found


def _score(reader: str, key: Key, ratings: NDArray[np.float64], named: NDArray[np.str_]) -> Score:
    rated = np.isfinite(ratings)

    def told(rows: NDArray[np.bool_]) -> Interval:
        return interval(auc_estimate(ratings[rows], key.synthetic[rows], key.groups[rows]))

    per_class = {}
    for name in np.unique(key.classes):
        rows = rated & (key.classes == name)
        if len(np.unique(key.synthetic[rows])) == 2:
            per_class[str(name)] = told(rows)
    findings = None
    sides = [(named != "") & (key.synthetic == synthetic) for synthetic in (False, True)]
    if all(side.any() for side in sides):
        hits = [share_estimate(named[side] == np.char.lower(key.classes[side]), key.groups[side]) for side in sides]
        findings = share_interval(hits[0]), share_interval(hits[1]), difference(hits[1], hits[0])
    both = len(np.unique(key.synthetic[rated])) == 2
    auc = told(rated) if both else Interval(float("nan"), float("nan"), float("nan"), int(rated.sum()))
    return Score(reader, len(rated), int(rated.sum()), auc, per_class, findings)


def _key(path: Path) -> Key:
    rows = _rows(path, "the folder of the reading, which synthcohort reading wrote")
    numbers, kinds = [row.get("picture") for row in rows], {row.get("origin") for row in rows}
    if numbers != [str(number) for number in range(1, len(rows) + 1)] or kinds != {REAL, SYNTHETIC}:
        raise InputError(f"{path.name} is not as it was written: export the reading again, since no answer can be told from it")
    origins, classes, groups = (np.array([row.get(name) or "" for row in rows]) for name in ("origin", "class", "group"))
    return Key(origins == SYNTHETIC, classes, groups)


def _answers(path: Path, count: int, wrong: list[str]) -> tuple[NDArray[np.float64], NDArray[np.str_]]:
    """Rating (NaN for none) and named finding of each picture; what is wrong with them is added to ``wrong``."""
    ratings, named = np.full(count, np.nan), [""] * count
    rows = _rows(path, "a filled-in answers.csv")
    seen = Counter((row.get("picture") or "").strip() for row in rows)
    for row in rows:
        number, rating = ((row.get(name) or "").strip() for name in ("picture", "rating"))
        if not number.isdecimal() or not 1 <= int(number) <= count or seen[number] > 1:
            wrong.append(f"{path.name}: picture {number!r} is {'there twice' if seen[number] > 1 else f'none of 1 to {count}'}")
        elif rating and rating not in RATINGS:
            wrong.append(f"{path.name}: picture {number}: rating {rating!r} is none of 1 to 5")
        else:
            ratings[int(number) - 1] = float(rating) if rating else np.nan
            named[int(number) - 1] = (row.get("finding") or "").strip().lower()
    return ratings, np.array(named)


def _rows(path: Path, what: str) -> list[dict[str, str]]:
    """A table with a column ``picture``, separated by commas or, as some spreadsheets save it, by semicolons."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        lines = text.splitlines()
        separator = ";" if lines and lines[0].count(";") > lines[0].count(",") else ","
        reader = csv.DictReader(lines, delimiter=separator, strict=True)
        rows = list(reader)
    except (OSError, UnicodeError, csv.Error):
        raise InputError(f"{path.name} cannot be read: give {what}") from None
    if "picture" not in (reader.fieldnames or ()):
        raise InputError(f"{path.name} has no column picture: give {what}")
    return rows


def _write(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
