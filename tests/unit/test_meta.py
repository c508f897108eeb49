"""A file's beginning is read as pydicom reads it: by our own reader where all is in order, by pydicom's wherever anything is not."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from dicom_folder import dataset, ramp
from pydicom.filereader import read_partial
from pydicom.tag import Tag
from pydicom.uid import DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEG2000Lossless, RLELossless

from pipeline.ingest.readers import meta

TAGS: list[Any] = [int(Tag(name)) for name in ("PatientID", "Modality", "Rows", "WindowCenter", "SpecificCharacterSet", "PixelData")]


def stored(syntax: str | None = None, **attributes: Any) -> bytes:
    header = dataset(ramp(), WindowCenter=2048, SpecificCharacterSet="ISO_IR 192", **attributes)
    if syntax in (RLELossless, JPEG2000Lossless):
        header.compress(syntax, generate_instance_uid=False)
    elif syntax is not None:
        header.file_meta.TransferSyntaxUID = syntax
    file = io.BytesIO()
    header.save_as(file, enforce_file_format=True)
    return file.getvalue()


WHOLE = stored()
LENGTH = 128 + 4 + 8  # where the value of (0002,0000) stands
END = LENGTH + 4 + int.from_bytes(WHOLE[LENGTH : LENGTH + 4], "little")


def longer(data: bytes, by: int) -> bytes:
    return data[:LENGTH] + (int.from_bytes(data[LENGTH : LENGTH + 4], "little") + by).to_bytes(4, "little") + data[LENGTH + 4 :]


def as_pydicom(data: bytes, until: Callable[..., bool] | None = None) -> bool:
    """Whether our own reader took the file; what it gives is then what pydicom does, and otherwise the file is at its start."""
    file, other = io.BytesIO(data), io.BytesIO(data)
    found = meta.explicit(file, until, TAGS)
    if found is None:
        assert file.tell() == 0
        return False
    expected = read_partial(other, until, specific_tags=TAGS)
    assert file.tell() == other.tell()
    assert {**found._dict} == {**expected._dict}
    assert found.file_meta == expected.file_meta or {*found.file_meta.keys()} == {*expected.file_meta.keys()} - {Tag(0x00020000)}
    assert found.file_meta.TransferSyntaxUID == expected.file_meta.TransferSyntaxUID
    assert found.original_encoding == expected.original_encoding
    assert found.original_character_set == expected.original_character_set
    return True


@pytest.mark.parametrize("syntax", [None, RLELossless])
@pytest.mark.parametrize("until", [None, lambda tag, vr, length: tag >= 0x7FE00000], ids=["whole", "to the pixels"])
def test_what_is_in_order_is_read_alike(syntax: str | None, until: Any) -> None:
    assert as_pydicom(stored(syntax, PatientID="Ä"), until)


def test_a_file_without_any_of_the_attributes_is_read_alike() -> None:
    found = meta.explicit(io.BytesIO(WHOLE), None, [0x00100040])
    assert found is not None
    assert len(found) == len(read_partial(io.BytesIO(WHOLE), specific_tags=[0x00100040]))


@pytest.mark.parametrize("cut", [END + 3, END + 9, END + 200, len(WHOLE) - 1])
def test_a_file_that_ends_early_behind_it_is_read_alike(cut: int) -> None:
    as_pydicom(WHOLE[:cut])


ODD = {
    "empty": b"",
    "no DICM": bytes(400),
    "cut in the group": WHOLE[: END - 5],
    "nothing behind the group": WHOLE[:END],
    "a length that is too long": longer(WHOLE, 8),
    "a length that is too short": longer(WHOLE, -8),
    "a length beyond the file": longer(WHOLE, 1 << 20),
    "no length": WHOLE[:132] + WHOLE[LENGTH + 4 :],
    "a command set": WHOLE[:END] + b"\x00\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00" + WHOLE[END:],
    "more of the group": longer(WHOLE, -8)[: END - 8] + WHOLE[END - 8 :],
    "an unknown syntax": WHOLE.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.9.9\0"),
    "implicit": stored(ImplicitVRLittleEndian),
    "deflated": stored(DeflatedExplicitVRLittleEndian),
    "no syntax": WHOLE.replace(b"\x02\x00\x10\x00UI", b"\x02\x00\x11\x00UI"),
}


@pytest.mark.parametrize("name", ODD)
def test_what_is_odd_is_left_to_pydicom(name: str) -> None:
    assert not as_pydicom(ODD[name])


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_damage_of_single_bytes_is_read_alike_or_left_to_pydicom() -> None:
    rng = np.random.default_rng(0)
    taken = 0
    for place in range(128, END):
        data = bytearray(WHOLE)
        data[place] = rng.integers(256)
        try:
            expected = read_partial(io.BytesIO(bytes(data)), specific_tags=TAGS)
        except Exception:  # whatever pydicom says of it, it is the one to say it
            expected = None
        found = meta.explicit(io.BytesIO(bytes(data)), None, TAGS)
        if found is not None and expected is not None:
            taken += 1
            assert {**found._dict} == {**expected._dict}
    assert taken > 20
