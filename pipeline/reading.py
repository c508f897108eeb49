"""A blinded reading: real and synthetic pictures of a run side by side for people who look, and what their answers say.

Each picture gets a number at random; who is which stands in a key that readers do not get. The real ones are sealed (``audit``) images,
which the generator never saw, as many of a class as synthetic ones, and go through the same writing. A reader rates each picture from 1
(certainly real) to 5 (certainly synthetic), the ordinal scale of ROC studies, and may name the finding. Until somebody who reads such
images for a living has answered, nothing is known of clinical realism.
"""

from __future__ import annotations

import csv
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from evaluation.comparisons import apart
from evaluation.intervals import Interval, interval, share_interval
from evaluation.metrics import auc_estimate, share_estimate
from pipeline import artifacts, folders, runtime
from pipeline.errors import InputError
from pipeline.images import ImageSet
from pipeline.ingest import marks, table

ANSWERS, KEY, SHEETS, INSTRUCTIONS = "answers.csv", "key.csv", "sheets", "instructions.txt"
ASKED = ("picture", "rating", "finding")
"""Columns of the answers; ``reading``, here and in the key, says to which pictures they belong."""
OF_KEY = ("picture", "origin", "class", "group")
COLUMNS, ROWS = 5, 4
SIDE, MARGIN, CAPTION = 224, 16, 16
"""Pixels that the side of a picture has at least on a sheet, between pictures, and below each for its number."""
REAL, SYNTHETIC = "real", "synthetic"
LEAST, MOST = 1, 5
WHAT = "PATIENT DATA - do not pass on. Rate each: 1 certainly real, 2, 3 cannot tell, 4, 5 certainly synthetic. Reading {code}"
TO_READERS = """PATIENT DATA: real ones are among the pictures. Do not pass them on.

Each picture on the sheets is real or synthetic. Say of each, in its row of answers.csv:

rating    1 certainly real, 2 probably real, 3 cannot tell, 4 probably synthetic, 5 certainly synthetic
finding   what it shows, by one of the names below; nothing where you do not say
reading   is {code} in every row, for these sheets: leave it as it is

A picture whose row stays empty does not count. Save the table as CSV.

Findings:
{findings}
"""


@dataclass(frozen=True)
class Key:
    """Who is which, by number of picture from 1 on.

    Attributes:
        synthetic: whether a picture is, ``bool [n]``.
        classes: its finding by its label.
        groups: the patient of a real one; a synthetic one is by itself.
        reading: which pictures these are, in letters that stand on every sheet and beside every answer.
    """

    synthetic: NDArray[np.bool_]
    classes: NDArray[np.str_]
    groups: NDArray[np.str_]
    reading: str


@dataclass(frozen=True)
class Score:
    """What one reader's answers say.

    Attributes:
        reader: the file's name without its ending, with its folders where others are called the same.
        rated: pictures with a rating, of ``pictures``.
        auc: how well the ratings tell synthetic pictures from real ones: .5 for not at all, 1 for always.
        per_class: the same within each class of which both kinds were rated.
        findings: share of pictures whose finding was named as it is labelled, on real ones, on synthetic ones, and their difference
            (synthetic − real); None where none was named of either.
        notes: what was assumed of the answers, and which of them count as wrong because no finding is called so.
    """

    reader: str
    pictures: int
    rated: int
    auc: Interval
    per_class: Mapping[str, Interval]
    findings: tuple[Interval, Interval, Interval] | None
    notes: tuple[str, ...] = ()


