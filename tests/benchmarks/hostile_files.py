"""Hostile files: made by mutation of valid ones and by hand, read in isolation. No crash, no hang over 5 s, memory under 1 GB.

    python -m tests.benchmarks.hostile_files --files 2400 --out results

Exits with 1 where a bound is broken. Every file ends as an image or as a reason in the quarantine.
"""

from __future__ import annotations

import argparse
import functools
import io
import json
import resource
import struct
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom import Dataset, dcmread
from pydicom.config import disable_value_validation
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    MediaStorageDirectoryStorage,
    RLELossless,
    generate_uid,
)

from pipeline.ingest import collect
from pipeline.ingest.isolate import Answer, Failed, isolated
from pipeline.ingest.readers import dicom, nifti, pictures
from pipeline.ingest.standardize import Target

SECRET = "ZYXSECRET"
KEY = b"a key of the tests, long enough"
MEGABYTES = 1000


class Everything:
    """Labels that know every file."""

    def find(self, file: str, header: Any) -> tuple[int, ...]:
        """Always the first of two classes."""
        return (1, 0)


def examine(name: str, root: Path) -> tuple[dict[str, Any], list[NDArray[Any]]]:
    """One file through the reader of its kind and all that follows; with the worker's peak memory in MiB and the time that it took."""
    started = time.monotonic()
    volume = name.endswith((".nii", ".nii.gz"))
    read: Any = nifti.read if volume else pictures.read if name.endswith((".png", ".jpg", ".tif")) else dicom.read_each
    settings = collect.Settings(
        root, read, Everything(), KEY, Target(32), 3 if volume else 2, patients=False, burned_in="search", dicom=read is dicom.read_each
    )
    value, images = collect.work(collect.Task((name,)), settings)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    return {**value, "peak": peak, "seconds": time.monotonic() - started}, images


def header(pixels: NDArray[np.uint16], **attributes: Any) -> Dataset:
    """A DX image of a patient called SECRET."""
    found = Dataset()
    found.file_meta = FileMetaDataset()
    found.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    found.SOPClassUID, found.Modality = UID(DigitalXRayImageStorageForPresentation), "DX"
    found.PatientID, found.PatientName, found.SOPInstanceUID = SECRET, f"{SECRET}^JANE", generate_uid()
    found.Rows, found.Columns = pixels.shape
    found.SamplesPerPixel, found.PhotometricInterpretation = 1, "MONOCHROME2"
    found.BitsAllocated, found.BitsStored, found.HighBit, found.PixelRepresentation = 16, 12, 11, 0
    found.PixelData = pixels.astype("<u2").tobytes()
    for name, value in attributes.items():
        setattr(found, name, value)
    return found


def data_of(found: Dataset) -> bytes:
    """The bytes of a file."""
    file = io.BytesIO()
    found.save_as(file, enforce_file_format=True)
    return file.getvalue()


def valid() -> dict[str, bytes]:
    """One readable file of each kind."""
    rows, columns = np.mgrid[:40, :40]
    pixels = ((rows * 37 + columns * 53) % 4096).astype(np.uint16)
    files = {"native.dcm": data_of(header(pixels))}
    for name, syntax in (("rle.dcm", RLELossless), ("jpeg2000.dcm", JPEG2000Lossless)):
        packed = header(pixels)
        packed.compress(syntax, generate_instance_uid=False)
        files[name] = data_of(packed)
    deflated = header(pixels)
    deflated.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    files["deflated.dcm"] = data_of(deflated)
    for name, kind in (("a.png", "PNG"), ("a.jpg", "JPEG"), ("a.tif", "TIFF")):
        picture = io.BytesIO()
        Image.fromarray((pixels >> 4).astype(np.uint8)).save(picture, kind)
        files[name] = picture.getvalue()
    baseline = header(pixels, BitsAllocated=8, BitsStored=8, HighBit=7, PixelData=encapsulate([files["a.jpg"]]))
    baseline.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    baseline["PixelData"].is_undefined_length = True
    files["baseline.dcm"] = data_of(baseline)
    volume = nibabel.Nifti1Image(np.arange(20 * 18 * 16, dtype=np.int16).reshape(20, 18, 16), np.diag([1.0, 2.0, 3.0, 1.0]))
    files["a.nii"] = volume.to_bytes()
    files["a.nii.gz"] = _gzip(files["a.nii"])
    nested = header(pixels, VOILUTSequence=[Dataset()])
    nested.VOILUTSequence[0].LUTDescriptor, nested.VOILUTSequence[0].LUTData = [4096, 0, 12], np.arange(4096, dtype="<u2").tobytes()
    files["lut.dcm"] = data_of(nested)
    return files


