"""What the text detector takes for text and is none: rulers, whose strokes repeat themselves at one distance, and noise beside exact zeros.

Scales of depth and length, ticks, combs, chains and test patterns are what the detector and the recogniser take for words such as ``mmmm``.
Letters differ, and so do the windows of a line that is partly a ruler, partly a word. Noise that ends along a bent or cut border looks like
a faint line to a network that evens contrast out; but its deviations are no larger than those from pixel to pixel.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.ingest.deidentify.text_detector import Place
from pipeline.ingest.deidentify.text_reader import part_of
from pipeline.ingest.deidentify.text_screen import Grey

# Autocorrelation from which strokes are the same: along the whole place, in the middle one of its strong bands, and in all but the worst of
# its windows. Of 390 lines of names, dates and numbers in five faces and sizes of 8 to 22 px none reaches both; of 160 pictures of rulers 1
# holds a place that does not and that the detector takes for text.
ALIKE = 0.55
ALIKE_HERE, WORST = 0.4, 0.1
# Share of the strongest band's energy from which a band counts, and of the strongest window's from which a window holds strokes.
STRONG, DRAWN = 0.5, 0.05
# Rows that are compared together: strokes may be of several lengths, and long ones stand further apart.
ROWS = 6
# The least distance between strokes, and how often one must fit into the line: a time of day repeats itself twice.
LEAST, TIMES = 3, 4
# Pixels beside a line, as the detector sees them, that belong to it: it may see the ends of the strokes only.
BESIDE = 4
# And how far a ruler of which the detector sees a piece is looked for along the line.
ENDS = 48
# Columns over which strokes are evened out, and the deviation, as a share of the picture's range, that is not evened out further: letters
# of contrast .1 have .03.
WINDOW, FAINT = 14, 0.01
# The strokes of large rulers are thin: one pixel of what is compared is this much finer than one of the detector's.
FINER = 4
# Side of the blocks in which noise is looked at, the share of them that must hold no exact zero, and how many deviations its quantiles .02
# to .98 may be apart: 4.1 for normal noise; of 200 lines of 10 px and more at contrasts of .2 and more, which a person can read, none has
# less than 5.
SIDE, WHOLE, DEVIATIONS = 4, 0.25, 4.8


def is_ruler(picture: Grey, place: Place, span: float) -> bool:
    """Whether what is in a place of ``[H, W]``, alone or with what lies before and behind it, repeats itself along the line, everywhere.

    ``span`` is the range of the whole picture's values.
    """
    return any(_repeats(_strokes(picture, place, ends * place.scale), span) for ends in (0, ENDS))


def is_noise(picture: Grey, place: Place) -> bool:
    """Whether what is in a place of ``[H, W]`` is no more than noise, independent from pixel to pixel, and exact zeros beside it.

    Judged in blocks without zeros (the least value in the place), so that letters on plain black, which fill few blocks, are no noise.
    """
    from scipy.ndimage import gaussian_filter

    part = part_of(picture, place, 2)
    rows, columns = part.shape[0] // SIDE * SIDE, part.shape[1] // SIDE * SIDE
    if not rows or not columns:
        return False
    drawn = part > part.min()
    whole = _in_blocks(drawn[:rows, :columns]).all((2, 3))
    if whole.mean() < WHOLE:
        return False
    values = _in_blocks(part[:rows, :columns])[whole]
    steps = np.concatenate([np.diff(values, axis=axis).ravel() for axis in (1, 2)])
    deviation = np.median(np.abs(steps)) / (0.6745 * 2**0.5)
    around = gaussian_filter(np.where(drawn, part, 0), 4) / np.maximum(gaussian_filter(drawn.astype(np.float32), 4), 1e-6)
    low, high = np.quantile(_in_blocks((part - around)[:rows, :columns])[whole], [0.02, 0.98])
    return bool(high - low <= DEVIATIONS * deviation)


def _in_blocks(values: NDArray[Any]) -> NDArray[Any]:
    return values.reshape(values.shape[0] // SIDE, SIDE, values.shape[1] // SIDE, SIDE).transpose(0, 2, 1, 3)


def _repeats(strokes: NDArray[np.float64], span: float) -> bool:
    if strokes.shape[1] < TIMES * (LEAST + 2) or len(strokes) < ROWS:
        return False
    strokes = _evened(strokes, span)
    alike, energies = _autocorrelation(strokes)
    best, strong = alike.max(1), energies >= STRONG * energies.max()
    if float(np.median(best[strong])) < ALIKE:
        return False
    band = int((best * energies).argmax())
    return bool(_alike_everywhere(strokes[band : band + ROWS], int(alike[band].argmax())))


def _strokes(picture: Grey, place: Place, ends: int = 0) -> NDArray[np.float64]:
    """The fine structure of a place and ``ends`` pixels before and behind it, its line in rows."""
    from scipy.ndimage import gaussian_filter, gaussian_filter1d

    step, beside = max(1, place.scale // FINER), BESIDE * place.scale
    top, left, bottom, right = place.box
    part = picture if place.upright else picture.T
    across, along = ((top, bottom), (left, right)) if place.upright else ((left, right), (top, bottom))
    part = part[max(0, across[0] - beside) : across[1] + beside, max(0, along[0] - ends) : along[1] + ends]
    rows, columns = part.shape[0] // step, part.shape[1] // step
    means = part[: rows * step, : columns * step].reshape(rows, step, columns, step).mean((1, 3), dtype=np.float64)
    means = np.where(np.isfinite(means), means, np.nanmin(means) if np.isfinite(means).any() else 0)
    # Strokes at a distance of 4.3 pixels lie on whole ones.
    return np.asarray(gaussian_filter1d(means, 1, 1) - gaussian_filter(means, 4))


def _evened(strokes: NDArray[np.float64], span: float) -> NDArray[np.float64]:
    """Each part of the line counts the same, faint or not: a word at the end of a ruler, a bright body across it. Lines along it go."""
    deviation = np.sqrt(np.maximum(_window(strokes**2), 0)) + FAINT * span
    even = (strokes - strokes.mean(1, keepdims=True)) / deviation
    return np.asarray(even - even.mean(1, keepdims=True))


def _window(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Means over all rows and :data:`WINDOW` columns."""
    from scipy.ndimage import uniform_filter1d

    return np.asarray(uniform_filter1d(values.mean(0), WINDOW, mode="nearest"))


