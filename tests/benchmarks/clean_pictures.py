"""Pictures without text that a text detector may stumble over, drawn after what scanners of every kind give.

Magnitude noise that ends in exact zeros, the circle of a CT, ultrasound sectors with their depth ticks and grey bars, counts of a bone
scan, nuclei of histology, vessels of a fundus, marks of films, implants with threads, bar patterns. The detector is fitted to them
(:mod:`tests.benchmarks.fit_text_detector`); what it is measured on is drawn elsewhere (:mod:`tests.benchmarks.text_guard`).
"""

from __future__ import annotations

import io
import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter, zoom

Grey = NDArray[np.float32]


def clean(rng: np.random.Generator, height: int, width: int) -> Grey:
    """One of them, 0..1; of low contrast now and then, as the quiet parts of a picture of wide range are, or coded by a coarse JPEG."""
    kinds = (magnitude, magnitude, magnitude, circle, sector, sector, counts, nuclei, vessels, film, implants, bars, rows_of_bodies, table)
    picture = kinds[rng.integers(len(kinds))](rng, height, width)
    if rng.random() < 0.4:
        picture = zeroed(picture, rng)
    if rng.random() < 0.25:
        picture = ticked(picture, rng)
    if rng.random() < 0.15:
        picture = jpeg(picture, int(rng.integers(8, 60)))
    if rng.random() < 0.3:
        picture = picture * np.float32(math.exp(rng.uniform(math.log(0.01), 0)))
    if rng.random() < 0.15:
        picture = np.rint(picture * rng.integers(12, 60)) / np.float32(60)
    return np.asarray(picture, np.float32).clip(0, 1)


