"""The text guard: what headers declare, kinds that often have text, and the search of the pixels."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import threadpoolctl
from numpy.typing import NDArray
from pydicom import Dataset

from pipeline.ingest.deidentify.text_guard import THRESHOLD, Policy, declared, planes, refuse_header, refuse_pixels, suspicious
from pipeline.ingest.readers.attributes import parsed
from pipeline.ingest.readers.header import Header
from pipeline.phantom.image import phantom_arrays
from tests.benchmarks.text_pictures import Grey, ink, text_score


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """As in a worker; many threads for small matrices are slower than one."""
    with threadpoolctl.threadpool_limits(1):
        yield


def header(**attributes: object) -> Header:
    found = Dataset()
    for name, value in {"Modality": "DX", **attributes}.items():
        setattr(found, name, value)
    return parsed(found)


@functools.cache
def _chests() -> Grey:
    return phantom_arrays(5, 5, 224)[0][:, 0].astype(np.float32)


def refuse(asked: Header, pixels: NDArray[Any], policy: Policy = "strict") -> str | None:
    """As ingest asks: the header first, and the pixels of what it lets pass."""
    return refuse_header(asked, policy) or refuse_pixels(pixels, policy)


def chest(number: int = 0) -> Grey:
    return np.array(_chests()[number])


def written(
    picture: Grey, text: str, height: int = 14, value: float = 255, face: str = "DejaVuSansMono", top: int = 12, left: int = 12
) -> Grey:
    burned = picture.copy()
    covered = ink(text, face, height, True)
    part = burned[top : top + covered.shape[0], left : left + covered.shape[1]]
    part += covered * (value - part)
    return burned


@pytest.mark.parametrize("text", ["DOE^JANE", "12/03/1961", "ID: 4829133"])
@pytest.mark.parametrize("height", [10, 16, 32])
def test_a_name_a_date_and_an_id_are_found(text: str, height: int) -> None:
    assert text_score(written(chest(), text, height)) >= THRESHOLD


def test_clean_phantoms_pass() -> None:
    assert max(text_score(chest(number)) for number in range(5)) < THRESHOLD


def test_black_text_turned_text_and_text_in_any_unit_are_found() -> None:
    plain = np.full((200, 200), 180, np.float32)
    assert text_score(written(plain, "DOE^JANE", value=0)) >= THRESHOLD
    found = written(chest(), "DOE^JANE")
    for turns in (1, 2, 3):
        assert text_score(np.rot90(found, turns)) >= THRESHOLD
    assert text_score(found * 16 - 1024) == pytest.approx(text_score(found), abs=0.05)


def test_text_outside_the_window_is_found_because_pixels_are_not_windowed() -> None:
    """White text on a metal plate: both saturate on the display, not in the file."""
    picture = chest()
    picture[:60, :160] = 1000
    assert text_score(written(picture, "DOE^JANE", value=1300)) >= THRESHOLD


@pytest.mark.parametrize("letter", ["R", "L"])
def test_a_laterality_marker_alone_is_no_text(letter: str) -> None:
    assert text_score(written(chest(), letter, 28, face="DejaVuSans-Bold")) < THRESHOLD


@pytest.mark.parametrize("picture", [np.zeros((64, 64)), np.full((64, 64), np.nan), np.ones((5, 200)), np.full((64, 64), -3e38)])
def test_empty_and_odd_pictures_have_no_text(picture: Grey) -> None:
    assert text_score(picture.astype(np.float32)) < THRESHOLD


@pytest.mark.parametrize(
    "attributes",
    [
        {"BurnedInAnnotation": "YES"},
        {"RecognizableVisualFeatures": "YES"},
        {"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]},
        {"ImageType": ["DERIVED", "SECONDARY", "AXIAL", "CT_SOM5 PROT"]},
    ],
)
def test_what_declares_text_is_refused_under_every_policy(attributes: dict[str, object]) -> None:
    for policy in ("strict", "search", "declared"):
        assert refuse(header(**attributes), chest()[None], policy) == declared(header(**attributes))
        assert declared(header(**attributes)) is not None


@pytest.mark.parametrize(
    ("attributes", "kind"),
    [
        ({"Modality": "US"}, "ultrasound"),
        ({"Modality": "XC"}, "a photograph"),
        ({"ConversionType": "DF"}, "a digitised film"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7.2"}, "a secondary capture"),
        ({"Manufacturer": "Vidar Systems"}, "a digitised film"),
    ],
)
def test_kinds_that_often_have_text_are_refused_unless_they_deny_it(attributes: dict[str, object], kind: str) -> None:
    reason = refuse(header(**attributes), chest()[None])
    assert reason is not None
    assert reason.startswith(kind)
    assert "ingest.burned_in: search" in reason
    assert refuse(header(**attributes, BurnedInAnnotation="NO"), chest()[None]) is None
    assert refuse(header(**attributes), chest()[None], "search") is None
    assert refuse(header(**attributes, BurnedInAnnotation="NO"), written(chest(), "DOE^JANE")[None]) is not None


def test_a_plain_radiograph_is_searched_and_the_reason_quotes_nothing() -> None:
    assert refuse(header(), chest()[None]) is None
    assert suspicious(header()) is None
    reason = refuse(header(PatientName="DOE^JANE"), written(chest(), "DOE^JANE")[None])
    assert reason is not None
    assert "DOE" not in reason
    assert refuse(header(), written(chest(), "DOE^JANE")[None], "declared") is None


def test_damaged_values_are_taken_as_not_said() -> None:
    assert refuse(Header(), chest()[None]) is None


def test_colour_and_volumes_are_searched() -> None:
    colour = np.stack([chest()] * 3)
    assert refuse(header(), colour) is None
    assert refuse(header(), np.stack([written(chest(), "DOE^JANE"), chest(), chest()])) is not None
    volume = np.stack([chest(0)] * 40)[None]
    assert len(planes(volume)) == 33
    volume[0, :] = written(volume[0, 0], "DOE^JANE")
    assert refuse(header(), volume) is not None
