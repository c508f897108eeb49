"""Reading what the detector points at: words quarantine, side and view markers alone do not, and nothing is loaded before it is needed."""

from __future__ import annotations

import functools
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import threadpoolctl

from pipeline.ingest.deidentify import text_guard, text_reader
from pipeline.ingest.deidentify.allow_list import MARKERS, SEEN_FROM, SIDES, describe
from pipeline.ingest.deidentify.text_detector import Place
from pipeline.ingest.deidentify.text_guard import has_text
from pipeline.ingest.deidentify.text_reader import Reading, legible, read, recogniser
from pipeline.ingest.isolate import Answer, isolated
from pipeline.phantom.image import phantom_arrays
from tests.benchmarks.text_pictures import Grey, ink
from tests.unit.isolated_work import guarded


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with threadpoolctl.threadpool_limits(1):
        yield


@functools.cache
def _chest() -> Grey:
    return phantom_arrays(1, 5, 256)[0][0, 0].astype(np.float32)


def written(*lines: tuple[str, int, int], height: int = 20, value: float = 255, face: str = "DejaVuSans-Bold") -> tuple[Grey, list[Place]]:
    """A radiograph with each line at its row and column, and where they are."""
    picture, places = _chest().copy(), []
    for text, top, left in lines:
        covered = ink(text, face, height, True)
        bottom, right = top + covered.shape[0], left + covered.shape[1]
        part = picture[top:bottom, left:right]
        part += covered[: part.shape[0], : part.shape[1]] * (value - part)
        places.append(Place(9.0, (top, left, min(bottom, 256), min(right, 256)), 1, True))
    return picture, places


@pytest.mark.parametrize(
    "text", ["DOE^JANE", "Müller, Eva", "12/03/1961", "ID: 4829133", "12:45:07", "Dr. Kowalski", "St. Mary", "MRN 4711"]
)
@pytest.mark.parametrize("height", [12, 20])
def test_words_dates_and_numbers_are_read(text: str, height: int) -> None:
    picture, (place,) = written((text, 8, 10), height=height)
    assert read(picture, place) == Reading.TEXT
    assert read(picture * 16 - 1024, place) == Reading.TEXT


@pytest.mark.parametrize("turns", [1, 3])
def test_a_column_is_read_both_ways(turns: int) -> None:
    picture, (place,) = written(("DOE^JANE", 8, 10), height=14)
    top, left, bottom, right = place.box
    box = (256 - right, top, 256 - left, bottom) if turns == 1 else (left, 256 - bottom, right, 256 - top)
    assert read(np.rot90(picture, turns), Place(9.0, box, 1, False)) == Reading.TEXT


@pytest.mark.parametrize(
    "marker", ["L MLO", "RCC", "LMLO", "R CC", "AP", "PORTABLE", "SUPINE", "PA ERECT", "R LATERAL", "LEFT", "AP SUPINE", "LATERAL"]
)
def test_a_marker_of_side_or_view_alone_stays(marker: str) -> None:
    picture, (place,) = written((marker, 10, 30), height=24)
    assert read(picture, place) in (Reading.MARKER, Reading.NOTHING)  # of two letters nothing needs to be read
    assert not has_text(picture)


@pytest.mark.parametrize(
    "lines",
    [
        (("L MLO DOE", 10, 20),),
        (("PORTABLE 4711", 10, 10),),
        (("JONES AP", 10, 20),),
        (("L MLO", 10, 20), ("DOE^JANE", 40, 20)),
        (("L MLO", 10, 20), ("DOE^JANE", 225, 100)),
        (("SUPINE", 10, 20), ("12/03/1961", 36, 20)),
        (("RCC", 10, 200), ("SMITH", 10, 20)),
        (("LMLOX", 10, 20),),
        (("RAPP", 10, 20),),
    ],
)
def test_a_marker_beside_other_text_quarantines(lines: tuple[tuple[str, int, int], ...]) -> None:
    assert has_text(written(*lines, height=18)[0])


@pytest.mark.parametrize(
    ("found", "marker"),
    [
        (["L MLO"], True),
        (["l mlo"], True),
        (["R-ML0"], True),  # a nought for an O
        (["R", "CC"], True),
        (["AP PORTABLE"], True),
        (["PAERECT"], True),
        (["PALMA"], False),
        ([], False),
        (["-"], False),
        (["MLO 2"], False),
        (["L MLO", "DOE"], False),
        (["ROE"], False),
        (["APPLE"], False),
    ],
)
def test_only_the_closed_list_is_a_marker(found: list[str], marker: bool) -> None:
    assert text_reader._marker(found) == marker


def test_the_card_quotes_the_list() -> None:
    said = " ".join(describe())
    assert all(word in said for word in (*SIDES, *SEEN_FROM))
    assert {*SIDES, *SEEN_FROM, "LMLO", "RCC"} <= MARKERS


