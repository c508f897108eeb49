"""Pictures with and without text, drawn: what the text detector is fitted to, what its recall is measured on, and its score of one.

Backgrounds are phantoms, noise of many spectra, speckle, and the hard cases of radiology: collimators, grids, rulers, wires, traces,
clips and single-letter markers. Text is what scanners and ultrasound machines burn in, in faces with and without anti-aliasing.
"""

from __future__ import annotations

import functools
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import gaussian_filter

from pipeline.ingest.deidentify.text_detector import places
from pipeline.phantom.image import phantom_arrays

FOLDER = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
FIT_FACES = (
    *("DejaVuSans", "DejaVuSans-Bold", "DejaVuSansMono", "DejaVuSansMono-Bold", "DejaVuSerif", "DejaVuSans-Oblique", "cmss10", "cmr10"),
    *("DejaVuSans-BoldOblique", "cmb10", "STIXGeneralItalic", "STIXGeneral", "bitmap"),
)
HELD_OUT_FACES = ("cmtt10", "DejaVuSerif-Bold", "DejaVuSansMono-Oblique", "STIXGeneralBol", "DejaVuSerif-Italic", "bitmap")
Grey = NDArray[np.float32]


@dataclass(frozen=True)
class Line:
    """A line of text in a picture: the box of its ink, ``(top, left, bottom, right)``, and how many letters it has."""

    box: tuple[int, int, int, int]
    letters: int


def text_score(picture: Grey) -> float:
    """The score of the most text-like place of ``[H, W]``, a logit; minus infinity where there is none worth a look."""
    return max((place.score for place in places(picture)), default=-np.inf)


def words(rng: np.random.Generator, letters: int | None = None) -> str:
    """A line as scanners print it: a name, an id, a date, a setting; ``letters`` cuts it to a length."""

    def name() -> str:
        syllables = (
            "an",
            "ber",
            "Kow",
            "lin",
            "dr",
            "sto",
            "va",
            "ME",
            "ohn",
            "SMI",
            "TH",
            "ja",
            "ne",
            "GAR",
            "cia",
            "Lee",
            "mül",
            "ler",
            "wu",
        )
        return "".join(rng.choice(syllables, rng.integers(2, 4)))

    digits = "".join(map(str, rng.integers(0, 10, 10)))
    mark = str(rng.choice(list("/.-")))
    day = f"{rng.integers(1, 29):02d}{mark}{rng.integers(1, 13):02d}{mark}{rng.integers(1930, 2026)}"
    lines = (
        *(f"{name().upper()}^{name().upper()}", f"{name().title()}, {name().title()}", f"ID: {digits[:7]}", f"DOB {day}", day, digits[:8]),
        *(f"{digits[:2]}:{digits[2:4]}:{digits[4:6]}", f"MRN {digits[:5]}-{digits[5:7]}", f"kVp {digits[:3]} mA {digits[3:6]}"),
        *(f"{name().upper()} HOSPITAL", f"Dr. {name().title()}", f"Acc# {digits[:8]}", f"{digits[:2]}.{digits[2]} cm", name().upper()),
        *(f"{digits[:3]}Y F", f"MI {digits[0]}.{digits[1]} TIS {digits[2]}.{digits[3]}", "PORTABLE", "ERECT AP", f"FR {digits[:2]}Hz"),
        *(name().title(), f"Se:{digits[0]} Im:{digits[1:3]}"),
    )
    line = str(rng.choice(lines))
    while letters is not None and len(line.replace(" ", "")) < letters:
        line += name()
    return line if letters is None else line.replace(" ", "")[:letters]


