"""Check a release as whoever receives it would: checksums, verdict, card, pixels, DICOM attributes, and no trace of patients.

Nothing here needs the run that made the release; given the run, the release is also compared with what was judged, and searched for the
pseudonyms and the pixels of the source images.
"""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from PIL import Image
from pydantic import ValidationError
from pydicom.uid import SecondaryCaptureImageStorage

from pipeline.artifacts import PARTIAL, RECORD, file_digest, read_json, read_record
from pipeline.release.cards import DataCard
from pipeline.release.dicom_export import NAME_PREFIX, SUBJECT_PREFIX, SYNTHESIZER
from pipeline.release.results import CHECKSUMS, pixel_digest

REFUSED = {"gate.json", "report.html"}
EXPECTED = {"gate.json", "report.html", "rows.csv", "cohort.npz", "data_card.md", "data_card.json", "LICENSE.txt", CHECKSUMS}
RASTER_MARKUP = re.compile(rb"<\s*(?:img|image|feimage|picture|canvas|object|embed|iframe)\b|data:(?:[a-z]+/|;)|url\s*\(", re.IGNORECASE)
RASTER_BYTES = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM", b"II*\x00", b"MM\x00*", b"\x93NUMPY", b"PK\x03\x04")


def verify(release: Path, run: Path | None = None) -> list[str]:
    """Check a release folder.

    Args:
        release: the folder, as released.
        run: the run that made it, where it is at hand.

    Returns:
        Problems, one line each; none means that the release is whole and says what it must.
    """
    gate = read_json(release / "gate.json")
    verdict = gate.get("images", {}).get("verdict") if isinstance(gate, dict) else None
    if verdict not in ("pass", "fail", "inconclusive"):
        return ["gate.json is missing or damaged: this is no release"]
    names = {path.relative_to(release).as_posix() for path in release.rglob("*") if not path.is_dir()} - {RECORD, PARTIAL}
    if gate.get("verdict") != verdict:
        return [f"gate.json contradicts itself: verdict {gate.get('verdict')}, but images {verdict}"]
    if verdict != "pass":
        return _refused(release, names)
    problems = [f"{name} is missing" for name in sorted(EXPECTED - names)]
    if problems:
        return problems
    problems += _checksums(release, names) + _card(release, gate)
    pixels, rows, damage = _cohort(release)
    if damage:
        return [*problems, damage]
    problems += _bound(pixels, gate) + _pictures(release, names, pixels, rows) + _dicom(release, names, pixels, rows)
    return problems + (_against_run(release, names, pixels, gate, run) if run is not None else [])


def _refused(release: Path, names: set[str]) -> list[str]:
    """A release without a pass holds its verdict and a report, and no raster image in either."""
    problems = [f"{name} must not be in a release whose verdict is not pass" for name in sorted(names - REFUSED)]
    for name in sorted(names & REFUSED):
        content = (release / name).read_bytes()
        if RASTER_MARKUP.search(content) or content.startswith(RASTER_BYTES):
            problems.append(f"{name} holds a raster image, or a place for one, although the verdict is not pass")
    return problems + [f"{name} is missing" for name in sorted(REFUSED - names)]


def _checksums(release: Path, names: set[str]) -> list[str]:
    listed: dict[str, str] = {}
    for line in (release / CHECKSUMS).read_text(encoding="utf-8").splitlines():
        digest, _, name = line.partition("  ")
        listed[name] = digest
    present = names - {CHECKSUMS}
    problems = [f"{name} is not listed in {CHECKSUMS}" for name in sorted(present - listed.keys())]
    problems += [f"{name} is listed in {CHECKSUMS} but missing" for name in sorted(listed.keys() - present)]
    wrong = [name for name in sorted(present & listed.keys()) if file_digest(release / name) != listed[name]]
    return problems + [f"{name} differs from its checksum" for name in wrong]


