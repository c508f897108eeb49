"""Pixels of a phantom visit: attenuation along each ray, Beer-Lambert, scatter, detector, display.

The chest is a sum of analytic chord lengths (mm of tissue along the ray), each sharp where the ray is tangent to a surface,
as silhouettes in radiographs are. Effective attenuation coefficients are those of a 120 kVp chest exposure to the nearest
round figure: soft tissue 0.019 /mm, and for bone what it adds to the soft tissue that it displaces.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.phantom.anatomy import CLASSES, SITES, Anatomy, Patient, Visit, draw_patients
from pipeline.phantom.detector import SOFT, expose

Array = NDArray[Any]

BONE = 0.034
NODULE = 2.0  # attenuation of a partly calcified nodule over that of soft tissue
FINEST = 96
PUSH = {"pneumothorax": 12.0, "effusion": 9.0}
"""How far the most severe ones push the heart, mm; of both, the further."""


def render(patient: Patient, visit_index: int, size: int) -> Array:
    """One image as displayed: ``float32 [size, size]``, 0 (black, air) .. 1 (white), noise of the detector included.

    Sizes below 96 are averaged from a finer grid, as a resampled detector image would be.
    """
    if size < 8:
        raise ValueError(f"size must be at least 8 pixels, got {size}")
    visit, detector = patient.visits[visit_index], SITES[patient.site]
    finer = max(1, math.ceil(FINEST / size))
    pitch = detector.field_mm / (size * finer)
    attenuation = attenuation_map(patient, visit, size * finer)
    thickness = SOFT * (patient.anatomy.chest_depth - 210)
    image = expose(attenuation, detector, visit.pose, thickness, pitch, patient.stream(100 + visit_index))
    return image.reshape(size, finer, size, finer).mean(axis=(1, 3)) if finer > 1 else image


def attenuation_map(patient: Patient, visit: Visit, size: int) -> Array:
    """Natural log of incident over transmitted intensity without scatter, ``float32 [size, size]``, 0 in free air."""
    body, pose = patient.anatomy, visit.pose
    axis = (np.arange(size, dtype=np.float32) + 0.5) / size - 0.5
    u = axis[None, :] * np.float32(SITES[patient.site].field_mm / pose.magnification) - np.float32(pose.x)
    v = axis[:, None] * np.float32(SITES[patient.site].field_mm / pose.magnification) - np.float32(pose.y)
    cos, sin = np.float32(math.cos(pose.tilt)), np.float32(math.sin(pose.tilt))
    chest = _Chest.of(body, visit, u * cos + v * sin, v * cos - u * sin)
    texture = _smooth_noise(patient.stream(1), u, v)
    air, tissue = _lungs(chest, visit)
    markings = _vessels(chest, patient.stream(2)) * tissue
    lesion = _nodule(chest, visit)
    torso = _torso(chest) + 3 * texture
    # A lung takes the place of soft tissue and weighs its density; nothing attenuates less than free air does.
    soft = np.maximum(torso - air, 0) + body.lung_density * tissue * (1 + 0.05 * texture) + 20 * markings
    soft += lesion + _breasts(chest) - _airways(chest, visit) - _gastric_bubble(chest)
    bone = _ribs(chest) + _spine(chest) + _shoulder_girdle(chest)
    total: Array = np.maximum(SOFT * soft + (BONE * body.bone) * bone * _edge(torso, 40), 0)
    return total


@dataclass(frozen=True)
class _Chest:
    """Coordinates of one exposure in the patient's frame, mm, ``float32 [size, size]``."""

    body: Anatomy
    x: Array
    y: Array
    out: Array
    left: Array
    heart_shift: float
    dome: Array
    wall: Array
    pleura: Array
    heart: Array

    @classmethod
    def of(cls, body: Anatomy, visit: Visit, x: Array, y: Array) -> _Chest:
        shift = visit.pose.turn + _mediastinal_shift(visit)
        left = (x > 0).astype(np.float32)
        out = np.abs(x)
        wall = _wall(body, y)
        reach = np.where(out > _apex_centre(body), wall - _apex_centre(body), _apex_centre(body) + 4)
        rise = np.minimum(y - body.widest, 0) / (body.widest - body.apex)
        radius = np.sqrt(((out - _apex_centre(body)) / reach) ** 2 + np.abs(rise) ** np.float32(body.chest_shape))
        pleura = (1 - radius) * (body.chest_half_width - _apex_centre(body))
        low = body.right_dome + visit.pose.inspiration + left * body.dome_difference + _flattening(visit, left)
        across = (out - 0.52 * body.chest_half_width) / (0.48 * body.chest_half_width)
        square = across * across
        dome = low + np.where(across > 0, body.dome_height * square + body.sulcus_depth * square * square * square, 9 * square)
        heart = heart_chord(body, visit, x - shift, y)
        return cls(body, x, y, out, left, shift, dome, wall, pleura, heart)