def ink(text: str, face: str, size: int, smooth: bool) -> Grey:
    """Coverage ``[h, w]`` in 0..1 of a text at ``size`` pixels (em), cut to its ink; ``bitmap`` is Pillow's old 11-px raster face."""
    if face == "bitmap":
        font = ImageFont.load_default_imagefont()
        box = font.getbbox(text.encode("ascii", "replace").decode())
        picture = Image.new("L", (int(box[2]) + 2, int(box[3]) + 2))
        ImageDraw.Draw(picture).text((0, 0), text.encode("ascii", "replace").decode(), font=font, fill=255)
        scale = size / 11
        how = Image.Resampling.NEAREST if scale == int(scale) else Image.Resampling.BILINEAR
        picture = picture.resize((max(1, round(picture.width * scale)), max(1, round(picture.height * scale))), how)
    else:
        picture = Image.new("L" if smooth else "1", (len(text) * 2 * size + 8, 3 * size))
        ImageDraw.Draw(picture).text((4, size // 2), text, font=_font(face, size), fill=255)
    covered = np.asarray(picture.convert("L"), np.float32) / 255
    rows, columns = np.flatnonzero(covered.max(1) > 0.2), np.flatnonzero(covered.max(0) > 0.2)
    if not len(rows):
        return np.zeros((1, 1), np.float32)
    return np.asarray(covered[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])


def burn(picture: Grey, covered: Grey, value: float, rng: np.random.Generator, box: bool = False) -> tuple[Grey, Line | None]:
    """Draw opaque ``value`` where ``covered``, at a random place; on a plain ``box`` of the opposite shade where asked."""
    height, width = covered.shape
    if height + 4 > picture.shape[0] or width + 4 > picture.shape[1]:
        return picture, None
    top = int(rng.integers(2, picture.shape[0] - height - 1))
    left = int(rng.integers(2, picture.shape[1] - width - 1))
    burned = picture.copy()
    if box:
        burned[top - 2 : top + height + 2, left - 2 : left + width + 2] = 0 if value > 0.5 else 1
    part = burned[top : top + height, left : left + width]
    part += covered * (value - part)
    return burned, Line((top, left, top + height, left + width), 0)


def finish(picture: Grey, rng: np.random.Generator) -> Grey:
    """What happens between console and file: blur, noise, gamma, JPEG, 8 bits or more."""
    if rng.random() < 0.25:
        picture = gaussian_filter(picture, rng.uniform(0.2, 0.6))
    if rng.random() < 0.4:
        picture = picture + rng.normal(0, rng.uniform(0.002, 0.02), picture.shape).astype(np.float32)
    if rng.random() < 0.3:
        picture = np.clip(picture, 0, 1) ** np.float32(math.exp(rng.normal(0, 0.3)))
    if rng.random() < 0.25:
        buffer = io.BytesIO()
        Image.fromarray(_bytes(picture)).save(buffer, "JPEG", quality=int(rng.integers(50, 96)))
        picture = np.asarray(Image.open(buffer), np.float32) / 255
    return np.asarray(picture, np.float32)


def background(rng: np.random.Generator, height: int, width: int, photographs: Sequence[Grey] = ()) -> Grey:
    """A picture without text, 0..1; ``photographs`` are drawn from now and then, cropped and flipped."""
    kinds = [_noise, _noise, _speckle, phantom, phantom, _shapes, _plain]
    if len(photographs) and rng.random() < 0.3:
        picture = _crop(photographs[rng.integers(len(photographs))], rng, height, width)
    else:
        picture = kinds[rng.integers(len(kinds))](rng, height, width)
    if rng.random() < 0.35:
        picture = _clutter(picture, rng)
    low, high = sorted(rng.uniform(0, 1, 2))
    return np.asarray(picture * max(high - low, 0.3) + low * 0.5, np.float32).clip(0, 1)


def _bytes(picture: Grey) -> NDArray[np.uint8]:
    return np.asarray(np.clip(np.rint(picture * 255), 0, 255), np.uint8)


@functools.lru_cache(maxsize=512)
def _font(face: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(FOLDER / f"{face}.ttf"), size)


@functools.cache
def _phantoms() -> NDArray[np.uint8]:
    return phantom_arrays(60, 987, 256)[0][:, 0]


def phantom(rng: np.random.Generator, height: int, width: int) -> Grey:
    """A piece of a phantom radiograph, 0..1."""
    images = _phantoms()
    return _crop(images[rng.integers(len(images))].astype(np.float32) / 255, rng, height, width)


def _crop(picture: Grey, rng: np.random.Generator, height: int, width: int) -> Grey:
    """A piece of random scale and orientation."""
    scale = min(math.exp(rng.uniform(-0.9, 0.3)), picture.shape[0] / height, picture.shape[1] / width)
    top, left = rng.uniform(0, picture.shape[0] - height * scale), rng.uniform(0, picture.shape[1] - width * scale)
    box = (left, top, left + width * scale, top + height * scale)
    piece = np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC, box=box), np.float32)
    return piece[:: 1 if rng.random() < 0.5 else -1, :: 1 if rng.random() < 0.5 else -1].clip(0, 1)


