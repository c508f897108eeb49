"""Projections come out in the view in which they are read, whichever way they were stored, and the rows tell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_folder import dataset, ramp, write
from numpy.typing import NDArray

from pipeline.ingest import work
from pipeline.ingest.readers import dicom
from pipeline.ingest.readers.geometry import TURNS, Turn, upright
from pipeline.ingest.readers.header import Geometry, Header
from pipeline.ingest.readers.reading import Reading
from pipeline.ingest.standardize import Target
from pipeline.ingest.tasks import Task
from tests.benchmarks.hostile_files import KEY, Everything

# A picture with the patient's left, right, head and feet (or front and back) in its corners, as the standard view shows it.
UPRIGHT = ramp(32, 24)


def stored(turned: str) -> tuple[NDArray[np.uint16], bool, bool, bool]:
    """The picture as it would be stored so that it needs this turn, and which of its axes are then exchanged and reversed."""
    [(transposed, across, down)] = [
        (t, a, d) for t in (False, True) for a in (False, True) for d in (False, True) if Turn(t, a, d).name == turned
    ]
    picture = UPRIGHT[:: -1 if down else 1, :: -1 if across else 1]
    return (picture.T if transposed else picture), transposed, across, down


OPPOSITE = {"L": "R", "R": "L", "A": "P", "P": "A", "H": "F", "F": "H"}
# What rows and columns lead to in each standard view.
VIEWS: dict[str, tuple[dict[str, Any], tuple[str, str]]] = {
    "chest, PA": ({"Modality": "DX", "ViewPosition": "PA"}, ("L", "F")),
    "chest, AP, computed": ({"Modality": "CR", "ViewPosition": "AP"}, ("L", "F")),
    "hand, view not told": ({"Modality": "DX"}, ("L", "F")),
    "left breast, CC": ({"Modality": "MG", "ViewPosition": "CC", "ImageLaterality": "L"}, ("A", "R")),
    "right breast, CC": ({"Modality": "MG", "ViewPosition": "CC", "ImageLaterality": "R"}, ("P", "L")),
    "left breast, MLO": ({"Modality": "MG", "ViewPosition": "MLO", "ImageLaterality": "L"}, ("A", "FR")),
    "right breast, MLO": ({"Modality": "MG", "ViewPosition": "MLO", "Laterality": "R"}, ("P", "FL")),
}


@pytest.mark.parametrize("turned", TURNS)
@pytest.mark.parametrize("view", VIEWS)
def test_every_way_of_storing_a_projection_comes_out_upright(tmp_path: Path, view: str, turned: str) -> None:
    attributes, (row, column) = VIEWS[view]
    pixels, transposed, across, down = stored(turned)
    words = [OPPOSITE[row[0]] if across else row, OPPOSITE[column[0]] if down else column]
    facts = {"PatientOrientation": words[::-1] if transposed else words, "PixelSpacing": [0.2, 0.1] if transposed else [0.1, 0.2]}
    [found] = dicom.read(write(tmp_path / "a", dataset(np.ascontiguousarray(pixels), **facts, **attributes)))
    assert isinstance(found, Reading)
    np.testing.assert_array_equal(found.pixels[0], UPRIGHT)
    assert found.turned == turned
    assert (found.spacing, found.aspect) == ((0.1, 0.2), 0.5)


@pytest.mark.parametrize(
    ("attributes", "words", "turned"),
    [
        ({"Modality": "DX", "ViewPosition": "LL"}, ("A", "F"), ""),
        ({"Modality": "DX", "ViewPosition": "LL"}, ("P", "F"), ""),  # which way the patient faces is no fault
        ({"Modality": "DX", "ViewPosition": "LL"}, ("A", "H"), "upside down"),
        ({"Modality": "CR", "ViewPosition": "LATERAL"}, ("F", "A"), "transposed"),
    ],
)
def test_lateral_views_stand_on_their_feet(attributes: dict[str, Any], words: tuple[str, str], turned: str) -> None:
    assert upright(Header(modality=attributes["Modality"], geometry=Geometry(orientation=words))).name == turned


@pytest.mark.parametrize(
    "header",
    [
        Header(modality="DX"),
        Header(modality="DX", geometry=Geometry(orientation=("L",))),
        Header(modality="DX", geometry=Geometry(orientation=("", ""))),
        Header(modality="DX", geometry=Geometry(orientation=("R", "L"))),
        Header(modality="DX", geometry=Geometry(orientation=("X", "F"))),
        Header(modality="DX", geometry=Geometry(orientation=("P", "L"))),  # from above
        Header(modality="MG", geometry=Geometry(orientation=("P", "L"))),  # no side
        Header(modality="MG", image_laterality="B", geometry=Geometry(orientation=("P", "L"))),
        Header(modality="MG", image_laterality="L", geometry=Geometry(orientation=("L", "F"))),
        Header(modality="US", geometry=Geometry(orientation=("R", "F"))),
        Header(modality="MR", geometry=Geometry(orientation=("R", "F"))),
    ],
)
def test_where_the_header_does_not_say_an_image_is_left_as_it_is(header: Header) -> None:
    assert upright(header) == Turn()


def test_the_rows_tell_what_was_turned(tmp_path: Path) -> None:
    write(tmp_path / "a.dcm", dataset(ramp(), PatientOrientation=["R", "F"]))
    write(tmp_path / "b.dcm", dataset(ramp(), PatientOrientation=["L", "F"]))
    settings = work.Settings(tmp_path, dicom.read_each, Everything(), KEY, Target(32), patients=False)  # type: ignore[arg-type]
    found = [work.work(Task((name,)), settings) for name in ("a.dcm", "b.dcm")]
    assert [value["rows"][0]["turned"] for value, _ in found] == ["mirrored", ""]
    np.testing.assert_array_equal(found[0][1][0], found[1][1][0][:, :, ::-1])
