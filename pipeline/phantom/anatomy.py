"""A cohort of parametric chest radiographs: patients with an anatomy of their own, visits with recorded truth.

Every patient is a pure function of the cohort's seed and of the patient's number, so that patient k of seed s is the same in
a cohort of any size. :mod:`pipeline.phantom.image` turns a visit into pixels, :mod:`pipeline.phantom.dicom`
writes a cohort as the DICOM files that a hospital would export.

Lengths are in mm at the detector. ``x`` runs to the right of the displayed image (the patient's left, as in every frontal
radiograph), ``y`` runs down; both are zero in the middle of the field.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.phantom import CLASSES as CLASSES
from pipeline.phantom import FINDINGS as FINDINGS
from pipeline.phantom import VISITS

PREVALENCE = (0.60, 0.16, 0.12, 0.08, 0.04)
"""Of each of :data:`CLASSES`."""
TOGETHER = (0.30, 0.15, 0.14, 0.08)
"""Prevalence of each of :data:`FINDINGS` where a patient can have several; of an effusion, without cardiomegaly."""
FAILURE = 0.45
"""Prevalence of an effusion with cardiomegaly: findings do not come independently of each other."""
PERSISTENCE = 0.8


@dataclass(frozen=True)
class Detector:
    """What one site's equipment does to the image.

    Attributes:
        name: the site.
        field_mm: side of the square field.
        blur_mm: standard deviation of the Gaussian point spread.
        noise: relative quantum noise of 1 mm² in the direct beam.
        scatter: scattered over primary radiation, both averaged over the field.
        centre, width: position and width of the display sigmoid on attenuation (natural log units).
        monochrome1: whether the files store the image with 0 as white.
    """

    name: str
    field_mm: float
    blur_mm: float
    noise: float
    scatter: float
    centre: float
    width: float
    monochrome1: bool


SITES = (
    Detector("north", 318.0, 0.35, 0.020, 0.04, 2.42, 0.74, False),
    Detector("harbour", 324.0, 1.5, 0.034, 0.10, 2.22, 0.66, True),
)


@dataclass(frozen=True)
class Anatomy:
    """What stays the same from one image of a patient to the next; lengths in mm, angles as slopes."""

    chest_half_width: float
    chest_depth: float
    chest_shape: float
    chest_taper: float
    chest_wall: float
    apex: float
    widest: float
    right_dome: float
    dome_difference: float
    dome_height: float
    sulcus_depth: float
    heart_ratio: float
    heart_left_share: float
    heart_height: float
    heart_tilt: float
    mediastinum: float
    aorta: float
    aortic_arch: float
    hilum: float
    hilum_size: float
    vessel_strength: float
    trachea_shift: float
    spine_half_width: float
    scoliosis: float
    vertebra: float
    rib_spacing: float
    rib_offset: float
    rib_slope: float
    rib_arch: float
    rib_width: float
    bone: float
    clavicle: float
    clavicle_tilt: float
    clavicle_bend: float
    shoulder: float
    shoulder_slope: float
    scapula: float
    breast: float
    breast_height: float
    lung_density: float
    gastric_bubble: float


@dataclass(frozen=True)
class Pose:
    """How one exposure was taken.

    Attributes:
        x, y: shift of the patient, mm.
        tilt: rotation in the image plane, radians.
        turn: rotation about the body's axis, as the shift in mm of the anterior structures against the spine.
        magnification: relative to the patient's mean.
        inspiration: shift of the diaphragm, mm downwards.
        exposure: shift of the display's centre, natural log units.
        contrast: factor on the display's slope.
    """

    x: float
    y: float
    tilt: float
    turn: float
    magnification: float
    inspiration: float
    exposure: float
    contrast: float


@dataclass(frozen=True)
class Visit:
    """One image and the truth about it.

    Attributes:
        sizes_mm: of each of :data:`FINDINGS` that it has, in their order: width of the heart (cardiomegaly), height of the fluid above
            the costophrenic angle (effusion), diameter (nodule), width of the air at its widest (pneumothorax).
        side: the patient's ``left`` or ``right``, on which all are that have a side; empty where none has.
        severity: 0..1 within the range of each finding; 0 when normal.
        heart_ratio: the cardiothoracic ratio, heart width over inner chest width.
        location: of a nodule, lateral and downward position as fractions of the free lung.
        pose: how the exposure was taken.
        day: days since the patient's first visit.
        report: a sentence for each finding.
    """

    sizes_mm: Mapping[str, float]
    side: str
    severity: float
    heart_ratio: float
    location: tuple[float, float]
    pose: Pose
    day: int
    report: str

    @property
    def finding(self) -> str:
        """The one of :data:`CLASSES` that it is of; of several findings the first."""
        return next(iter(self.sizes_mm), CLASSES[0])

    @property
    def size_mm(self) -> float:
        """That of :attr:`finding`; 0 when normal."""
        return self.sizes_mm.get(self.finding, 0.0)


@dataclass(frozen=True)
class Patient:
    """One person. ``seed`` and ``index`` name the random streams of everything that belongs to the patient.

    Attributes:
        seed: the cohort's seed.
        index: the patient's number in the cohort, from 0.
        sex: ``F`` or ``M``.
        age: years at the first visit, 18..95.
        site: index into :data:`SITES`.
        anatomy: what persists over the visits.
        visits: one to four, in order of time.
    """

    seed: int
    index: int
    sex: str
    age: int
    site: int
    anatomy: Anatomy
    visits: tuple[Visit, ...]

    def stream(self, purpose: int) -> np.random.Generator:
        """An independent random stream of this patient; the same number always gives the same stream."""
        return np.random.default_rng([self.seed, self.index, purpose])


def draw_patients(count: int, seed: int, several: bool = False) -> list[Patient]:
    """Patients 0..count-1 of a cohort; patient k does not depend on ``count``. With ``several``, an image can have more than one finding.

    Raises:
        ValueError: ``count`` or ``seed`` is negative.
    """
    if count < 0 or seed < 0:
        raise ValueError(f"count and seed must not be negative, got {count} and {seed}")
    return [_draw_patient(seed, index, several) for index in range(count)]


def _draw_patient(seed: int, index: int, several: bool) -> Patient:
    rng = np.random.default_rng([seed, index, 0])
    sex = "F" if rng.random() < 0.5 else "M"
    age = int(18 + 77 * rng.beta(2.2, 1.8))
    site = int(rng.random() < 0.4)
    anatomy = _draw_anatomy(rng, sex, age)
    main = int(rng.choice(len(CLASSES), p=PREVALENCE))
    side = ("left", "right")[int(rng.random() < 0.5)]
    location = (float(rng.random()), float(rng.random()))
    severity = float(rng.random())
    visits: list[Visit] = []
    day = 0
    for _ in range(1 + int(rng.choice(len(VISITS), p=VISITS))):
        # Keeping the main finding or drawing afresh leaves every image's class distributed as PREVALENCE.
        finding = main if rng.random() < PERSISTENCE else int(rng.choice(len(CLASSES), p=PREVALENCE))
        now = float(np.clip(severity + rng.normal(0, 0.12), 0, 1))
        findings = _draw_findings(rng) if several else CLASSES[finding : finding + 1]
        visits.append(_draw_visit(rng, anatomy, findings, side, now, location, day))
        day += int(rng.integers(3, 400))
    return Patient(seed, index, sex, age, site, anatomy, tuple(visits))


def _draw_findings(rng: np.random.Generator) -> tuple[str, ...]:
    """Which of :data:`FINDINGS` one image has."""
    there = rng.random(len(FINDINGS)) < TOGETHER
    there[1] |= there[0] and rng.random() < (FAILURE - TOGETHER[1]) / (1 - TOGETHER[1])
    return tuple(name for name, has in zip(FINDINGS, there) if has)


def _draw_anatomy(rng: np.random.Generator, sex: str, age: int) -> Anatomy:
    """Sex sets the scale of the chest and the breasts; age widens the aorta and the heart, thins bone, lifts the diaphragm."""
    male, old = float(sex == "M"), (age - 55) / 40
    girth = float(rng.normal(0, 1))

    def spread(mean: float, deviation: float) -> float:
        return float(mean + deviation * np.clip(rng.normal(), -2.2, 2.2))

    return Anatomy(
        chest_half_width=spread(127 + 10 * male, 10),
        chest_depth=spread(202 + 16 * male + 14 * girth, 12),
        chest_shape=spread(2.2, 0.26),
        chest_taper=spread(0, 6.5),
        chest_wall=max(12.0, spread(25 + 9 * girth, 6.5)),
        apex=spread(-120, 12),
        widest=spread(30, 14),
        right_dome=spread(70 - 5 * old - 4 * girth, 16),
        dome_difference=spread(11, 7.8),
        dome_height=spread(30, 7.8),
        sulcus_depth=spread(22, 7.8),
        heart_ratio=float(np.clip(spread(0.436 + 0.012 * old, 0.031), 0.38, 0.485)),
        heart_left_share=spread(0.685, 0.046),
        heart_height=spread(66, 6.5),
        heart_tilt=spread(0.6, 0.16),
        mediastinum=spread(25 + 2 * old, 3.9),
        aorta=spread(17 + 4 * old, 2.6),
        aortic_arch=spread(-68, 9.1),
        hilum=spread(-22, 9.1),
        hilum_size=spread(15, 3.2),
        vessel_strength=spread(1, 0.23),
        trachea_shift=spread(-3, 3.9),
        spine_half_width=spread(17 + 2 * male, 2.3),
        scoliosis=spread(0, 7.2),
        vertebra=spread(24 + 2 * male, 2),
        rib_spacing=spread(24 + male, 2.5),
        rib_offset=float(rng.random()),
        rib_slope=spread(0.30 + 0.05 * old, 0.14),
        rib_arch=spread(15, 6.5),
        rib_width=spread(9.4 + 0.8 * male, 1),
        bone=spread(1.0 - 0.12 * old, 0.17),
        clavicle=spread(-96, 10),
        clavicle_tilt=spread(0.2, 0.1),
        clavicle_bend=spread(7, 3.9),
        shoulder=spread(-152, 10),
        shoulder_slope=spread(0.36, 0.13),
        scapula=spread(6, 9.1),
        breast=0.0 if male else max(20.0, spread(62 + 5 * girth, 12)),
        breast_height=spread(58 + 8 * old, 13),
        lung_density=spread(0.27 - 0.01 * old, 0.029),
        gastric_bubble=min(max(0.0, spread(15, 11)), 24.0),
    )


def _draw_visit(
    rng: np.random.Generator, anatomy: Anatomy, findings: Sequence[str], side: str, severity: float, location: tuple[float, float], day: int
) -> Visit:
    pose = Pose(
        x=float(rng.normal(0, 3)),
        y=float(rng.normal(0, 4)),
        tilt=float(rng.normal(0, 0.018)),
        turn=float(rng.normal(0, 3)),
        magnification=float(np.exp(rng.normal(0, 0.015))),
        inspiration=float(rng.normal(0, 4)),
        exposure=float(rng.normal(0, 0.08)),
        contrast=float(np.exp(rng.normal(0, 0.06))),
    )
    ratio = 0.58 + 0.12 * severity if "cardiomegaly" in findings else anatomy.heart_ratio
    sizes = {
        "cardiomegaly": 2 * anatomy.chest_half_width * ratio,
        "effusion": 50 + 85 * severity,
        "nodule": 25 + 10 * severity,
        "pneumothorax": 20 + 32 * severity,
    }
    sizes = {name: size for name, size in sizes.items() if name in findings}
    side = side if sizes.keys() - {"cardiomegaly"} else ""
    severity = severity if sizes else 0.0
    written = sizes or {CLASSES[0]: 0.0}
    report = " ".join(_sentence(name, side, size, severity, ratio, location[1], len(sizes) > 1) for name, size in written.items())
    return Visit(sizes, side, severity, ratio, location, pose, day, report)


def _sentence(finding: str, side: str, size_mm: float, severity: float, ratio: float, height: float, others: bool) -> str:
    clear = "" if others else " and clear lungs"
    grade = ("mild", "moderate", "severe")[min(2, math.floor(3 * severity))]
    extent = ("small", "moderate", "large")[min(2, math.floor(3 * severity))]
    zone = ("upper", "mid", "lower")[min(2, math.floor(3 * height))]
    sentences = {
        "normal": f"Clear lungs and a heart of normal size, cardiothoracic ratio {ratio:.2f}.",
        "cardiomegaly": f"{grade.capitalize()} cardiomegaly with a cardiothoracic ratio of {ratio:.2f}{clear}.",
        "effusion": f"{extent.capitalize()} {side} pleural effusion rising {size_mm:.0f} mm above the costophrenic angle.",
        "nodule": f"Solitary round nodule of {size_mm:.0f} mm in the {side} {zone} zone.",
        "pneumothorax": f"{extent.capitalize()} {side} pneumothorax, up to {size_mm:.0f} mm wide, with a visible pleural line.",
    }
    return sentences[finding]