def _plain(rng: np.random.Generator, height: int, width: int) -> Grey:
    ramp = np.linspace(0, rng.uniform(-0.5, 0.5), width) + np.linspace(0, rng.uniform(-0.5, 0.5), height)[:, None]
    return np.clip(ramp + rng.choice([0.0, rng.uniform(0, 1)]), 0, 1).astype(np.float32)


def _noise(rng: np.random.Generator, height: int, width: int) -> Grey:
    """Noise with a power spectrum 1/f^b, some of it thresholded into blobs, as marrow, fat and dense tissue look."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    shape = np.maximum(frequency, 1 / max(height, width)) ** -rng.uniform(0, 2)
    if rng.random() < 0.3:  # a band: trabeculae, grids, fingerprints
        shape = np.exp(-(((frequency - rng.uniform(0.03, 0.25)) / rng.uniform(0.01, 0.05)) ** 2))
    wave = np.fft.irfft2(np.fft.rfft2(rng.normal(size=(height, width))) * shape, (height, width))
    wave = (wave - wave.mean()) / (wave.std() + 1e-9)
    if rng.random() < 0.3:
        wave = np.tanh(wave * rng.uniform(1, 6) + rng.normal())
    return np.clip(0.5 + wave * rng.uniform(0.02, 0.25), 0, 1).astype(np.float32)


def _speckle(rng: np.random.Generator, height: int, width: int) -> Grey:
    """Rayleigh speckle of a fan or of the whole picture, log-compressed."""
    field = rng.normal(size=(2, height, width))
    wide, deep = rng.uniform(0.5, 2.5), rng.uniform(0.4, 1.5)
    amplitude = np.hypot(*(gaussian_filter(part, (deep, wide)) for part in field))
    anatomy = gaussian_filter(rng.normal(size=(height, width)), rng.uniform(4, 20))
    picture = 0.45 + 0.12 * np.log(amplitude / amplitude.mean() + 1e-3) + 0.2 * anatomy / (anatomy.std() + 1e-9)
    if rng.random() < 0.4:
        rows, columns = np.mgrid[:height, :width]
        angle = np.arctan2(columns - width * rng.uniform(0.2, 0.8), rows + rng.uniform(1, 40))
        picture = np.where(np.abs(angle) < rng.uniform(0.3, 0.9), picture, 0)
    return np.clip(picture, 0, 1).astype(np.float32)


def _shapes(rng: np.random.Generator, height: int, width: int) -> Grey:
    """Sharp bodies one over the other: bones, plates, collimated fields."""
    canvas = Image.new("L", (width, height), int(rng.integers(0, 256)))
    draw = ImageDraw.Draw(canvas)
    for _ in range(rng.integers(1, 14)):
        points = [(float(x), float(y)) for x, y in rng.uniform(-20, 1, (rng.integers(2, 6), 2)) + rng.uniform(0, [width + 20, height + 20])]
        x, y = sorted(rng.uniform(-10, width + 10, 2)), sorted(rng.uniform(-10, height + 10, 2))
        fill = int(rng.integers(0, 256))
        if rng.random() < 0.5:
            draw.ellipse((x[0], y[0], x[1], y[1]), fill=fill if rng.random() < 0.6 else None, outline=fill, width=int(rng.integers(1, 5)))
        else:
            draw.polygon(points, fill=fill)
    smooth = gaussian_filter(np.asarray(canvas, np.float32) / 255, rng.uniform(0, 2))
    return np.asarray(smooth + rng.normal(0, rng.uniform(0, 0.05), smooth.shape), np.float32).clip(0, 1)


def _clutter(picture: Grey, rng: np.random.Generator) -> Grey:
    """What looks like writing and is none: rulers, grids, wires, traces, clips, dots, arrows, one or two letters."""
    height, width = picture.shape
    canvas = Image.fromarray(_bytes(picture))
    draw = ImageDraw.Draw(canvas)
    for _ in range(rng.integers(1, 5)):
        shade, thick = int(rng.choice([0, 255, rng.integers(0, 256)])), int(rng.integers(1, 4))
        x, y = rng.uniform(0, width), rng.uniform(0, height)
        kind = rng.integers(10)
        if kind == 0:  # a ruler
            step, tick = rng.uniform(3, 15), rng.uniform(2, 12)
            for number in range(int(rng.integers(4, 60))):
                long = tick * (2 if number % 5 == 0 else 1)
                line = (x, number * step, x + long, number * step) if thick % 2 else (number * step, y, number * step, y + long)
                draw.line(line, fill=shade, width=1)
        elif kind == 1:  # a grid
            step = rng.uniform(4, 30)
            for number in range(int(max(height, width) / step) + 1):
                draw.line((number * step, 0, number * step, height), fill=shade, width=1)
                if thick > 1:
                    draw.line((0, number * step, width, number * step), fill=shade, width=1)
        elif kind == 2:  # a wire or a vessel
            steps = np.cumsum(rng.normal(0, rng.uniform(1, 8), (rng.integers(5, 80), 2)), 0) + np.array((x, y))
            draw.line([(float(a), float(b)) for a, b in steps], fill=shade, width=thick)
        elif kind == 3:  # a trace, as of an ECG
            along = np.arange(0, width, 1.0)
            wave = rng.uniform(3, 15) * np.sin(along / rng.uniform(2, 20)) ** int(rng.choice([1, 3, 7]))
            draw.line([(float(a), float(y + b)) for a, b in zip(along, wave)], fill=shade, width=thick)
        elif kind == 4:  # clips, calcifications
            for a, b in rng.normal((x, y), rng.uniform(3, 30), (rng.integers(2, 25), 2)):
                size = rng.uniform(0.5, 3)
                draw.ellipse((a - size, b - size, a + size, b + size), fill=shade)
        elif kind == 5:  # a collimated edge
            draw.rectangle((0, 0, x, height) if rng.random() < 0.5 else (0, 0, width, y), fill=shade)
        elif kind == 6:  # short strokes in any direction: staples, fibres, an arrow
            for a, b in rng.normal((x, y), rng.uniform(4, 40), (rng.integers(1, 12), 2)):
                angle, length = rng.uniform(0, 7), rng.uniform(3, 20)
                draw.line((a, b, a + length * math.cos(angle), b + length * math.sin(angle)), fill=shade, width=thick)
        elif kind == 7:  # a chain or a sternal wire: repeated rings
            step, size = rng.uniform(5, 14), rng.uniform(2, 6)
            for number in range(int(rng.integers(3, 20))):
                draw.ellipse((x + number * step, y, x + number * step + size, y + size), outline=shade, width=1)
        elif kind == 8:  # a lattice or a ladder: tubes, stents, spines, coils
            long, step, wide, angle = rng.uniform(20, 90), rng.uniform(3, 12), rng.uniform(4, 16), rng.uniform(0, 7)
            along, across = np.array([math.cos(angle), math.sin(angle)]), np.array([-math.sin(angle), math.cos(angle)])
            for number in range(int(long / step)):
                one = (x, y) + along * number * step
                two = one + across * wide + along * step * (thick - 1)
                draw.line((*one, *two), fill=shade, width=1 + thick // 3)
                if thick % 2:
                    draw.line((*two, *(one + along * step)), fill=shade, width=1)
        else:  # a laterality marker
            letters = str(rng.choice(["R", "L", "R", "L", "LT", "RT", "D", "G", "1", "10", "A", "P", "->", "x", "+"]))
            face = str(rng.choice(FIT_FACES[:-1]))
            draw.text((x * 0.9, y * 0.9), letters, font=_font(face, int(rng.integers(8, 60))), fill=shade)
    return np.asarray(canvas, np.float32) / 255
