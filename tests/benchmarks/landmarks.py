"""What do synthetic phantoms show? Side, size and place of each finding, by fitting the renderer that drew the training images.

Each image is explained by the phantom that comes nearest: anatomy, pose and finding are fitted (nonlinear least squares, the cohort's own
spread as prior) from the nearest of many drawn phantoms on either side, under a gain and an offset of the display. The same is done to
phantoms drawn anew, whose truth is known: the method's error stands beside what it finds in the synthetic images, and differences within it
mean nothing. ``gain`` is how much of the residual the finding takes away from the best fit without one: near 0 where it is not there.

    python -m tests.benchmarks.landmarks --run runs/quickstart --out results
    python -m tests.benchmarks.landmarks --out results --table
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import itertools
import math
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline import system
from pipeline.images import ImageSet
from pipeline.phantom.anatomy import CLASSES, SITES, Anatomy, Patient, Pose, Visit, draw_patients
from pipeline.phantom.detector import SOFT, expose
from pipeline.phantom.image import FINEST, attenuation_map, nodule_centre, render
from tests.benchmarks import report

Floats = NDArray[np.float64]
BENCHMARK = "landmarks"
BODY = (
    *("chest_half_width", "chest_depth", "chest_wall", "chest_taper", "apex", "widest", "right_dome", "dome_difference", "dome_height"),
    *("sulcus_depth", "heart_ratio", "heart_left_share", "heart_height", "mediastinum", "hilum", "lung_density", "bone", "clavicle"),
    *("shoulder", "rib_slope", "rib_offset"),
)
"""What is fitted of the anatomy; the rest is that of the phantom that the fit starts from."""
POSE = ("x", "y", "turn", "magnification", "inspiration", "exposure", "contrast")
NOISE = 0.04
"""Standard deviation of a pixel about the fit, of the range 0..1: what vessels, texture and noise leave."""
SIZES = {"cardiomegaly": (0.58, 0.12), "effusion": (50.0, 85.0), "nodule": (25.0, 10.0), "pneumothorax": (20.0, 32.0)}
"""Size at severity 0, and what severity 1 adds: mm, and of the heart its share of the chest."""
SIDED = ("effusion", "nodule", "pneumothorax")
WANDERS = 0.7
"""Prior deviation of severity and of a place within the lung about the middle of their range: sizes that no phantom has are found too."""


@dataclass(frozen=True)
class Start:
    """A phantom that a fit may start from, as displayed without noise."""

    patient: Patient
    visit: Visit
    image: Floats


@dataclass(frozen=True)
class Found:
    """The phantom that explains an image best.

    Attributes:
        side: of the finding; empty where it has none.
        size: mm, or the cardiothoracic ratio.
        place: of a nodule, mm in the patient's frame.
        residual: root mean square of what is left of the image, 0..1.
        gain: share of the squared residual of the best fit without a finding that the finding takes away.
    """

    side: str
    size: float
    place: tuple[float, float]
    residual: float
    gain: float


def displayed(patient: Patient, visit: Visit, size: int) -> Floats:
    """As :func:`pipeline.phantom.image.render`, without noise: ``float64 [size, size]`` in 0..1."""
    finer = max(1, math.ceil(FINEST / size))
    detector = dataclasses.replace(SITES[patient.site], noise=0.0)
    thickness = SOFT * (patient.anatomy.chest_depth - 210)
    pitch = detector.field_mm / (size * finer)
    image = expose(attenuation_map(patient, visit, size * finer), detector, visit.pose, thickness, pitch, np.random.default_rng(0))
    return np.asarray(image.reshape(size, finer, size, finer).mean(axis=(1, 3)), np.float64)


@functools.cache
def spreads(seed: int = 10**6) -> dict[str, tuple[float, float]]:
    """Mean and standard deviation of everything that is fitted, over a drawn cohort."""
    patients = draw_patients(1000, seed)
    values = {name: [getattr(one.anatomy, name) for one in patients] for name in BODY}
    values |= {name: [getattr(visit.pose, name) for one in patients for visit in one.visits] for name in POSE}
    return {name: (float(np.mean(column)), float(np.std(column))) for name, column in values.items()}


def size_of(visit: Visit) -> float:
    """A finding's size as it is reported here."""
    return visit.heart_ratio if visit.finding in ("normal", "cardiomegaly") else visit.size_mm