def export(run: Path, out: Path, per_class: int, seed: int) -> int:
    """Write ``sheets/``, ``instructions.txt``, ``answers.csv`` to be filled in, and ``key.csv``; returns how many pictures there are.

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
    code = _code(pictures)
    out.mkdir(parents=True, exist_ok=True, mode=0o700)
    (out / SHEETS).mkdir()
    for page, start in enumerate(range(0, len(pictures), COLUMNS * ROWS), start=1):
        sheet(pictures[start : start + COLUMNS * ROWS], start + 1, code).save(out / SHEETS / f"sheet-{page:02d}.png")
    named = "\n".join(f"  {name}" for name in sorted({str(row[2]) for row in rows}))
    (out / INSTRUCTIONS).write_text(TO_READERS.format(code=code, findings=named), encoding="utf-8")
    _write(out / ANSWERS, [*ASKED, "reading"], [[row[0], "", "", code] for row in rows])
    _write(out / KEY, [*OF_KEY, "reading"], [[*row, code] for row in rows])
    return len(rows)


def _code(pictures: Sequence[NDArray[np.uint8]]) -> str:
    """Six letters from what readers see, so that they tell nobody more; digits among them could be a number to a spreadsheet."""
    digest = hashlib.sha256(b"".join(np.ascontiguousarray(picture).tobytes() for picture in pictures)).hexdigest()
    return digest[:6].translate(str.maketrans("0123456789abcdef", "abcdefghijkmnpqr"))


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


def sheet(pictures: Sequence[NDArray[np.uint8]], first: int, code: str) -> Image.Image:
    """A page of pictures ``uint8 [C, H, W]``, magnified by a whole number and numbered from ``first`` on, of the reading ``code``."""
    height, width = pictures[0].shape[1:]
    times = max(1, -(-SIDE // max(height, width)))
    wide, high = width * times + MARGIN, height * times + CAPTION + MARGIN
    page = Image.new("RGB", (COLUMNS * wide + MARGIN, -(-len(pictures) // COLUMNS) * high + MARGIN + CAPTION), "white")
    draw = ImageDraw.Draw(page)
    draw.text((MARGIN, MARGIN // 2), WHAT.format(code=code), fill="black")
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
    answered = [_answers(path, key, wrong) for path in answers]
    if wrong:
        raise InputError("; ".join(wrong[:8]) + ("" if len(wrong) <= 8 else f"; and {len(wrong) - 8} more"))
    shared = {stem for stem, count in Counter(path.stem for path in answers).items() if count > 1}
    readers = [str(path.with_suffix("")) if path.stem in shared else path.stem for path in answers]
    return [_score(reader, key, *one) for reader, one in zip(readers, answered, strict=True)]


def _score(reader: str, key: Key, ratings: NDArray[np.float64], named: NDArray[np.str_], notes: Sequence[str]) -> Score:
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
        hits = [share_estimate(named[side] == key.classes[side], key.groups[side]) for side in sides]
        findings = share_interval(hits[0]), share_interval(hits[1]), apart(hits[1], hits[0])
    both = len(np.unique(key.synthetic[rated])) == 2
    auc = told(rated) if both else Interval(float("nan"), float("nan"), float("nan"), int(rated.sum()))
    return Score(reader, len(rated), int(rated.sum()), auc, per_class, findings, tuple(notes))


def _key(path: Path) -> Key:
    found = _table(path, OF_KEY, "the folder of the reading, which synthcohort reading wrote")
    numbers, kinds = found.values("picture"), set(found.values("origin"))
    if numbers != [str(number) for number in range(1, len(numbers) + 1)] or kinds != {REAL, SYNTHETIC}:
        raise InputError(f"{path.name} is not as it was written: export the reading again, since no answer can be told from it")
    origins, classes, groups = (np.array(found.values(name)) for name in OF_KEY[1:])
    return Key(origins == SYNTHETIC, classes, groups, found.values("reading")[0])


def _answers(path: Path, key: Key, wrong: list[str]) -> tuple[NDArray[np.float64], NDArray[np.str_], list[str]]:
    """Rating (NaN for none) and named finding of each picture, and notes; what is wrong with them is added to ``wrong``."""
    count = len(key.synthetic)
    ratings, named = np.full(count, np.nan), [""] * count
    try:
        found = _table(path, ASKED, "a filled-in answers.csv")
    except InputError as error:
        wrong.append(str(error))
        return ratings, np.array(named), []
    others = {code for code in found.values("reading") if code} - {key.reading}
    if others or (key.reading and key.reading not in found.values("reading")):
        told = f"of the reading {min(others)[:20]!r}" if others else "of no reading"
        wrong.append(f"{path.name}: its answers are {told}, and this one is {key.reading!r}: give the folder that they belong to")
        return ratings, np.array(named), []
    known = marks.places(classes := sorted(set(key.classes)))
    names = marks.emptied(found.values("finding"), {table.folded(name) for name in classes})
    lines, strange = dict[int, int](), Counter[str]()
    for line, said, rating, name in zip(found.lines, found.values("picture"), found.values("rating"), names, strict=True):
        number, rated, where = _whole(said), _whole(rating), f"{path.name} line {line}"
        if number is None or not 1 <= number <= count:
            wrong.append(f"{where}: picture {said[:20]!r} is none of 1 to {count}")
        elif lines.setdefault(number, line) != line:
            wrong.append(f"{where}: picture {number} is on line {lines[number]} too: keep one")
        elif rating and (rated is None or not LEAST <= rated <= MOST):
            wrong.append(f"{where}: rating {rating[:20]!r} of picture {number} is none of {LEAST} to {MOST}")
        else:
            ratings[number - 1] = np.nan if rated is None else rated
            place = marks.place(name, known) if name else None
            named[number - 1] = name if place is None else classes[place]
            strange[name] += bool(name) and place is None
    notes = list(found.notes)
    if strange := +strange:
        named_so = [f"{name[:40]} ({times})" for name, times in strange.most_common(5)]
        rest = [f"and {len(strange) - 5} more"] if len(strange) > 5 else []
        notes.append(f"counted as wrong, since no finding is called so: {', '.join([*named_so, *rest])}")
    return ratings, np.array(named), notes


def _whole(text: str) -> int | None:
    """The number that a cell holds, however a spreadsheet writes it: ``3``, ``3.0``, ``3,00``; None for anything else."""
    digits = marks.alike(text)
    return int(digits) if digits.isdecimal() and len(digits) < 10 else None


def _table(path: Path, columns: Sequence[str], what: str) -> table.Table:
    """A table with these columns, as spreadsheets save it."""
    if not path.is_file():
        raise InputError(f"{path.name} is {'no file' if path.exists() else 'not there'}: give {what}")
    found = table.read(path, (*columns, "reading"))
    if missing := [name for name in columns if name not in found.columns]:
        raise InputError(f"{path.name} has no column {missing[0]} in its first line: give {what}")
    return found


def _write(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