def test_nothing_is_read_where_nothing_is_written() -> None:
    rng = np.random.default_rng(0)
    place = Place(3.0, (20, 20, 44, 140), 1, True)
    ruler = np.zeros((64, 160), np.float32)
    ruler[30:38, 10:150:6] = 1
    wire = np.zeros((64, 160), np.float32)
    wire[(32 + 8 * np.sin(np.arange(160) / 7)).astype(int), np.arange(160)] = 1
    grid = np.zeros((64, 160), np.float32)
    grid[::9], grid[:, ::9] = 1, 1
    for picture in (ruler, wire, grid, rng.random((64, 160), np.float32), np.zeros((64, 160), np.float32)):
        assert read(picture, place) == Reading.NOTHING


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("mmmmtmmmm", Reading.STROKES),
        ("1111", Reading.STROKES),
        ("0000", Reading.STROKES),
        ("2002", Reading.TEXT),
        ("luulsgluululu", Reading.STROKES),
        ("µµiµµ", Reading.STROKES),
        ("HILL, LILI", Reading.STROKES),
        ("WILHELM", Reading.TEXT),
        ("MUELLER", Reading.TEXT),
        ("DRLIN^WUGAR", Reading.TEXT),
        ("DOE^JANE", Reading.TEXT),
        ("12/03/1961", Reading.TEXT),
        ("Hillmann, Eva", Reading.TEXT),
        ("..", Reading.NOTHING),
        ("R", Reading.MARKER),
    ],
)
def test_letters_that_rulers_read_as_are_told_from_others(monkeypatch: pytest.MonkeyPatch, said: str, expected: Reading) -> None:
    monkeypatch.setattr(text_reader, "recogniser", lambda: lambda picture, lines: [said])
    assert read(_chest(), Place(3.0, (20, 20, 44, 140), 1, True)) == expected


@pytest.mark.parametrize("text", ["WILHELM", "Hill, Tim", "LI WEI", "EMIL LIND", "Tilly Hull", "MINNIE H"])
@pytest.mark.parametrize("height", [12, 20])
def test_words_of_such_letters_quarantine_all_the_same(text: str, height: int) -> None:
    assert has_text(written((text, 10, 20), height=height, face="DejaVuSans")[0])


@pytest.mark.parametrize(
    ("at_first", "around", "expected"),
    [
        (["LATERAL"], ["LATERAL"], Reading.MARKER),
        (["LATERAL"], ["TERAL"], Reading.MARKER),  # cut by the recogniser's own detector
        (["ATERAL"], ["LATERAL"], Reading.MARKER),
        (["AP SUPINE"], ["UPINE"], Reading.MARKER),
        (["AP"], ["JONES AP"], Reading.TEXT),
        (["AP"], ["LAPOLA"], Reading.TEXT),
        (["R"], [], Reading.NOTHING),  # too few letters: the detector decides
        (["PRONE"], ["PRONESCA"], Reading.TEXT),
        (["RMLO"], ["RMLO", "DOE"], Reading.TEXT),
        (["RMLO"], [], Reading.TEXT),
    ],
)
def test_a_marker_is_read_again_with_what_is_around_it(
    monkeypatch: pytest.MonkeyPatch, at_first: list[str], around: list[str], expected: Reading
) -> None:
    place = Place(3.0, (20, 20, 44, 140), 1, True)
    near = [one.shape for one in text_reader._shown(_chest(), place, text_reader.AROUND)]
    monkeypatch.setattr(text_reader, "recogniser", lambda: lambda picture, lines: at_first if picture.shape in near else around)
    assert read(_chest(), place) == expected


def test_a_no_counts_only_where_letters_would_stand_out() -> None:
    for contrast, expected in ((0.8, True), (0.5, True), (0.2, False), (0.1, False)):
        picture = np.full((80, 200), 100, np.float32)
        covered = ink("DOE^JANE", "DejaVuSans", 14, True)
        picture[30 : 30 + covered.shape[0], 40 : 40 + covered.shape[1]] += 200 * contrast * covered
        box = (30, 40, 30 + covered.shape[0], 40 + covered.shape[1])
        assert legible(picture, Place(3.0, box, 1, True), 200.0) == expected


def test_without_a_recogniser_the_detector_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_reader, "recogniser", lambda: None)
    marked, _ = written(("L MLO", 10, 20), height=18)
    assert has_text(written(("DOE^JANE", 10, 20))[0])
    assert has_text(marked)
    assert not has_text(_chest())


def test_a_recogniser_that_fails_is_as_good_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(picture: object, lines: bool) -> list[str]:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(text_reader, "recogniser", lambda: failing)
    picture, (place,) = written(("DOE^JANE", 10, 20))
    assert read(picture, place) == Reading.UNKNOWN
    assert has_text(picture)


def test_an_image_full_of_what_looks_like_text_is_left_out_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    def unread(picture: Grey, place: Place) -> Reading:
        raise AssertionError("read")

    many = [Place(3.0, (10 * number, 0, 10 * number + 8, 60), 1, True) for number in range(text_guard.MOST + 1)]
    monkeypatch.setattr(text_guard, "places", lambda picture, least: many)
    monkeypatch.setattr(text_guard, "read", unread)
    assert has_text(_chest())


def test_the_recogniser_reaches_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*arguments: Any, **named: Any) -> None:
        raise OSError("no network")

    monkeypatch.setattr(socket.socket, "connect", refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)
    recogniser.cache_clear()
    picture, (place,) = written(("DOE^JANE", 8, 10))
    assert read(picture, place) == Reading.TEXT


def test_a_clean_picture_loads_no_recogniser() -> None:
    code = (
        "import sys, numpy as np; from pipeline.ingest.deidentify.text_guard import has_text;"
        "assert not has_text(np.random.default_rng(0).normal(100, 1, (256, 256)).astype(np.float32));"
        "assert not {'rapidocr', 'onnxruntime', 'cv2'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_reading_fits_a_workers_bounds() -> None:
    """Under the memory and time that ingest gives a worker, the answer is the one that this process gives."""
    answers = list(isolated(guarded, ["DOE^JANE 1961", "L MLO", ""], workers=1))
    assert [answer.value for answer in answers if isinstance(answer, Answer)] == [True, False, False]