class Fit:
    """A phantom's parameters in standard deviations from where their prior has its mean, from one start.

    Args:
        start: the phantom that it starts from.
        finding: which one is fitted; the start's, or ``normal``.
    """

    def __init__(self, start: Start, finding: str) -> None:
        self.start, self.finding = start, finding
        self.body = [name for name in BODY if finding != "cardiomegaly" or name != "heart_ratio"]
        self.own = {"normal": 0, "nodule": 3}.get(finding, 1)

    def first(self) -> Floats:
        """The start's own parameters."""
        anatomy, pose = self.start.patient.anatomy, self.start.visit.pose
        named = [(getattr(anatomy, name), name) for name in self.body] + [(getattr(pose, name), name) for name in POSE]
        values = [(value - spreads()[name][0]) / spreads()[name][1] for value, name in named]
        own = (self.start.visit.severity, *self.start.visit.location)[: self.own]
        return np.clip(np.array(values + [(value - 0.5) / WANDERS for value in own]), -3, 3)

    def phantom(self, z: Floats) -> tuple[Patient, Visit]:
        """The phantom of such parameters."""
        scaled = {name: spreads()[name][0] + spreads()[name][1] * value for name, value in zip((*self.body, *POSE), z)}
        anatomy = dataclasses.replace(self.start.patient.anatomy, **{name: scaled[name] for name in self.body})
        pose = dataclasses.replace(self.start.visit.pose, **{name: scaled[name] for name in POSE})
        patient = dataclasses.replace(self.start.patient, anatomy=anatomy)
        return patient, _visit(self.start.visit, self.finding, anatomy, pose, [0.5 + WANDERS * value for value in z[len(z) - self.own :]])

    def solve(self, image: Floats, evaluations: int) -> tuple[Floats, float]:
        """The parameters that explain an image best, and the mean square of what they leave of it."""
        from scipy.optimize import least_squares

        def apart(z: Floats) -> Floats:
            return np.concatenate([leftover(displayed(*self.phantom(z), len(image)), image).ravel() / NOISE, z])

        found = least_squares(apart, self.first(), bounds=(-3.5, 3.5), diff_step=0.02, max_nfev=evaluations, loss="soft_l1", x_scale=1.0)
        return found.x, float(np.square(leftover(displayed(*self.phantom(found.x), len(image)), image)).mean())


def _visit(visit: Visit, finding: str, anatomy: Anatomy, pose: Pose, own: Sequence[float]) -> Visit:
    severity = own[0] if own else 0.0
    base, more = SIZES.get(finding, (0.0, 0.0))
    size = max(base + more * severity, 0.1 * base)
    heart, width = (size, 2 * anatomy.chest_half_width * size) if finding == "cardiomegaly" else (anatomy.heart_ratio, size)
    side = visit.side if finding in SIDED else ""
    place = (own[1], own[2]) if len(own) == 3 else visit.location
    sizes = {} if finding == "normal" else {finding: width}
    return dataclasses.replace(visit, sizes_mm=sizes, side=side, severity=max(severity, 0.0), heart_ratio=heart, location=place, pose=pose)


def leftover(drawn: Floats, image: Floats) -> Floats:
    """What a drawn image leaves of another under the best gain and offset: the display's window is not part of the phantom."""
    varied = drawn - drawn.mean()
    gain = float((varied * image).sum() / max(float(np.square(varied).sum()), 1e-12))
    return np.asarray(image - image.mean() - gain * varied)


def bank(size: int, each: int, seed: int) -> dict[str, list[Start]]:
    """Phantoms of each finding to start from."""
    found: dict[str, list[Start]] = {name: [] for name in CLASSES}
    for patient in draw_patients(40 * each, seed):
        for visit in patient.visits:
            if len(found[visit.finding]) < each:
                found[visit.finding].append(Start(patient, visit, displayed(patient, visit, size)))
    return found


def find(image: Floats, finding: str, starts: dict[str, list[Start]], evaluations: int) -> Found:
    """The landmarks of an image ``[H, W]`` in 0..1 that is labelled with a finding.

    Fits start from the phantoms of the bank that are nearest, and from the best one without a finding with one put into it.
    """

    def best(begun: list[Start], finding: str) -> tuple[float, Patient, Visit]:
        fits = [Fit(one, finding) for one in begun]
        solved = [(fit, *fit.solve(image, evaluations)) for fit in fits]
        fit, z, error = min(solved, key=lambda one: one[2])
        return (error, *fit.phantom(z))

    def nearest(among: list[Start], count: int) -> list[Start]:
        return sorted(among, key=lambda one: float(np.square(leftover(one.image, image)).sum()))[:count]

    error, patient, visit = without = best(nearest(starts["normal"], 2), "normal")
    if finding != "normal":
        found = []
        for side in ("left", "right") if finding in SIDED else ("",):
            own = [one for one in starts[finding] if one.visit.side == side]
            found.append(best([*nearest(own, 1), *nearest(put_into(without[1], without[2], finding, side, len(image)), 1)], finding))
        error, patient, visit = min(found, key=lambda one: one[0])
    place = nodule_centre(patient.anatomy, visit) if finding == "nodule" else (math.nan, math.nan)
    return Found(visit.side, size_of(visit), place, math.sqrt(error), 1 - error / max(without[0], 1e-12))


def put_into(patient: Patient, visit: Visit, finding: str, side: str, size: int) -> list[Start]:
    """A phantom without a finding, with small to large ones put into it."""
    thirds = (0.15, 0.5, 0.85)
    places = list(itertools.product(thirds, thirds)) if finding == "nodule" else [visit.location]
    made = []
    for severity, place in itertools.product(thirds, places):
        own = [severity, *place] if finding == "nodule" else [severity]
        ill = _visit(dataclasses.replace(visit, side=side, location=place), finding, patient.anatomy, visit.pose, own)
        made.append(Start(patient, ill, displayed(patient, ill, size)))
    return made