def _wall(body: Anatomy, y: Array) -> Array:
    """Distance of the lateral chest wall from the midline at the level ``y``, below the widest level slightly tapered."""
    below = np.maximum(y - body.widest, 0) / 80
    return (body.chest_half_width + body.chest_taper * below - 3 * below**2).astype(np.float32)


def _apex_centre(body: Anatomy) -> float:
    return 0.40 * body.chest_half_width


def _chord(depth: Array, radius: float) -> Array:
    """Relative chord 0..1 of a ray that passes ``depth`` mm inside a surface with this radius: steep at the tangent."""
    inside = np.minimum(np.maximum(depth * np.float32(1 / radius), 0), 1)
    chord: Array = np.sqrt(inside * (2 - inside))
    return chord


def _edge(depth: Array, width: float) -> Array:
    """Smooth step from 0 to 1 over ``width`` mm around the place where ``depth`` is 0."""
    step = np.minimum(np.maximum(depth * np.float32(1 / width) + np.float32(0.5), 0), 1)
    smooth: Array = step * step * (3 - 2 * step)
    return smooth


def _ellipsoid(x: Array, y: Array, a: float, b: float) -> Array:
    """Relative chord 0..1 through an ellipsoid with half axes a, b (mm) around the origin of x, y."""
    chord: Array = np.sqrt(np.maximum(1 - (x * np.float32(1 / a)) ** 2 - (y * np.float32(1 / b)) ** 2, 0))
    return chord


def _side(visit: Visit, left: Array) -> Array:
    return left if visit.side == "left" else 1 - left


def _mediastinal_shift(visit: Visit) -> float:
    """Pressure of air or fluid pushes the heart to the other side; positive is to the patient's left."""
    push = max((mm for name, mm in PUSH.items() if name in visit.sizes_mm), default=0.0) * visit.severity**2
    return push if visit.side == "right" else -push


def _flattening(visit: Visit, left: Array) -> Array | float:
    return 14 * visit.severity * _side(visit, left) if "pneumothorax" in visit.sizes_mm else 0.0


def heart_chord(body: Anatomy, visit: Visit, x: Array, y: Array) -> Array:
    """Chord of the heart relative to its depth; its width over the inner chest width is exactly the visit's ratio."""
    width = 2 * body.chest_half_width * visit.heart_ratio
    to_left = body.heart_left_share * width
    to_right = width - to_left
    middle, tall = _heart_level(body, visit)
    cos, sin = math.cos(body.heart_tilt), math.sin(body.heart_tilt)
    long, short = 0.45 * width, 0.66 * tall
    reach = math.hypot(long * cos, short * sin)
    across, down = x - np.float32(to_left - reach), y - np.float32(middle)
    along, athwart = across * cos + down * sin, down * cos - across * sin
    ventricle = _ellipsoid(along, athwart, long, short)
    atrium = _ellipsoid(x + np.float32(to_right - 0.33 * width), y - np.float32(middle + 2), 0.33 * width, 0.78 * tall)
    outflow = _ellipsoid(x - np.float32(0.07 * width), y - np.float32(middle - 0.45 * tall), 0.13 * width + 22, 1.05 * tall)
    return np.maximum(np.maximum(ventricle, atrium), 0.9 * outflow)


def _heart_level(body: Anatomy, visit: Visit) -> tuple[float, float]:
    """Level of the heart's middle and its half height, mm: it rests on the diaphragm, and grows in both directions."""
    tall = body.heart_height * math.sqrt(visit.heart_ratio / body.heart_ratio)
    return body.right_dome + visit.pose.inspiration + 0.6 * body.dome_difference - 0.5 * tall, tall