def zeroed(picture: Grey, rng: np.random.Generator) -> Grey:
    """Exact zeros (or another constant) beside values: rows, columns, a curved or slanted border, wedges, single lines and blocks."""
    height, width = picture.shape
    y, x = np.mgrid[:height, :width].astype(np.float32)
    kind = rng.integers(7)
    edge = float(rng.uniform(0.05, 0.95))
    if kind == 0:
        gone = y < edge * height
    elif kind == 1:  # distortion correction bends the border
        gone = y < edge * height + rng.uniform(-25, 25) * ((x / width - rng.uniform(0, 1)) * 2) ** 2
    elif kind == 2:
        angle = rng.uniform(0, math.pi)
        gone = (x - width / 2) * math.cos(angle) + (y - height / 2) * math.sin(angle) > rng.uniform(-0.4, 0.4) * width
    elif kind == 3:
        gone = np.hypot(x - rng.uniform(0, width), y - rng.uniform(0, height)) > rng.uniform(0.2, 1.2) * width
    elif kind == 4:  # single lines, every line of a kind
        step = int(rng.integers(2, 40))
        gone = (y.astype(int) % step) < rng.integers(1, max(2, step // 3))
    elif kind == 5:
        size = int(rng.integers(4, 24))
        gone = zoom(rng.random((-(-height // size), -(-width // size))) < rng.uniform(0.1, 0.6), size, order=0)[:height, :width]
    else:  # a mask of smooth blobs, as of a skull-stripped brain
        blobs = gaussian_filter(rng.normal(size=(height, width)), rng.uniform(3, 15))
        gone = blobs > np.quantile(blobs, rng.uniform(0.2, 0.8))
    turned = gone if rng.random() < 0.5 else (gone.T if height == width else gone[:, ::-1])
    constant = 0.0 if rng.random() < 0.8 else float(rng.uniform(0, 1))
    return np.where(turned, np.float32(constant), picture)


def ticked(picture: Grey, rng: np.random.Generator) -> Grey:
    """One to three scales over a picture."""
    canvas = Image.fromarray(np.asarray(np.clip(picture * 255, 0, 255), np.uint8))
    for _ in range(rng.integers(1, 4)):
        _ticks(ImageDraw.Draw(canvas), rng, *picture.shape)
    return np.asarray(canvas, np.float32) / 255


def jpeg(picture: Grey, quality: int) -> Grey:
    """Through an 8-bit JPEG of this quality."""
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(np.clip(np.rint(picture * 255), 0, 255), np.uint8)).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer), np.float32) / 255


def magnitude(rng: np.random.Generator, height: int, width: int) -> Grey:
    """Rician noise (Gudbjartsson and Patz 1995) with or without a body, interpolated or not, as whole numbers, with varying noise."""
    sigma = math.exp(rng.uniform(math.log(0.002), math.log(0.12)))
    body = _body(rng, height, width) if rng.random() < 0.6 else np.zeros((height, width), np.float32)
    factor = int(rng.choice([1, 1, 1, 2, 3]))
    small = (-(-height // factor) + 1, -(-width // factor) + 1)
    real, imaginary = rng.normal(0, sigma, (2, *small)).astype(np.float32)
    if factor > 1:  # zero filling of k-space
        real, imaginary = (zoom(part, factor, order=3)[:height, :width] * factor**0.5 for part in (real, imaginary))
    else:
        real, imaginary = real[:height, :width], imaginary[:height, :width]
    if rng.random() < 0.3:
        gain = 1 + rng.uniform(0, 3) * _smooth(rng, height, width, 20)
        real, imaginary = real * gain, imaginary * gain
    picture = np.hypot(body + real, imaginary)
    if rng.random() < 0.3:  # a floor below which everything is zero
        picture = np.where(picture < sigma * rng.uniform(0.5, 2.5), 0, picture)
    if rng.random() < 0.3:
        levels = int(rng.integers(20, 700))
        picture = np.rint(picture * levels) / levels
    if rng.random() < 0.3:  # a narrow window
        picture = picture / max(float(picture.max()), 1e-6) * rng.uniform(0.3, 1)
    return np.asarray(picture, np.float32)


def _smooth(rng: np.random.Generator, height: int, width: int, scale: float) -> Grey:
    """Smooth random field, 0..1."""
    field = gaussian_filter(rng.normal(size=(height, width)), scale)
    return np.asarray((field - field.min()) / max(float(np.ptp(field)), 1e-9), np.float32)


def _body(rng: np.random.Generator, height: int, width: int) -> Grey:
    """Ellipses with inner structure at several scales, or part of one."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    inside = np.hypot(
        (x - rng.uniform(0, width)) / rng.uniform(0.2, 1.2) / width, (y - rng.uniform(0, height)) / rng.uniform(0.2, 1.2) / height
    )
    tissue = sum(_smooth(rng, height, width, scale) * weight for scale, weight in ((12, 0.5), (4, 0.3), (1.5, rng.uniform(0, 0.4))))
    return np.asarray(np.where(inside < 1, tissue, 0) * rng.uniform(0.1, 1), np.float32)


def circle(rng: np.random.Generator, height: int, width: int) -> Grey:
    """The circle of a CT's reconstruction: correlated noise and streaks inside, a constant outside."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    noise = gaussian_filter(rng.normal(size=(height, width)), rng.uniform(0.4, 1.2))
    picture = 0.3 + _body(rng, height, width) * 0.5 + noise / noise.std() * rng.uniform(0.002, 0.06)
    cx, cy = rng.uniform(-0.5, 1.5) * width, rng.uniform(-0.5, 1.5) * height
    if rng.random() < 0.3:  # streaks from metal
        angle = np.arctan2(y - cy, x - cx)
        picture = picture + 0.1 * np.sin(angle * rng.integers(10, 120)) * (np.hypot(x - cx, y - cy) < width)
    inside = np.hypot(x - cx, y - cy) < rng.uniform(0.4, 1.8) * width
    return np.asarray(np.where(inside, picture, rng.choice([0.0, 0.1, 1.0])), np.float32)


def sector(rng: np.random.Generator, height: int, width: int) -> Grey:
    """Ultrasound: speckle in a fan or a box on black, depth ticks beside it, a grey bar, focus marks, a caliper's crosses."""
    amplitude = np.hypot(
        *(gaussian_filter(part, (rng.uniform(0.4, 1.5), rng.uniform(0.6, 3))) for part in rng.normal(size=(2, height, width)))
    )
    echo = (
        0.3
        + 0.5 * (_smooth(rng, height, width, rng.uniform(3, 20)) - 0.4)
        + rng.uniform(0.05, 0.2) * np.log(amplitude / amplitude.mean() + 1e-2)
    )
    y, x = np.mgrid[:height, :width].astype(np.float32)
    apex = rng.uniform(0.1, 0.9) * width, rng.uniform(-1.5, 0.3) * height
    radius, angle = np.hypot(x - apex[0], y - apex[1]), np.abs(np.arctan2(x - apex[0], y - apex[1]))
    fan = (angle < rng.uniform(0.2, 0.9)) & (radius > rng.uniform(0, 0.5) * height) & (radius < rng.uniform(0.8, 2.2) * height)
    picture = np.where(fan if rng.random() < 0.6 else x > rng.uniform(-0.5, 0.6) * width, echo.clip(0, 1), 0)
    canvas = Image.fromarray(np.asarray(picture * 255, np.uint8))
    draw = ImageDraw.Draw(canvas)
    for _ in range(rng.integers(0, 4)):
        _ticks(draw, rng, height, width)
    if rng.random() < 0.4:  # the bar of greys or of velocities
        left, wide, top = int(rng.integers(0, width)), int(rng.integers(4, 16)), int(rng.integers(0, height // 2))
        long = int(rng.integers(20, height))
        for row in range(long):
            draw.line((left, top + row, left + wide, top + row), fill=255 - 255 * row // long)
        draw.rectangle((left, top, left + wide, top + long), outline=int(rng.integers(60, 256)) if rng.random() < 0.5 else None)
    for _ in range(rng.integers(0, 5)):
        _mark(draw, rng, height, width)
    return np.asarray(canvas, np.float32) / 255


def _ticks(draw: ImageDraw.ImageDraw, rng: np.random.Generator, height: int, width: int) -> None:
    """A scale: strokes, dots or triangles at even distance, longer every so many."""
    step, every = rng.uniform(3, 25), int(rng.integers(2, 11))
    length, middle, long = sorted(int(reach) for reach in rng.integers(1, 20, 3))
    start, at = rng.uniform(-10, 10), rng.uniform(0, width)
    shade, thick, dots, flat = int(rng.integers(60, 256)), int(rng.choice([1, 1, 2])), rng.random() < 0.3, rng.random() < 0.3
    for number in range(int(max(height, width) / step) + 1):
        along = start + number * step
        reach = long if number % every == 0 else middle if 2 * number % every == 0 else length
        if dots:
            size = 1 + (number % every == 0)
            box = (along - size, at - size, along + size, at + size) if flat else (at - size, along - size, at + size, along + size)
            draw.ellipse(box, fill=shade)
        else:
            draw.line((along, at, along, at + reach) if flat else (at, along, at + reach, along), fill=shade, width=thick)
    if rng.random() < 0.4:
        draw.line((0, at, width, at) if flat else (at, 0, at, height), fill=shade, width=1)


def _mark(draw: ImageDraw.ImageDraw, rng: np.random.Generator, height: int, width: int) -> None:
    """A caliper's cross, a focus mark, an arrow, a probe's logo, a dotted line, a small picture of the body."""
    x, y, size, shade = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(2, 9), int(rng.integers(90, 256))
    kind = rng.integers(6)
    if kind == 0:
        draw.line((x - size, y, x + size, y), fill=shade)
        draw.line((x, y - size, x, y + size), fill=shade)
        if rng.random() < 0.4:
            draw.line((x - size, y - size, x + size, y + size), fill=shade)
            draw.line((x - size, y + size, x + size, y - size), fill=shade)
    elif kind == 1:
        points = [(x, y), (x + size, y - size), (x + size, y + size)]
        draw.polygon(points, fill=shade if rng.random() < 0.6 else None, outline=shade)
    elif kind == 2:
        end = (x + rng.normal(0, 25), y + rng.normal(0, 25))
        draw.line((x, y, *end), fill=shade, width=int(rng.integers(1, 4)))
        draw.polygon([(x, y), (x + size, y + size / 2), (x + size / 2, y + size)], fill=shade)
    elif kind == 3:
        draw.ellipse((x, y, x + 2 * size, y + 2 * size), outline=shade, width=int(rng.integers(1, 3)))
        draw.line((x + size, y, x + size, y + size), fill=shade)
    elif kind == 4:
        angle, step = rng.uniform(0, 6.3), rng.uniform(3, 8)
        for number in range(int(rng.integers(4, 30))):
            a, b = x + math.cos(angle) * step * number, y + math.sin(angle) * step * number
            draw.point((a, b), fill=shade) if rng.random() < 0.5 else draw.ellipse((a, b, a + 1, b + 1), fill=shade)
    else:
        draw.arc((x, y, x + 5 * size, y + 5 * size), 0, int(rng.integers(90, 360)), fill=shade)
        draw.line((x, y + 2 * size, x + 5 * size, y + 2 * size), fill=shade)


def counts(rng: np.random.Generator, height: int, width: int) -> Grey:
    """Scintigraphy and PET: few counts a pixel, hot spots alone, in rows (spine, ribs, fingers) and in clusters."""
    rate = 2 * _body(rng, height, width) + rng.uniform(0, 0.4)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    for _ in range(rng.integers(0, 4)):
        at, step = rng.uniform(0, [height, width]), rng.normal(0, 9, 2)
        size, heat = rng.uniform(1, 5), math.exp(rng.uniform(0, 4))
        for number in range(int(rng.integers(1, 12))):
            cy, cx = at + step * number
            rate = rate + heat * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / (2 * size**2)) * rng.uniform(0.4, 1)
    picture = rng.poisson(rate * math.exp(rng.uniform(-1, 3))).astype(np.float32)
    if rng.random() < 0.4:
        picture = gaussian_filter(picture, rng.uniform(0.3, 1.5))
    return picture / max(float(picture.max()), 1) * np.float32(rng.uniform(0.5, 1))


def nuclei(rng: np.random.Generator, height: int, width: int) -> Grey:
    """Histology and cytology: dark bodies of one size in a texture, strewn, in rows or around glands."""
    canvas = Image.fromarray(np.asarray(90 + 150 * _smooth(rng, height, width, rng.uniform(1, 6)), np.uint8))
    draw = ImageDraw.Draw(canvas)
    size, dark = rng.uniform(1.5, 8), rng.integers(0, 130)
    count = int(rng.uniform(0.1, 0.8) * height * width / (2 * size) ** 2 / 2)
    places = rng.uniform(0, [width, height], (count, 2))
    if rng.random() < 0.4:  # along the walls of glands
        centres = rng.uniform(0, [width, height], (max(1, count // 14), 2))
        turn = rng.uniform(0, 6.3, count)
        around = rng.uniform(2, 5) * size
        places = centres[rng.integers(0, len(centres), count)] + around * np.stack([np.cos(turn), np.sin(turn)], 1)
    for x, y in places:
        a, b, shade = size * rng.uniform(0.5, 1.3), size * rng.uniform(0.4, 1.1), int(dark + rng.integers(0, 70))
        draw.ellipse((x - a, y - b, x + a, y + b), fill=shade if rng.random() < 0.8 else None, outline=shade)
    return gaussian_filter(np.asarray(canvas, np.float32) / 255, rng.uniform(0, 1.2)) + rng.normal(0, 0.02, (height, width)).astype(
        np.float32
    )


def vessels(rng: np.random.Generator, height: int, width: int) -> Grey:
    """A fundus or an angiogram: branching vessels, bright or dark, on a disc with a bright spot, exudates, black around."""
    canvas = Image.new("L", (width, height), int(rng.integers(60, 180)))
    draw = ImageDraw.Draw(canvas)
    shade = int(rng.integers(0, 256))

    def grow(x: float, y: float, angle: float, wide: float, left: int) -> None:
        for _ in range(int(rng.integers(6, 30))):
            angle += rng.normal(0, 0.25)
            to = x + 4 * math.cos(angle), y + 4 * math.sin(angle)
            draw.line((x, y, *to), fill=shade, width=max(1, round(wide)))
            x, y = to
        if left:
            for turn in (rng.uniform(0.2, 0.9), -rng.uniform(0.2, 0.9)):
                grow(x, y, angle + turn, wide * rng.uniform(0.5, 0.9), left - 1)

    for _ in range(rng.integers(1, 5)):
        grow(rng.uniform(0, width), rng.uniform(0, height), rng.uniform(0, 6.3), rng.uniform(1, 6), int(rng.integers(1, 4)))
    for x, y in rng.normal(rng.uniform(0, width, 2), rng.uniform(5, 40), (int(rng.integers(0, 30)), 2)):
        size = rng.uniform(0.5, 4)
        draw.ellipse((x - size, y - size, x + size, y + size), fill=int(rng.integers(150, 256)))
    picture = gaussian_filter(np.asarray(canvas, np.float32) / 255, rng.uniform(0.3, 1.5))
    y, x = np.mgrid[:height, :width].astype(np.float32)
    if rng.random() < 0.5:
        centre = rng.uniform(-0.5, 1.5, 2) * (height, width)
        picture = np.where(np.hypot(y - centre[0], x - centre[1]) < rng.uniform(0.4, 1.6) * width, picture, 0)
    return np.asarray(picture + rng.normal(0, rng.uniform(0, 0.03), picture.shape), np.float32)


def film(rng: np.random.Generator, height: int, width: int) -> Grey:
    """A digitised or collimated film: blanked name plates, notches, scratches, dust, a step wedge, curves by hand, collimator leaves."""
    canvas = Image.fromarray(np.asarray(255 * (_body(rng, height, width) * 0.7 + 0.3 * _smooth(rng, height, width, 15)), np.uint8))
    draw = ImageDraw.Draw(canvas)
    for _ in range(rng.integers(1, 6)):
        x, y, shade = rng.uniform(0, width), rng.uniform(0, height), int(rng.choice([0, 255, rng.integers(0, 256)]))
        kind = rng.integers(8)
        if kind == 0:  # a plate, its frame, its corner cut
            w, h, cut = rng.uniform(10, 70), rng.uniform(5, 40), rng.uniform(0, 8)
            points = [(x, y), (x + w - cut, y), (x + w, y + cut), (x + w, y + h), (x, y + h)]
            draw.polygon(points, fill=shade if rng.random() < 0.6 else None, outline=int(rng.integers(0, 256)))
        elif kind == 1:  # a step wedge
            w, h, horizontal = rng.uniform(4, 16), rng.uniform(4, 16), rng.random() < 0.5
            for number in range(int(rng.integers(4, 14))):
                a, b = (x + number * w, y) if horizontal else (x, y + number * h)
                draw.rectangle((a, b, a + w, b + h), fill=int(255 * (number + 1) / 15))
        elif kind == 2:  # scratches
            for _ in range(int(rng.integers(1, 8))):
                a, b = rng.normal((x, y), 15)
                draw.line((a, b, a + rng.normal(0, 30), b + rng.normal(0, 30)), fill=shade)
        elif kind == 3:  # a curve by hand
            turn = np.cumsum(rng.normal(0, 0.5, int(rng.integers(5, 60))))
            path = np.cumsum(np.stack([np.cos(turn), np.sin(turn)], 1) * rng.uniform(1, 5), 0) + np.array((x, y))
            draw.line([(float(a), float(b)) for a, b in path], fill=shade, width=int(rng.integers(1, 4)))
        elif kind == 4:  # leaves of a collimator, teeth of a frame
            step, deep = rng.uniform(4, 20), rng.uniform(2, 20)
            for number in range(int(width / step) + 1):
                draw.rectangle((number * step, 0, number * step + step / 2, max(0, y + rng.uniform(-deep, deep))), fill=shade)
        elif kind == 5:  # dust
            for a, b in rng.uniform(0, [width, height], (int(rng.integers(5, 80)), 2)):
                draw.ellipse((a, b, a + rng.uniform(0, 2), b + rng.uniform(0, 2)), fill=shade)
        elif kind == 6:  # the edge of the film, rounded
            draw.rounded_rectangle((x - width, y - height, x, y), int(rng.integers(3, 25)), outline=shade, width=int(rng.integers(1, 6)))
        else:  # a cross hair, a ring, a bead
            size = rng.uniform(3, 18)
            draw.ellipse((x - size, y - size, x + size, y + size), outline=shade, width=int(rng.integers(1, 4)))
            if rng.random() < 0.5:
                draw.line((x - 2 * size, y, x + 2 * size, y), fill=shade)
                draw.line((x, y - 2 * size, x, y + 2 * size), fill=shade)
    picture = gaussian_filter(np.asarray(canvas, np.float32) / 255, rng.uniform(0, 0.8))
    return np.asarray(picture + rng.normal(0, rng.uniform(0, 0.04), picture.shape), np.float32)


def implants(rng: np.random.Generator, height: int, width: int) -> Grey:
    """Screws, stents, coils, leads, staples, chains of any direction, blurred as a detector blurs."""
    canvas = Image.fromarray(np.asarray(255 * (0.2 + 0.5 * _body(rng, height, width)), np.uint8))
    draw = ImageDraw.Draw(canvas)
    for _ in range(rng.integers(1, 5)):
        along_angle = rng.uniform(0, 6.3)
        along = np.array([math.cos(along_angle), math.sin(along_angle)])
        across = np.array([-along[1], along[0]])
        start, step, wide = rng.uniform(0, [width, height]), rng.uniform(2, 12), rng.uniform(2, 14)
        shade, thick, kind = int(rng.choice([255, 230, 0, rng.integers(0, 256)])), int(rng.integers(1, 4)), rng.integers(6)
        for number in range(int(rng.integers(4, 24))):
            at = start + along * step * number
            if kind == 0:  # a thread
                draw.polygon([tuple(at - across * wide / 2), tuple(at + along * step / 2), tuple(at + across * wide / 2)], fill=shade)
            elif kind == 1:  # the meshes of a stent
                for side in (-1, 1):
                    ends = (*(at + across * wide / 2 * side), *(at + along * step - across * wide / 2 * side))
                    draw.line(ends, fill=shade, width=1)
            elif kind == 2:  # turns of a coil
                draw.ellipse((*(at - wide / 2), *(at + wide / 2)), outline=shade, width=1)
            elif kind == 3:  # staples
                if rng.random() < 0.8:
                    a, b = at + rng.normal(0, 1.5, 2), at + across * wide + rng.normal(0, 1.5, 2)
                    draw.line((*a, *b), fill=shade, width=thick)
            elif kind == 4:  # electrodes on a lead
                size = wide / 3 * (number % 4 == 0) + 1
                draw.ellipse((*(at - size), *(at + size)), fill=shade)
            else:  # a row of bodies that differ, as seeds and sutures
                if rng.random() < 0.7:
                    far = at + along * rng.uniform(0, step) + across * rng.normal(0, wide / 2)
                    draw.line((*at, *far), fill=shade, width=thick)
    return gaussian_filter(np.asarray(canvas, np.float32) / 255, rng.uniform(0, 1)) + rng.normal(
        0, rng.uniform(0, 0.03), (height, width)
    ).astype(np.float32)


def bars(rng: np.random.Generator, height: int, width: int) -> Grey:
    """Test patterns: groups of bars at several pitches and directions, checkers, dots in a lattice, zone plates, stripes of a grid."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    picture = np.full((height, width), rng.uniform(0, 0.5), np.float32)
    for _ in range(rng.integers(1, 7)):
        angle, pitch = float(rng.choice([0, math.pi / 2, rng.uniform(0, math.pi)])), rng.uniform(2, 16)
        wave = np.sin((x * math.cos(angle) + y * math.sin(angle)) * 2 * math.pi / pitch + rng.uniform(0, 6))
        kind = rng.integers(5)
        if kind == 1:
            wave = wave * np.sin((-x * math.sin(angle) + y * math.cos(angle)) * 2 * math.pi / pitch)
        elif kind == 2:
            wave = np.minimum(wave, np.sin((-x * math.sin(angle) + y * math.cos(angle)) * 2 * math.pi / pitch)) - rng.uniform(0.2, 0.8)
        elif kind == 3:
            wave = np.sin(((x - width / 2) ** 2 + (y - height / 2) ** 2) / rng.uniform(20, 300))
        if rng.random() < 0.7:
            wave = np.sign(wave)
        top, left = rng.uniform(-20, height), rng.uniform(-20, width)
        there = (y > top) & (y < top + rng.uniform(6, height)) & (x > left) & (x < left + rng.uniform(6, width))
        picture = np.where(there, 0.5 + rng.uniform(0.05, 0.5) * wave, picture)
    return np.asarray(gaussian_filter(picture, rng.uniform(0, 0.8)) + rng.normal(0, rng.uniform(0, 0.05), picture.shape), np.float32)


def rows_of_bodies(rng: np.random.Generator, height: int, width: int) -> Grey:
    """Teeth, vertebrae, phalanges, ribs, loops of bowel, folds: like bodies side by side, upright, turned, along an arc."""
    canvas = Image.fromarray(np.asarray(255 * 0.6 * _smooth(rng, height, width, 12), np.uint8))
    draw = ImageDraw.Draw(canvas)
    for _ in range(rng.integers(1, 4)):
        angle, bend, step = rng.uniform(0, 6.3), rng.normal(0, 0.12), rng.uniform(5, 18)
        at = rng.uniform(0, [width, height])
        a, b, shade = step * rng.uniform(0.25, 0.48), step * rng.uniform(0.3, 1.2), int(rng.integers(80, 256))
        hollow = rng.random() < 0.4
        for _ in range(int(rng.integers(3, 16))):
            turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
            box = np.array([[-a, -b], [a, -b], [a * rng.uniform(0.5, 1), b], [-a * rng.uniform(0.5, 1), b]]) * rng.uniform(0.8, 1.1)
            points = [(float(p), float(q)) for p, q in box @ turn.T + at]
            draw.polygon(points, fill=None if hollow else shade - int(rng.integers(0, 40)), outline=shade)
            at = at + step * np.array([math.cos(angle), math.sin(angle)])
            angle += bend
    picture = gaussian_filter(np.asarray(canvas, np.float32) / 255, rng.uniform(0.3, 2))
    return np.asarray(picture + rng.normal(0, rng.uniform(0, 0.05), picture.shape), np.float32)


def table(rng: np.random.Generator, height: int, width: int) -> Grey:
    """The scanner's table and mattress: thin bright curves, close together, in noise; cables, a grid of beads."""
    canvas = Image.new("L", (width, height), int(rng.integers(0, 40)))
    draw = ImageDraw.Draw(canvas)
    for _ in range(rng.integers(1, 5)):
        x, y, radius, shade = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(1, 8) * width, int(rng.integers(40, 256))
        for number in range(int(rng.integers(1, 4))):
            low = y + number * rng.uniform(2, 9)
            draw.ellipse((x - radius, low - 2 * radius, x + radius, low), outline=shade, width=int(rng.integers(1, 3)))
    for _ in range(rng.integers(0, 3)):
        _ticks(draw, rng, height, width)
    picture = gaussian_filter(np.asarray(canvas, np.float32) / 255, rng.uniform(0.2, 1.2))
    return np.asarray(np.abs(picture + rng.normal(0, rng.uniform(0.002, 0.06), picture.shape)), np.float32)