_BANK: dict[str, list[Start]] = {}


def _begin(size: int, each: int, seed: int) -> None:
    _BANK.update(bank(size, each, seed))


def _found(work: tuple[Floats, str, int]) -> Found:
    return find(work[0], work[1], _BANK, work[2])


def truths(size: int, each: int, seed: int) -> list[tuple[Floats, Patient, Visit]]:
    """Phantoms of each finding, as rendered."""
    found: dict[str, list[tuple[Floats, Patient, Visit]]] = {name: [] for name in CLASSES}
    for patient in draw_patients(40 * each, seed):
        for number, visit in enumerate(patient.visits):
            if len(found[visit.finding]) < each:
                found[visit.finding].append((np.asarray(render(patient, number, size), np.float64), patient, visit))
    return [one for group in found.values() for one in group]


def of_run(run: Path, each: int) -> list[tuple[Floats, str]]:
    """Images of each class of a run's synthetic set."""
    made = ImageSet.load(run / "generate")
    chosen = [row for label in range(len(made.classes)) for row in np.flatnonzero(made.labels == label)[:each]]
    return [(np.asarray(made.images[row, 0], np.float64) / 255, made.classes[made.labels[row]]) for row in chosen]


def rows_of(options: argparse.Namespace) -> list[dict[str, Any]]:
    """What is found of phantoms and of synthetic images, in as many processes as there are cores."""
    made = of_run(options.run, options.each) if options.run else []
    size = made[0][0].shape[0] if made else options.size
    true = truths(size, options.each, seed=options.seed + 1)
    work = [(image, visit.finding, options.evaluations) for image, _, visit in true]
    work += [(image, name, options.evaluations) for image, name in made]
    given = (size, options.bank, options.seed + 2)
    with ProcessPoolExecutor(options.workers or system.usable_cores(), initializer=_begin, initargs=given) as pool:
        found = list(pool.map(_found, work, chunksize=1))
    rows = []
    for number, ((_, name, _), one) in enumerate(zip(work, found)):
        row = {"finding": name, "synthetic": number >= len(true), **dataclasses.asdict(one)}
        if number < len(true):
            _, patient, visit = true[number]
            row |= {"true_side": visit.side, "true_size": size_of(visit)}
            row |= {"true_place": nodule_centre(patient.anatomy, visit) if name == "nodule" else (math.nan, math.nan)}
        rows.append(row)
    return rows


def table(rows: Sequence[dict[str, Any]]) -> str:
    """By finding: the error on true phantoms, then what is found in them and in synthetic images."""
    from scipy.stats import ks_2samp

    lines = []
    for name in CLASSES:
        true, made = ([row for row in rows if row["finding"] == name and row["synthetic"] == side] for side in (False, True))
        if not true:
            continue
        off = np.array([row["size"] - row["true_size"] for row in true])
        right = np.mean([row["side"] == row["true_side"] for row in true]) if name in SIDED else None
        away = float(np.median([math.dist(row["place"], row["true_place"]) for row in true])) if name == "nodule" else None
        cells = [name, len(true), right, float(np.mean(off)), float(np.median(np.abs(off))), away]
        for group in (true, made):
            sizes = [row["size"] for row in group]
            cells += [f"{np.mean(sizes):.3g} ± {np.std(sizes):.2g}" if group else None]
            cells += [float(np.mean([row["side"] == "left" for row in group])) if group and name in SIDED else None]
            cells += [float(np.median([row[key] for row in group])) if group else None for key in ("gain", "residual")]
        cells.append(float(ks_2samp([row["size"] for row in true], [row["size"] for row in made]).pvalue) if made else None)
        lines.append(cells)
    header = ["finding", "n", "side right", "size's bias", "median error", "place off, mm"]
    header += [f"{side}: {what}" for side in ("phantoms", "synthetic") for what in ("size", "left", "gain", "residual")] + [
        "sizes alike, p"
    ]
    return report.markdown(header, lines)


def main(arguments: list[str] | None = None) -> None:
    """Measure unless told not to, then print all that is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="a run on the phantom; without it, only the method's error is measured")
    parser.add_argument("--each", type=int, default=40, help="images of each finding")
    parser.add_argument("--size", type=int, default=32, help="side of the phantoms where there is no run")
    parser.add_argument("--bank", type=int, default=150, help="phantoms of each finding to start from")
    parser.add_argument("--evaluations", type=int, default=12, help="steps of each fit, each as many renderings as there are parameters")
    parser.add_argument("--workers", type=int, help="processes (default: one a core)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("results"))
    parser.add_argument("--table", action="store_true", help="only print what the records in --out say")
    options = parser.parse_args(arguments)
    if not options.table:
        began = time.perf_counter()
        record = report.Record(options.out, BENCHMARK, report.facts() | {"each": options.each, "run": options.run is not None})
        for row in rows_of(options):
            record.add(row)
        print(f"all of it took {time.perf_counter() - began:.0f} s")
    print(table(report.rows(options.out, BENCHMARK)), flush=True)


if __name__ == "__main__":
    main()
