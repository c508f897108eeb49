"""Check a release as whoever receives it would: verdict, contents, checksums, signature, and no trace of patients.

A release holds what :mod:`pipeline.release.contents` names, and each file is what its verdict, pixels and labels make: most are made again
here and compared byte by byte, the others are held to a closed form. No decoder of images or DICOM runs on what is read, every read is
bounded, and whatever is wrong is a finding. Checksums show damage; only a signature tells of a forger who writes them anew.

Extended attributes under ``user.`` count as contents, since copies and archives can carry them. Not looked at: those that the system itself
keeps (``security.``, ``system.``), and what is tied to files elsewhere than on Linux (attributes of macOS, streams of Windows).

Nothing here needs the run that made the release; given the run, the release is also compared with what was judged, and searched for the
pseudonyms and the pixels of the source images.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.artifacts import RECORD, Checked, file_digest, load_record, read_json
from pipeline.errors import InputError
from pipeline.release import contents
from pipeline.release.bounded import Damage, content, differs, guarded, json_value, same, text
from pipeline.release.cards import software_version
from pipeline.release.check_card import check_card
from pipeline.release.formats import Archive, png_bytes, png_size
from pipeline.release.page import check_page
from pipeline.release.record import check_record
from pipeline.release.rows import Rows, read_rows
from pipeline.release.verdict import read_gate
from privacy import gate as privacy_gate

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

MOST_FINDINGS = 100
RUN = ("ingest", "train", "generate", "audit")
"""Stages of a run that a release is compared with."""


@dataclass
class _Release:
    """A release under verification: its folder, its verdict, what lies in it (sizes by path, folders), and what was read so far."""

    path: Path
    gate: Mapping[str, Any]
    sizes: dict[str, int] = field(default_factory=dict)
    folders: set[str] = field(default_factory=set)
    shape: tuple[int, ...] = (0, 1, 1, 1)
    archive: str = ""
    pixels: list[bytes] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        return bool(self.gate["verdict"] == "pass")

    @property
    def images(self) -> int:
        """How many images were judged."""
        return int(self.check("copies").get("images") or 0)

    def check(self, name: str) -> Mapping[str, Any]:
        """A check of the verdict on the images."""
        found: Mapping[str, Any] = next(check for check in self.gate["checks"] if check["name"] == name and check["subject"] == "images")
        return found


def verify(
    release: Path, run: Path | None = None, key: Ed25519PublicKey | None = None, *, beside: frozenset[str] = frozenset()
) -> list[str]:
    """Check a release folder.

    Args:
        release: the folder, as released.
        run: the run that made it, where it is at hand.
        key: the public key of whoever must have signed it.
        beside: files that lie in the folder while a release is being made.

    Returns:
        Problems, one printable line each and a hundred at the most; none means that the release is whole and says what it must.
    """
    problems = list(islice(_problems(release, run, key, beside), MOST_FINDINGS))
    return ["".join(c if c.isprintable() else ascii(c)[1:-1] for c in problem) for problem in problems]


def _problems(path: Path, run: Path | None, key: Ed25519PublicKey | None, beside: frozenset[str]) -> Iterator[str]:
    gates: list[dict[str, Any]] = []
    for problem in guarded(contents.GATE, _keep, gates, read_gate, path / contents.GATE):
        yield f"{problem}: {'nothing else was checked' if os.path.lexists(path / contents.GATE) else 'this is no release'}"
    if not gates:
        return
    release = _Release(path, gates[0])
    strange = list(guarded("the folder", _listing, release, beside))
    yield from strange
    wrong = len(strange)
    for problem in _passed(release) if release.passed else _refused(release):
        wrong += 1
        yield problem
    if key is not None:
        yield from _signed(release, key)
    if RECORD in release.sizes and not wrong:
        yield from guarded(RECORD, _record, release)
    if run is not None and not wrong:
        yield from guarded("the run", _against_run, release, run)
    if wrong and release.gate["software"] != (here := software_version()):
        yield f"it was made by version {release.gate['software']} and this is {here}: verify it with the version that made it"


def _keep(into: list[Any], read: Callable[..., Any], *given: Any) -> None:
    into.append(read(*given))


def _listing(release: _Release, beside: frozenset[str]) -> list[str]:
    """Note what lies in the folder; findings for what is neither file nor folder, for what is tied to one, and where there is more than any
    release has."""
    sizes, folders = release.sizes, release.folders
    most = 2 * release.images + 1000
    strange = _tied("the folder", release.path)
    waiting = [""]
    while waiting:
        below = waiting.pop()
        with os.scandir(release.path / below) as entries:
            for entry in entries:
                name = f"{below}/{entry.name}" if below else entry.name
                strange += _tied(name, entry.path)
                if entry.is_symlink() or not (entry.is_file() or entry.is_dir()):
                    strange.append(f"{name} is a link or no plain file: a release has none")
                elif entry.is_file() and name not in beside:
                    sizes[name] = entry.stat(follow_symlinks=False).st_size
                elif entry.is_dir():
                    folders.add(name)
                    if name.count("/") < 2:
                        waiting.append(name)
                if len(sizes) + len(folders) + len(strange) > most:
                    return [*strange, "it holds more files than its images need"]
    return strange


def _tied(name: str, path: str | Path) -> list[str]:
    """A finding where a file or folder has extended attributes of a user's own."""
    listed = getattr(os, "listxattr", None)
    try:
        found = [key for key in listed(path, follow_symlinks=False) if key.startswith("user.")] if listed else []
    except OSError:  # a file system without any
        found = []
    return [f"{name} has extended attributes ({', '.join(sorted(found))[:80]}): remove them with setfattr -x"] if found else []