def _card(release: Path, gate: dict[str, Any]) -> list[str]:
    try:
        card = DataCard.model_validate_json((release / "data_card.json").read_text(encoding="utf-8"))
    except ValidationError as error:
        return [f"data_card.json: {'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()]
    agrees = card.digests == gate.get("digests", {}).get("images") and card.attempt == gate.get("attempt")
    return [] if agrees else ["data_card.json describes another verdict than gate.json"]


def _cohort(release: Path) -> tuple[NDArray[np.uint8], list[dict[str, str]], str | None]:
    """Images ``uint8 [n, C, H, W]`` and rows of the release, and what is wrong with them."""
    none: NDArray[np.uint8] = np.zeros((0, 1, 1, 1), np.uint8)
    try:
        with np.load(release / "cohort.npz", allow_pickle=False) as archive:
            images, labels = archive["train_images"], archive["train_labels"]
    except (OSError, ValueError, KeyError):
        return none, [], "cohort.npz cannot be read as a MedMNIST archive"
    with (release / "rows.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or not len(images) == len(labels) == len(rows):
        return none, [], f"cohort.npz holds {len(images)} images and {len(labels)} labels, rows.csv {len(rows)} rows"
    if any(not row.get("id") or not row.get("file") for row in rows):
        return none, [], "rows.csv lacks an id or a file name in some row"
    return (images[:, None] if images.ndim == 3 else np.moveaxis(images, -1, 1)), rows, None


def _bound(pixels: NDArray[np.uint8], gate: dict[str, Any]) -> list[str]:
    bound = gate.get("digests", {}).get("pixels") == pixel_digest(pixels)
    return [] if bound else ["cohort.npz holds other images than were judged: the digest of their pixels is not the one in gate.json"]


def _pictures(release: Path, names: set[str], pixels: NDArray[np.uint8], rows: list[dict[str, str]]) -> list[str]:
    listed = {row["file"] for row in rows}
    problems = [f"{name} is in no row of rows.csv" for name in sorted({name for name in names if name.startswith("images/")} - listed)]
    for image, row in zip(pixels, rows, strict=True):
        if row["file"] not in names:
            problems.append(f"{row['file']} is in rows.csv but missing")
            continue
        with Image.open(release / row["file"]) as picture:
            shown, extra = np.asarray(picture), picture.info
        if not np.array_equal(shown, image[0] if len(image) == 1 else np.moveaxis(image, 0, -1)):
            problems.append(f"{row['file']} shows other pixels than cohort.npz")
        if extra:
            problems.append(f"{row['file']} carries metadata: {', '.join(sorted(map(str, extra)))}")
    return problems


def _dicom(release: Path, names: set[str], pixels: NDArray[np.uint8], rows: list[dict[str, str]]) -> list[str]:
    listed = {f"dicom/{row['id']}.dcm": image for row, image in zip(rows, pixels, strict=True)}
    present = {name for name in names if name.startswith("dicom/")}
    problems = [f"{name} is in no row of rows.csv" for name in sorted(present - listed.keys())]
    problems += [f"{name} is missing" for name in sorted(listed.keys() - present)]
    for name in sorted(present & listed.keys()):
        problems += [f"{name}: {problem}" for problem in dicom_problems(release / name, listed[name])]
    return problems


def dicom_problems(path: Path, image: NDArray[np.uint8]) -> list[str]:
    """What keeps a file from being a synthetic Secondary Capture object of ``image`` (uint8 [C, H, W]) without any trace of a patient."""
    try:
        ds = pydicom.dcmread(path)
        same = np.array_equal(ds.pixel_array, image[0] if len(image) == 1 else np.moveaxis(image, 0, -1))
    except Exception as error:  # whatever a damaged file makes the reader raise is a finding about that file
        return [f"cannot be read ({type(error).__name__})"]
    equipment = [
        (purpose.get("CodeValue"), purpose.get("CodingSchemeDesignator"))
        for item in ds.get("ContributingEquipmentSequence", [])
        for purpose in item.get("PurposeOfReferenceCodeSequence", [])
    ]
    demands = {
        "SOP Class is not Secondary Capture Image Storage": ds.get("SOPClassUID") == SecondaryCaptureImageStorage,
        "Synthetic Data (0008,001C) is not YES": ds.get("SyntheticData") == "YES",
        "Contributing Equipment Sequence names no synthesizing equipment": SYNTHESIZER[:2] in equipment,
        "Patient's Name is not marked synthetic": str(ds.get("PatientName", "")).startswith(NAME_PREFIX),
        "Patient ID is not marked synthetic": str(ds.get("PatientID", "")).startswith(SUBJECT_PREFIX),
        "its pixels differ from cohort.npz": same,
    }
    return [problem for problem, met in demands.items() if not met] + list(_traces(ds))


def _traces(ds: pydicom.Dataset) -> Iterator[str]:
    """Attributes that a synthetic image cannot have: dates, persons, a patient's description, private and curve or overlay groups."""
    for element in ds.iterall():
        tag = element.tag
        described = tag.group == 0x0010 and element.keyword not in ("PatientName", "PatientID")
        dated_or_named = element.VR in ("DA", "TM", "DT", "PN", "AS") and element.keyword != "PatientName"
        if tag.is_private or tag.group & 0xFF00 in (0x5000, 0x6000):
            yield f"holds the private or overlay attribute {tag}"
        elif (described or dated_or_named) and not element.is_empty:
            yield f"holds {element.name} {tag}, which a synthetic image cannot have"


def _against_run(release: Path, names: set[str], pixels: NDArray[np.uint8], gate: dict[str, Any], run: Path) -> list[str]:
    """The release against the run: the same files judged, no source image among the released ones, no pseudonym in any file."""
    from pipeline.images import ImageSet

    record = read_record(run / "generate")
    if record is None:
        return ["the run folder holds no finished generate stage to compare with"]
    judged = gate.get("digests", {}).get("images", {})
    problems = [f"generate/{name} of the run is not what was judged" for name in judged if record["files"].get(name) != judged[name]]
    source = ImageSet.load(run / "ingest")
    known = {hashlib.sha256(image.tobytes()).digest() for image in source.images}
    same = sum(hashlib.sha256(np.ascontiguousarray(image).tobytes()).digest() in known for image in pixels)
    if same:
        problems.append(f"{same} released images are pixel for pixel images of the source")
    columns = [name for name in ("id", "patient", "patient_id", "pseudonym") if name in source.rows]
    marks = {str(value).encode() for name in columns for value in source.rows[name] if len(str(value)) >= 8}
    words = re.compile(rb"[A-Za-z0-9_-]{8,}")
    for name in sorted(names):
        if marks & set(words.findall((release / name).read_bytes())):
            problems.append(f"{name} holds an id or a pseudonym of the source")
    return problems