def _lungs(chest: _Chest, visit: Visit) -> tuple[Array, Array]:
    """Depth in mm of the air-filled pleural space, and of the part of it that is lung."""
    body = chest.body
    medial = chest.out - np.float32(body.mediastinum - 4) - np.minimum(0.0016 * (chest.y + 70) ** 2, 7)
    depth = 0.74 * body.chest_depth * _chord(chest.pleura, 46) * _chord(medial, 26)
    depth *= 1 - _chord(chest.y - chest.dome, 46)
    arch = _ellipsoid(chest.x - np.float32(14 + chest.heart_shift), chest.y - body.aortic_arch, 2.0 * body.aorta, 1.45 * body.aorta)
    depth -= np.minimum(depth, 118 * chest.heart + 78 * arch)
    if "effusion" in visit.sizes_mm:
        depth *= 1 - _fluid(chest, visit)
    if "pneumothorax" not in visit.sizes_mm:
        return depth, depth
    side = _side(visit, chest.left)
    height = np.clip((chest.dome - chest.y) / (body.right_dome - body.apex), 0, 1)
    gap = np.float32(visit.sizes_mm["pneumothorax"]) * (0.35 + 0.65 * height)
    collapsed = _edge(chest.pleura - gap, 3)
    line = np.exp(-(((chest.pleura - gap) / 1.6) ** 2)) * _edge(depth - 30, 40)
    # The lung keeps its mass in less room, and the visceral pleura shows as a thin line at its edge.
    tissue = depth * (1 - side + side * (collapsed * (1.05 + 0.25 * visit.severity) + 0.35 * line))
    return depth, tissue


def _fluid(chest: _Chest, visit: Visit) -> Array:
    """Share of the pleural depth that free fluid fills: a meniscus that climbs along the chest wall."""
    body = chest.body
    angle = body.right_dome + body.dome_height + body.sulcus_depth
    lateral = chest.out / chest.wall
    surface = angle - visit.sizes_mm["effusion"] * (0.62 + 0.38 * lateral * lateral)
    return 0.97 * _chord(chest.y - surface, 26) * _side(visit, chest.left)