def _contents(release: _Release, files: frozenset[str] | set[str], folders: set[str]) -> Iterator[str]:
    """Files and folders that a release of this verdict lacks, or must not have."""
    signed = {contents.SIGNATURE, contents.CHECKSUMS} if contents.SIGNATURE in release.sizes else set()
    verdict, files, optional = release.gate["verdict"], files | signed, {RECORD}
    yield from (f"{name} is missing" for name in sorted(files - release.sizes.keys()))
    yield from (f"{name} must not be in a release whose verdict is {verdict}" for name in sorted(release.sizes.keys() - files - optional))
    yield from (f"the folder {name} must not be in a release whose verdict is {verdict}" for name in sorted(release.folders - folders))
    if release.sizes.get(contents.SIGNATURE, contents.SIGNATURE_BYTES) != contents.SIGNATURE_BYTES:
        yield f"{contents.SIGNATURE} is no signature: it has another size"


def _refused(release: _Release) -> Iterator[str]:
    """A release without a pass holds its verdict and a report without pictures; checksums only where it is signed."""
    yield from _contents(release, contents.REFUSED, set())
    if contents.REPORT in release.sizes:
        yield from guarded(contents.REPORT, _report, release, None)
    if contents.CHECKSUMS in release.sizes:
        yield from guarded(contents.CHECKSUMS, _checksums, release)


def _passed(release: _Release) -> Iterator[str]:
    found: list[Rows] = []
    path = release.path
    if contents.ROWS in release.sizes:
        yield from guarded(contents.ROWS, _keep, found, read_rows, path / contents.ROWS, release.gate["release"], release.images)
    if not found:
        yield from _contents(release, contents.passed_files(release.gate) | release.sizes.keys(), release.folders)
        return
    table, labels = found[0].table, found[0].labels
    files = contents.passed_files(release.gate)
    files |= {table.picture(i, label) for i, label in enumerate(labels)} | {table.dicom(i) for i in range(len(labels))}
    missing = list(_contents(release, files, table.folders()))
    yield from missing
    if found[0].digest != release.gate["digests"]["rows"]:
        yield f"{contents.ROWS} has other labels or seeds than were judged: its digest is not the one in gate.json"
    if not files - release.sizes.keys():
        yield from guarded(contents.ROWS_TYPED, _typed, path, found[0])
        yield from guarded(contents.ARCHIVE, _images, release, found[0])
        yield from guarded(contents.CARD, check_card, path, release.gate, found[0], release.shape, release.archive)
        yield from guarded(contents.REPORT, _report, release, found[0])
    if contents.CHECKSUMS in release.sizes:
        yield from guarded(contents.CHECKSUMS, _checksums, release)