def mutants(count: int, seed: int) -> dict[str, bytes]:
    """``count`` files, each made of a valid one by one to four injuries."""
    rng = np.random.default_rng(seed)
    originals = list(valid().items())
    files = {}
    for number in range(count):
        name, data = originals[rng.integers(len(originals))]
        for _ in range(rng.integers(1, 5)):
            data = _injured(data, originals[rng.integers(len(originals))][1], rng)
        files[f"m{number:05d}-{name}"] = data
    return files


def _injured(data: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    """Flipped bits, lost, doubled or foreign parts, lengths and sizes that lie."""
    if len(data) < 8:
        return data
    kind, at = rng.integers(8), int(rng.integers(len(data)))
    # Most of what a parser trips over stands in the header.
    at = at if rng.random() < 0.4 else int(rng.integers(min(len(data), 1200)))
    size = int(rng.integers(1, 64))
    changed = bytearray(data)
    if kind == 0:
        for place in rng.integers(0, len(data), rng.integers(1, 40)):
            changed[place] ^= 1 << int(rng.integers(8))
    elif kind == 1:
        del changed[at:]
    elif kind == 2:
        del changed[at : at + size]
    elif kind == 3:
        changed[at:at] = changed[at : at + size] * int(rng.integers(1, 200))
    elif kind == 4:
        changed[at : at + 4] = struct.pack("<I", int(rng.choice([0xFFFFFFFF, 0x7FFFFFFF, 0xFFFFFFFE, 0, 1, 0x10000, 0x00FFFFFF])))
    elif kind == 5:
        changed[at : at + 2] = struct.pack("<H", int(rng.choice([0xFFFF, 0x7FFF, 0, 60_000, 1])))
    elif kind == 6:
        changed[at : at + size] = other[at : at + size]
    else:
        changed[at : at + size] = rng.bytes(size)
    return bytes(changed)


def special(folder: Path) -> dict[str, str]:
    """Files made by hand, written into ``folder``: what each is called, and a word that its reason must hold."""
    small = np.zeros((16, 16), np.uint16)
    files: dict[str, tuple[bytes, str]] = {
        "declares-60000.dcm": (data_of(header(small, Rows=60_000, Columns=60_000)), "million pixels"),
        "declares-frames.dcm": (data_of(header(small, NumberOfFrames=2_000_000_000)), "million"),
        "jpeg2000-60000.dcm": (_codestream(60_000), "damaged"),
        "rle-60000.dcm": (_run_lengths(), ""),
        "nested-10000.dcm": (_nested(10_000), ""),
        "truncated.dcm": (data_of(header(np.ones((64, 64), np.uint16)))[:-4000], "cut short"),
        "deflate-bomb.dcm": (bomb(), "MiB"),
        "dicomdir.dcm": (_directory(("..", "..", "ETC", "PASSWD")), "DICOMDIR"),
        "png-60000.png": (_png_bomb(60_000), ""),
        "dims.nii": (_nifti_dims(), ""),
        "gzip-bomb.nii.gz": (_gzip_bomb(900 << 20), "MiB"),
        "empty.dcm": (b"", "not a DICOM"),
        "noise.dcm": (np.random.default_rng(0).bytes(1 << 16), "not a DICOM"),
    }
    for name, (data, _) in files.items():
        (folder / name).write_bytes(data)
    return {name: word for name, (_, word) in files.items()}


def _codestream(side: int) -> bytes:
    """A JPEG 2000 file whose codestream declares more than the header: ISO 15444-1 A.5.1, SIZ."""
    packed = header(np.zeros((40, 40), np.uint16))
    packed.compress(JPEG2000Lossless, generate_instance_uid=False)
    data = data_of(packed)
    at = data.index(b"\xff\x51") + 6
    return data[:at] + struct.pack(">II", side, side) + data[at + 8 :]


def _run_lengths() -> bytes:
    """8000x8000 declared, a few bytes there."""
    packed = header(np.zeros((40, 40), np.uint16))
    packed.compress(RLELossless, generate_instance_uid=False)
    packed.Rows = packed.Columns = 8000
    return data_of(packed)


def _nested(depth: int) -> bytes:
    """VOI LUT sequences of undefined length, one in the other."""
    data = data_of(header(np.arange(256, dtype=np.uint16).reshape(16, 16)))
    opening = b"\x28\x00\x10\x30SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    closing = b"\xfe\xff\x0d\xe0\0\0\0\0" + b"\xfe\xff\xdd\xe0\0\0\0\0"
    at = data.index(b"\xe0\x7f\x10\x00")
    return data[:at] + opening * depth + closing * depth + data[at:]


def bomb(size: int = 3 << 30) -> bytes:
    """A deflated data set that ends in ``size`` zeros: one flushed block, repeated."""
    small = header(np.zeros((16, 16), np.uint16))
    small.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    plain = data_of(small)
    meta = dcmread(io.BytesIO(plain), stop_before_pixels=True).file_meta
    start = 144 + meta.FileMetaInformationGroupLength
    inner = zlib.decompress(plain[start:], -15)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    begin = packer.compress(inner[:-512] + b"\x00\x00") + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(bytes(16 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    return plain[:start] + begin + block * (size >> 24) + packer.flush()


def _gzip(data: bytes) -> bytes:
    packer = zlib.compressobj(6, zlib.DEFLATED, 31)
    return packer.compress(data) + packer.flush()


def _gzip_bomb(size: int) -> bytes:
    """A volume of ``size`` bytes of zeros: gzip members, one after the other."""
    side = round((size / 2) ** (1 / 3))
    head = bytearray(nibabel.Nifti1Image(np.zeros((2, 2, 2), np.int16), np.eye(4)).to_bytes()[:352])
    head[42:48] = struct.pack("<hhh", side, side, side)
    return _gzip(bytes(head)) + _gzip(bytes(16 << 20)) * (size >> 24)


def _nifti_dims() -> bytes:
    head = bytearray(nibabel.Nifti1Image(np.zeros((4, 4, 4), np.int16), np.eye(4)).to_bytes())
    head[42:48] = struct.pack("<hhh", 32_000, 32_000, 32_000)
    return bytes(head)


def _png_bomb(side: int) -> bytes:
    """A PNG of zeros of the declared size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    lines = zlib.compress(bytes(min(side * (side + 1), 64 << 20)), 9)
    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", lines) + chunk(b"IEND", b"")


def _directory(path: Sequence[str]) -> bytes:
    """A DICOMDIR that refers to a file outside."""
    record, found = Dataset(), Dataset()
    record.DirectoryRecordType = "IMAGE"
    with disable_value_validation():
        record.ReferencedFileID = list(path)
    found.file_meta = FileMetaDataset()
    found.file_meta.TransferSyntaxUID, found.file_meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, MediaStorageDirectoryStorage
    found.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    found.DirectoryRecordSequence = [record]
    return data_of(found)


def main() -> None:
    """Write the files, read them, and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=2400)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        special(folder)
        for file, data in mutants(arguments.files, arguments.seed).items():
            (folder / file).write_bytes(data)
        names = sorted(path.name for path in folder.iterdir())
        started = time.monotonic()
        answers = dict(zip(names, isolated(functools.partial(examine, root=folder), names), strict=True))
        took = time.monotonic() - started
    found = report(answers, took)
    print(json.dumps(found, indent=1))
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / "hostile_files.json").write_text(json.dumps(found, indent=1))
    sys.exit(0 if not found["broken"] else 1)


def report(answers: dict[str, Answer | Failed], took: float) -> dict[str, Any]:
    """Counts, bounds, and every bound that was broken."""
    kinds: Counter[str] = Counter()
    broken, slowest, peak = [], 0.0, 0
    for name, answer in answers.items():
        if isinstance(answer, Failed):
            kinds[answer.kind] += 1
            reasons = [answer.reason]
        else:
            reasons = list(answer.value["left_out"])
            kinds["read" if answer.arrays else "quarantined"] += 1
            slowest, peak = max(slowest, answer.value["seconds"]), max(peak, answer.value["peak"])
            if not answer.arrays and not all(reasons):
                broken.append(f"{name}: neither an image nor a reason")
        if any(SECRET in reason or not reason for reason in reasons):
            broken.append(f"{name}: its reason quotes it, or is empty")
    broken += [f"peak memory {peak} MiB"] if peak >= MEGABYTES else []
    broken += [f"a file took {slowest:.1f} s"] if slowest > 5.5 else []
    return {
        "files": len(answers), "seconds": round(took, 1), "outcomes": dict(kinds), "slowest_seconds": round(slowest, 2),
        "peak_mib_of_a_worker": peak, "broken": broken,
    }  # fmt: skip


if __name__ == "__main__":
    from tests.benchmarks import hostile_files  # by its own name, since workers look for functions there

    hostile_files.main()