def _vessels(chest: _Chest, rng: np.random.Generator) -> Array:
    """Pulmonary vessels: tapering curves that fan out from each hilum, relative thickness 0..1."""
    body = chest.body
    total = np.zeros_like(chest.y)
    middle = int(np.argmax(chest.x[len(chest.x) // 2] > 0))
    for sign in (-1.0, 1.0):
        half = slice(middle, None) if sign > 0 else slice(middle)
        x = sign * chest.x[:, half] - np.float32(body.mediastinum + 13 + sign * chest.heart_shift)
        y = chest.y[:, half] - np.float32(body.hilum - 5 * sign)
        part = total[:, half]
        part += 0.7 * np.exp(-((x / np.float32(0.75 * body.hilum_size)) ** 2 + (y / np.float32(1.5 * body.hilum_size)) ** 2))
        radius = np.sqrt(x * x + y * y)
        core = np.minimum(radius / 22, 1) ** 2
        fade = core * radius
        narrow = 1 / np.maximum(6.3 - 0.045 * radius, 1.8)
        angle = np.arctan2(y, x + np.float32(6))
        for direction in np.linspace(-1.3, 1.4, 8) + rng.normal(0, 0.12, 8):
            bend, length = rng.normal(0, 0.0035), rng.uniform(70, 125)
            offset = (angle - np.float32(direction) - np.float32(bend) * radius) * radius
            part += np.maximum(1 - np.abs(offset) * narrow, 0) * np.maximum(core - fade * np.float32(1 / length), 0)
    return total * np.float32(body.vessel_strength / 150)


def _nodule(chest: _Chest, visit: Visit) -> Array | float:
    """Chord in mm of a solid sphere in the free lung, and nothing when there is no nodule."""
    if "nodule" not in visit.sizes_mm:
        return 0.0
    x, y = nodule_centre(chest.body, visit)
    radius = visit.sizes_mm["nodule"] / 2
    return 2 * NODULE * radius * _ellipsoid(chest.x - np.float32(x), chest.y - np.float32(y), radius, radius)


def nodule_centre(body: Anatomy, visit: Visit) -> tuple[float, float]:
    """Where a nodule of this visit lies, (x, y) in mm in the patient's frame: inside the lung, clear of heart and diaphragm."""
    sign = 1.0 if visit.side == "left" else -1.0
    radius = visit.sizes_mm["nodule"] / 2
    lowest = body.right_dome - radius - 14
    y = body.apex + 34 + visit.location[1] * (lowest - body.apex - 34)
    rise = min(y - body.widest, 0.0) / (body.widest - body.apex)
    shrink = math.sqrt(max(1 - abs(rise) ** body.chest_shape, 0.05))
    centre = _apex_centre(body)
    outer = centre + (body.chest_half_width - centre) * shrink - radius - 8
    width = 2 * body.chest_half_width * visit.heart_ratio
    share = body.heart_left_share if sign > 0 else 1 - body.heart_left_share
    middle, tall = _heart_level(body, visit)
    beside = share * width if y > middle - 0.8 * tall else body.mediastinum + 18
    inner = min(beside + radius + 3, outer - 2)
    return sign * (inner + visit.location[0] * (outer - inner)), y


def _torso(chest: _Chest) -> Array:
    """Depth in mm of the body: chest and abdomen, shoulders and neck, air above the shoulders and beside the chest."""
    body = chest.body
    flare = 70 * _edge(-40 - chest.y, 90)
    flank = chest.wall + np.float32(body.chest_wall) + flare - chest.out
    top = (
        chest.y
        - np.float32(body.shoulder)
        - np.float32(body.shoulder_slope) * np.maximum(chest.out - 62, 0)
        + 60 * _edge(66 - chest.out, 60)
    )
    thin = 0.60 + 0.40 * _edge(chest.y - body.clavicle - 30, 110)
    belly = 1 + 0.03 * _edge(chest.y - chest.dome, 50)
    return body.chest_depth * thin * belly * _chord(flank, 80) * _chord(top, 60)


def _breasts(chest: _Chest) -> Array | float:
    body = chest.body
    if body.breast == 0:
        return 0.0
    x = chest.out - np.float32(0.60 * body.chest_half_width)
    y = chest.y - np.float32(body.breast_height)
    # Standing, the tissue hangs: full below, thin above.
    return 0.55 * body.breast * _ellipsoid(x, np.where(y > 0, 1.25 * y, 0.62 * y), body.breast, body.breast)


def _airways(chest: _Chest, visit: Visit) -> Array:
    """Depth of air in mm in the trachea and the two main bronchi."""
    body = chest.body
    carina = body.hilum - 26
    x = chest.x - np.float32(body.trachea_shift + 0.6 * chest.heart_shift)
    trachea = 20 * _ellipsoid(x, 0 * x, 10, 1) * _edge(carina - chest.y, 16)
    below = chest.y - np.float32(carina)
    bronchi = 13 * _ellipsoid(np.abs(x) - (3 + 0.85 * below), 0 * x, 7, 1) * _edge(below, 12) * _edge(34 - below, 24)
    depth: Array = trachea + bronchi
    return depth


def _gastric_bubble(chest: _Chest) -> Array | float:
    body = chest.body
    if body.gastric_bubble < 8:
        return 0.0
    x = chest.x - np.float32(0.50 * body.chest_half_width)
    y = chest.y - np.float32(body.right_dome + body.dome_difference + 12 + 0.7 * body.gastric_bubble)
    return 3.0 * body.gastric_bubble * _ellipsoid(x, y, 1.5 * body.gastric_bubble, 0.75 * body.gastric_bubble)


def _tube(distance: Array, half_width: float) -> Array:
    """A bone in profile, 0..1: cortex brighter than the marrow between."""
    r = np.abs(distance) * np.float32(1 / half_width)
    profile: Array = _edge(1 - r, 0.5) * (0.62 + 0.38 * np.minimum(r * r, 1))
    return profile


def _ribs(chest: _Chest) -> Array:
    """Thickness of ribs in mm: the posterior arcs, fainter anterior ends that run the other way."""
    body = chest.body
    far = chest.out / chest.wall
    down = body.rib_slope * body.chest_half_width
    bow = chest.y - np.float32(body.apex) + np.float32(body.rib_arch) * np.sin(np.float32(2.6) * far) - np.float32(down) * far * far * far
    posterior = bow / np.float32(body.rib_spacing) + np.float32(body.rib_offset)
    cage = _edge(chest.pleura + 5, 6) * _edge(posterior - 0.3, 0.4) * _edge(9.6 - posterior, 1.2)
    back = _tube((posterior - np.rint(posterior)) * np.float32(body.rib_spacing), 0.5 * body.rib_width)
    along = chest.y - np.float32(body.apex + 26) - np.float32(0.75 * body.chest_half_width) * np.maximum(1 - far, 0)
    anterior = along / np.float32(1.12 * body.rib_spacing) + np.float32(body.rib_offset)
    front = _tube((anterior - np.rint(anterior)) * np.float32(1.12 * body.rib_spacing), 0.62 * body.rib_width)
    front *= _edge(far - 0.42, 0.25) * _edge(anterior - 0.6, 0.5) * _edge(6.6 - anterior, 0.8)
    tangent = 0.75 + 0.9 * np.minimum(far, 1) ** 2 * np.minimum(far, 1) ** 2
    thickness: Array = cage * tangent * (10.0 * back * _edge(far - 0.1, 0.1) + 5.5 * front)
    return thickness


def _spine(chest: _Chest) -> Array:
    """Thickness of the vertebral column in mm, thinner at the discs, with the spinous processes in the midline."""
    body = chest.body
    x = chest.x - np.float32(body.scoliosis) * np.sin(chest.y * np.float32(math.pi / 150))
    level = chest.y / np.float32(body.vertebra)
    within = np.abs(level - np.rint(level))
    column = _edge(np.float32(body.spine_half_width) - np.abs(x), 5)
    process = _ellipsoid(x, (within - 0.1) * np.float32(body.vertebra), 4.0, 6.5)
    pedicle = _ellipsoid(np.abs(x) - np.float32(0.58 * body.spine_half_width), (within - 0.18) * np.float32(body.vertebra), 3.5, 4.5)
    thickness: Array = 7 * column * (1 - 0.45 * _edge(within - 0.40, 0.14)) + 6 * process + 5 * pedicle
    return thickness


def _shoulder_girdle(chest: _Chest) -> Array:
    """Thickness of clavicles, scapulae and humeral heads in mm."""
    body = chest.body
    lateral = chest.out / np.float32(body.chest_half_width)
    turned = np.float32(1.5 * chest.heart_shift) * (2 * chest.left - 1) * 0.15
    level = np.float32(body.clavicle) - np.float32(body.clavicle_tilt) * (chest.out - 20) + turned
    course = chest.y - level + np.float32(body.clavicle_bend) * np.sin(np.float32(3.4) * lateral - 0.5)
    clavicle = 15 * _tube(course, 6.8) * _edge(chest.out - 16, 8) * _edge(1.22 - lateral, 0.1)
    border = chest.out - (np.float32(body.chest_half_width - 6 + body.scapula) + 0.10 * (chest.y + 40))
    blade = 3.5 * _edge(border, 3) * _edge(46 - border, 40) + 4 * np.exp(-((border / 3) ** 2))
    scapula = blade * _edge(chest.y - body.clavicle + 8, 24) * _edge(28 - chest.y - 0.9 * border, 20)
    head = 20 * _ellipsoid(chest.out - np.float32(1.34 * body.chest_half_width), chest.y - np.float32(body.clavicle + 2), 26, 26)
    thickness: Array = clavicle + scapula + head
    return thickness


def _smooth_noise(rng: np.random.Generator, u: Array, v: Array) -> Array:
    """The patient's own fine structure: a smooth random field of unit variance that moves with the patient.

    A tensor product of cosines, so that it costs two small matrix products; the pose's slight tilt is left out.
    """
    waves = np.arange(1, 25, dtype=np.float32)
    phase = rng.uniform(0, 2 * math.pi, (2, waves.size)).astype(np.float32)
    weight = rng.normal(size=(waves.size, waves.size)).astype(np.float32)
    weight *= 1 / (1 + (np.hypot(waves[:, None], waves[None, :]) / 9) ** 2)
    weight *= 2 / np.sqrt((weight**2).sum())
    rows = np.cos(v * waves * np.float32(math.pi / 200) + phase[0])
    columns = np.cos(u.T * waves * np.float32(math.pi / 200) + phase[1])
    return np.asarray(rows @ weight @ columns.T, np.float32)


def phantom_arrays(count_patients: int, seed: int, size: int) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]:
    """All images of a cohort, patient after patient.

    Returns:
        Images ``uint8 [n, 1, size, size]``, class indices into :data:`CLASSES` ``int64 [n]``, patient numbers ``int64 [n]``.
    """
    patients = draw_patients(count_patients, seed)
    visits = [(patient, number) for patient in patients for number in range(len(patient.visits))]
    images = np.empty((len(visits), 1, size, size), np.uint8)
    for row, (patient, number) in enumerate(visits):
        images[row, 0] = np.rint(render(patient, number, size) * 255).astype(np.uint8)
    labels = np.array([CLASSES.index(patient.visits[number].finding) for patient, number in visits], np.int64)
    return images, labels, np.array([patient.index for patient, _ in visits], np.int64)