def _typed(path: Path, rows: Rows) -> None:
    same(path / contents.ROWS_TYPED, rows.table.typed(rows.labels, rows.further), contents.ROWS)


def _images(release: _Release, rows: Rows) -> Iterator[str]:
    """The archive, and each picture and DICOM object made again from its pixels and its row."""
    from pipeline.release.dicom_export import first_difference, released_bytes

    gate, table = release.gate, rows.table
    with (release.path / contents.ARCHIVE).open("rb") as file:
        archive = Archive(file, len(rows.labels), len(table.classes), table.several)
        release.shape = archive.shape
        digest = contents.pixel_hash(archive.shape)
        for number, (image, label) in enumerate(zip(archive.images(), rows.labels, strict=True)):
            digest.update(image.tobytes())
            release.pixels.append(hashlib.sha256(image.tobytes()).digest())
            name = table.picture(number, label)
            if differs(release.path / name, png_bytes(image)) is not None:
                yield f"{name} is not the PNG file that its pixels make: it shows others, or holds more"
            name, expected = table.dicom(number), released_bytes(image, number, label, table, gate)
            if (found := differs(release.path / name, expected)) is not None:
                yield f"{name} is not what its pixels, label and id make: it departs from that at {first_difference(expected, found)}"
        if archive.labels() != rows.labels:
            yield f"{contents.ARCHIVE} has other labels than {contents.ROWS}"
        release.archive = archive.digest
    repeats = len(release.pixels) - len(set(release.pixels))
    if repeats > release.check("repeats")["repeats"]:
        yield f"{contents.ARCHIVE} holds {repeats} images that repeat another one, more than were counted when it was judged"
    if digest.hexdigest() != gate["digests"]["pixels"]:
        yield f"{contents.ARCHIVE} holds other images than were judged: the digest of their pixels is not the one in gate.json"


def _report(release: _Release, rows: Rows | None) -> None:
    if rows is None:
        check_page(text(release.path / contents.REPORT), release.gate, {})
        return
    has = [rows.table.findings(label) for label in rows.labels]
    first = [number for index in range(len(rows.table.classes)) for number in islice(_with(has, index), contents.SAMPLES)]
    names = [rows.table.picture(number, rows.labels[number]) for number in first]
    pictures = {name: content(release.path / name, png_size(release.shape[1:])) for name in names}
    limit = contents.TEXT_BYTES + sum(2 * len(png) for png in pictures.values())
    check_page(text(release.path / contents.REPORT, limit), release.gate, pictures)


def _with(findings: list[tuple[int, ...]], index: int) -> Iterator[int]:
    return (number for number, has in enumerate(findings) if has[index] == 1)