def _bands(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sums over each :data:`ROWS` neighbours along the first axis."""
    sums = np.concatenate([np.zeros_like(rows[:1]), np.cumsum(rows, 0)])
    return np.asarray(sums[ROWS:] - sums[:-ROWS])


def _autocorrelation(strokes: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Each band of rows with itself, shifted by 0, 1, ... ``[bands, shifts]``, where that is a peak, elsewhere 0; the bands' energies."""
    width = strokes.shape[1]
    shifts = np.arange(width // TIMES + 1)
    products = np.fft.irfft(_bands(np.abs(np.fft.rfft(strokes, 2 * width)) ** 2), 2 * width)[:, : len(shifts)]
    until = np.concatenate([np.zeros((len(products), 1)), np.cumsum(_bands(strokes**2), 1)], 1)
    alike = products / np.sqrt(np.maximum(until[:, width - shifts] * (until[:, -1:] - until[:, shifts]), 1e-30))
    peak = np.zeros(alike.shape, bool)
    peak[:, LEAST:-1] = (alike[:, LEAST:-1] >= alike[:, LEAST - 1 : -2]) & (alike[:, LEAST:-1] >= alike[:, LEAST + 1 :])
    return np.where(peak, alike, 0), until[:, -1]


def _alike_everywhere(rows: NDArray[np.float64], shift: int) -> bool:
    """Whether rows and the same rows ``shift`` further are alike in each window that holds strokes in both."""
    one, other = rows[:, :-shift], rows[:, shift:]
    both, energies = _window(one * other), (_window(one**2), _window(other**2))
    drawn = np.minimum(*energies) >= DRAWN * max(energies[0].max(), energies[1].max())
    alike = both[drawn] / np.sqrt(energies[0] * energies[1])[drawn]
    return bool(drawn.any() and np.quantile(alike, WORST) >= ALIKE_HERE)
