"""Several slices at one place: repeats, phases and b-values are told apart, and what was left out of a series is noticed."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pydicom
import pytest
from dicom_folder import write
from pydicom.uid import RLELossless, generate_uid
from volumes import found_in, header, one_slice

from pipeline.ingest.readers import series as series_reader
from pipeline.ingest.readers.reading import Reading
from pipeline.ingest.readers.series import read_series


def repeated(root: Path, which: list[int], like: dict[str, Any], count: int = 8) -> list[str]:
    """A series of which some slices are there twice, the second time with another UID; ``like`` changes the second ones."""
    names = [f"{number:02d}" for number in range(count)] + [f"{number:02d}-again" for number in which]
    for name in names:
        changes = like if "again" in name else {}
        write(root / name, header([0, 0, 2.0 * int(name[:2])], SOPInstanceUID=generate_uid(), **changes))
    return names


@pytest.mark.parametrize("which", [[3], [0], [7], [2, 5], [0, 1, 2, 3, 4, 5, 6, 7]])
def test_a_slice_exported_twice_is_left_out_and_the_volume_is_read(tmp_path: Path, which: list[int]) -> None:
    names = repeated(tmp_path, which, {})
    tasks, left = found_in(tmp_path, names)
    assert tasks == [tuple(names[:8])]
    assert left == {name: series_reader.REPEATED for name in names[8:]}
    [found] = read_series([tmp_path / name for name in tasks[0]])
    assert isinstance(found, Reading)
    assert found.pixels.shape[1] == 8


def test_a_slice_exported_twice_in_another_encoding_is_the_same(tmp_path: Path) -> None:
    names = repeated(tmp_path, [4], {})
    again = pydicom.dcmread(tmp_path / names[-1])
    again.compress(RLELossless, generate_instance_uid=False)
    again.save_as(tmp_path / names[-1])
    assert found_in(tmp_path, names) == ([tuple(names[:8])], {names[-1]: series_reader.REPEATED})


@pytest.mark.parametrize("which", [[3], [2, 5]])
def test_another_slice_at_the_same_place_is_no_repeat(tmp_path: Path, which: list[int]) -> None:
    names = repeated(tmp_path, which, {"RescaleIntercept": 7})
    tasks, left = found_in(tmp_path, names)
    assert tasks == []
    assert set(left.values()) == {series_reader.AT_ONE_PLACE}


PHASES: dict[str, Any] = {
    "trigger time": lambda place, phase: {"trigger_time": 40.0 * phase + 1.7 * place},
    "trigger time, equal": lambda place, phase: {"TriggerTime": str(40 * phase), "trigger_time": 40.0 * phase},
    "time, a phase after the other": lambda place, phase: {"time": 1000.0 * phase + place},
    "time, a place after the other": lambda place, phase: {"time": 1000.0 * place + phase},
    "b-value": lambda place, phase: {"DiffusionBValue": str((0, 500, 1000)[phase])},
    "b-value, times that tell nothing": lambda place, phase: {"DiffusionBValue": str((0, 500, 1000)[phase]), "time": 5.0},
    "echo time": lambda place, phase: {"EchoTime": str(3 + phase)},
    "temporal position": lambda place, phase: {"TemporalPositionIdentifier": str(phase)},
    "image type": lambda place, phase: {"ImageType": ("M", "P", "R")[phase]},
    "cardiac delay": lambda place, phase: {"NominalCardiacTriggerDelayTime": str(phase)},
    "times, all different, and a temporal position": lambda place, phase: {
        "time": 7.0 * place + 90 * phase,
        "AcquisitionNumber": str(phase),
    },
}


@pytest.mark.parametrize("name", PHASES)
def test_phases_are_told_apart(name: str) -> None:
    places = [(place, phase) for place in range(6) for phase in range(3)]
    slices = [one_slice([0, 0, 2.0 * place], **PHASES[name](place, phase)) for place, phase in places]
    volumes, left = series_reader.arrange(slices)
    assert left == []
    assert sorted([places[number] for number in volume] for volume in volumes) == sorted(
        [[(p, phase) for p in range(6)] for phase in range(3)]
    )


def test_two_attributes_together_tell_phases_apart() -> None:
    facts = [(place, b, kind) for place in range(5) for b in ("0", "800") for kind in ("M", "P")]
    slices = [one_slice([0, 0, 3.0 * place], DiffusionBValue=b, ImageType=kind) for place, b, kind in facts]
    volumes, left = series_reader.arrange(slices)
    assert (len(volumes), left) == (4, [])
    assert all(len({facts[number][1:] for number in volume}) == 1 and len(volume) == 5 for volume in volumes)


@pytest.mark.parametrize(
    "facts",
    [
        lambda place, visit: {},
        lambda place, visit: {"time": 10.0 * place},
        lambda place, visit: {"trigger_time": None if place == 3 else float(visit)},
        lambda place, visit: {"EchoTime": str(place)},
        lambda place, visit: {"time": float(visit)} if visit or place != 2 else {"time": 1.0},
    ],
)
def test_phases_that_nothing_tells_apart_are_refused(facts: Any) -> None:
    slices = [one_slice([0, 0, 2.0 * place], **facts(place, visit)) for place in range(6) for visit in range(2)]
    volumes, left = series_reader.arrange(slices)
    assert volumes == []
    assert {why for _, why in left} == {series_reader.AT_ONE_PLACE}


@pytest.mark.parametrize(
    ("maker", "tags"),
    [
        ("SIEMENS MR HEADER", lambda b: {0x0019100C: ("IS", str(b))}),
        ("GEMS_PARM_01", lambda b: {0x00431039: ("IS", [str(1_000_000_000 + b), "8", "0", "0"])}),
        ("Philips Imaging DD 001", lambda b: {0x20011003: ("FL", float(b))}),
        ("", lambda b: {0x00189087: ("FD", float(b))}),
    ],
)
def test_b_values_are_found_where_makers_keep_them(tmp_path: Path, maker: str, tags: Any) -> None:
    names = []
    for number in range(5):
        for b in (0, 1000):
            found = header([0, 0, 2.0 * number], Modality="MR")
            for tag, (vr, value) in tags(b).items():
                if maker:
                    found.add_new(tag >> 16 << 16 | 0x10, "LO", maker)
                found.add_new(tag, vr, value)
            names.append(f"{number}-{b}")
            write(tmp_path / names[-1], found)
    tasks, left = found_in(tmp_path, names)
    assert left == {}
    assert sorted(tasks) == [tuple(f"{number}-{b}" for number in range(5)) for b in (0, 1000)]


@pytest.mark.parametrize(
    ("facts", "step", "why"),
    [
        ({"between": 2.0}, 4.0, series_reader.THINNED),
        ({"between": 2.5}, 7.5, series_reader.THINNED),
        ({"between": -1.25}, 5.0, series_reader.THINNED),
        ({"slices": 9}, 2.0, series_reader.SHORT),
        ({"images": 20, "number": "1"}, 2.0, series_reader.SHORT),
        ({"images": 9, "slices": 8, "number": "1"}, 2.0, series_reader.SHORT),
        ({"between": 2.0, "slices": 8, "images": 8, "number": "1"}, 2.0, None),
        ({"between": 3.0}, 2.0, None),  # overlapping
        ({"between": 2.0}, 3.1, None),  # a gap between slices, as some scanners mean it
        ({"between": 0.0, "slices": 0, "images": 0}, 2.0, None),
        ({"images": 4, "slices": 3, "number": "1"}, 2.0, None),
    ],
)
def test_what_was_left_out_of_a_series_where_its_header_tells(facts: dict[str, Any], step: float, why: str | None) -> None:
    volumes, left = series_reader.arrange([one_slice([0, 0, step * number], **facts) for number in range(8)])
    assert {reason for _, reason in left} == ({why} if why else set())
    assert volumes == ([] if why else [list(range(8))])


def test_images_of_one_acquisition_may_be_in_several_series() -> None:
    facts = {"images": 12, "number": "4"}
    slices = [one_slice([0, 0, 2.0 * number], **facts) for number in range(6)]
    slices += [dataclasses.replace(one, series="1.2.4") for one in slices]
    volumes, left = series_reader.arrange(slices)
    assert (len(volumes), left) == (2, [])
    assert {why for _, why in series_reader.arrange(slices[:6])[1]} == {series_reader.SHORT}