def _checksums(release: _Release) -> Iterator[str]:
    """The checksums against the files, where these are of a size that a release can have."""
    most = 16 * contents.TEXT_BYTES + len(release.pixels) * (5 * int(np.prod(release.shape[1:])) + contents.TEXT_BYTES // 16)
    if sum(release.sizes.values()) > most:
        raise Damage("was not compared with the files, which are larger than its images make a release")
    covered = release.sizes.keys() - {contents.CHECKSUMS, contents.SIGNATURE, RECORD}
    digests = {name: file_digest(release.path / name) for name in covered}
    made = contents.checksums(digests)
    found = content(release.path / contents.CHECKSUMS, len(made) + contents.TEXT_BYTES)
    if found == made:
        return
    parts = [line.partition("  ") for line in found.decode(errors="replace").splitlines()]
    listed = {name: digest for digest, _, name in parts}
    yield from (f"{name} is listed in {contents.CHECKSUMS} but missing" for name in sorted(listed.keys() - covered))
    yield from (f"{name} differs from its checksum" for name in sorted(covered & listed.keys()) if listed[name] != digests[name])
    yield f"{contents.CHECKSUMS} is not the list of this release's files"


def _signed(release: _Release, key: Ed25519PublicKey) -> Iterator[str]:
    from pipeline.release.sign import check_signature

    if not {contents.CHECKSUMS, contents.SIGNATURE} <= release.sizes.keys():
        yield f"it is not signed: there is no {contents.SIGNATURE}"
        return
    yield from guarded(contents.SIGNATURE, check_signature, release.path, key)


def _record(release: _Release) -> None:
    others = {name: size for name, size in release.sizes.items() if name != RECORD}
    digests = {name: file_digest(release.path / name) for name in others}
    page = text(release.path / contents.REPORT, others[contents.REPORT])
    limit = contents.TEXT_BYTES + contents.FILE_BYTES * len(others)
    check_record(json_value(release.path / RECORD, limit), release.gate, digests, others, page)


def _whole(run: Path, records: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Findings where the run is no witness: files of a stage that were changed since, or a stage that was put in another's place."""
    checked = Checked()
    for stage, record in records.items():
        try:
            checked.consume(run / stage, record)
        except InputError as error:
            yield f"the run's {error}"
        made_from = record["identity"].get("inputs", {})
        yield from (
            f"the run's stage {stage} was made from another {needed} stage than the one that lies there"
            for needed in records.keys() & made_from.keys()
            if made_from[needed] != records[needed]["digest"]
        )


def _against_run(release: _Release, run: Path) -> Iterator[str]:
    """The release against the run: the same files judged, the same verdict, no source image released, no pseudonym in any text."""
    from pipeline.images import ImageSet

    gate = release.gate
    stages = [stage for stage in RUN if stage != "train" or gate["digests"]["weights"] is not None]
    records = {stage: record for stage in stages if (record := load_record(run / stage)) is not None}
    if missing := [stage for stage in stages if stage not in records]:
        yield f"the run holds no finished stage {missing[0]}: nothing was compared with it"
        return
    yield from _whole(run, records)
    for subject, stage in contents.JUDGED_STAGES.items():
        files = records.get(stage, {}).get("files", {})
        if contents.judged_digest(gate["release"], subject, files) != gate["digests"][subject]:
            yield f"the {subject} of the run's stage {stage} are not those that were judged"
    copies = release.check("copies")
    measured, attempt = read_json(run / "audit" / "audit.json"), gate["attempt"] or 1
    earlier = {name: copies[name] for name in ("earlier_recall", "earlier_attempt")}
    found = privacy_gate.checks(measured, copies["threshold"], attempt=attempt, **earlier)
    if found != gate["checks"]:
        yield "gate.json has checks that do not follow from the audit of the run"
    source = ImageSet.load(run / "ingest")
    known = {hashlib.sha256(np.asarray(source.images[index]).tobytes()).digest() for index in range(len(source))}
    same = sum(digest in known for digest in release.pixels)
    if same:
        yield f"{same} released images are pixel for pixel images of the source"
    columns = [name for name in ("id", "patient", "patient_id", "pseudonym", "values", "pixels") if name in source.rows]
    marks = {str(value).encode() for name in columns for value in source.rows[name] if len(str(value)) >= 8}
    words = re.compile(rb"[A-Za-z0-9_-]{8,}")
    for name in sorted(name for name in release.sizes if "/" not in name and name != contents.ARCHIVE):
        if marks & set(words.findall((release.path / name).read_bytes())):
            yield f"{name} holds an id or a pseudonym of the source"
