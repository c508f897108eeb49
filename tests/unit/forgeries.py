"""Ways in which a release can be forged, by somebody who writes fitting checksums; each must be a finding."""

from __future__ import annotations

import base64
import io
import json
import os
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from PIL import Image, PngImagePlugin

from pipeline.artifacts import SEAL, fingerprint
from pipeline.release import contents, stage

Forgery = Callable[[Path], object]
PAYLOAD = "Jane Roe, born 1956-03-01, ward 7"


def number(release: Path, index: int = 3) -> str:
    """Id of an image of the release."""
    return contents.subject(json.loads((release / "gate.json").read_text())["release"], index)


def sealed(change: Forgery) -> Forgery:
    """The change, with fitting checksums."""

    def forge(release: Path) -> None:
        change(release)
        if (release / "SHA256SUMS").exists():
            stage.seal(release)

    return forge


def edited(name: str, old: str, new: str) -> Forgery:
    def change(release: Path) -> None:
        path = release / name
        text = path.read_text(encoding="utf-8")
        assert old in text, f"{old!r} is not in {name}"
        path.write_text(text.replace(old, new, 1), encoding="utf-8")

    return sealed(change)


def appended(name: str, data: bytes) -> Forgery:
    def change(release: Path) -> None:
        with (release / name).open("ab") as file:
            file.write(data)

    return sealed(change)


def json_edit(name: str, change: Callable[[Any], object]) -> Forgery:
    """A change of a JSON file's value, written as a release writes it."""

    def forge(release: Path) -> None:
        value = json.loads((release / name).read_text())
        change(value)
        if name == "record.json":
            value[SEAL] = fingerprint({key: entry for key, entry in value.items() if key != SEAL})
        (release / name).write_bytes(contents.json_bytes(value))

    return sealed(forge)


def dicom(change: Callable[[pydicom.Dataset], object], preamble: bytes | None = None) -> Forgery:
    def forge(release: Path) -> None:
        path = release / "dicom" / f"{number(release)}.dcm"
        ds = pydicom.dcmread(path)
        change(ds)
        if preamble is not None:
            ds.preamble = preamble
        ds.save_as(path)

    return sealed(forge)


def archive(change: Callable[[dict[str, np.ndarray]], object]) -> Forgery:
    """Other arrays in ``cohort.npz``, written by numpy."""

    def forge(release: Path) -> None:
        with np.load(release / "cohort.npz", allow_pickle=False) as found:
            arrays = dict(found)
        change(arrays)
        with (release / "cohort.npz").open("wb") as file:
            np.savez_compressed(file, **arrays)

    return sealed(forge)


def members(change: Callable[[zipfile.ZipFile], object]) -> Forgery:
    def forge(release: Path) -> None:
        with zipfile.ZipFile(release / "cohort.npz", "a") as file:
            change(file)

    return sealed(forge)


def picture(release: Path) -> Path:
    return next((release / "images").rglob(f"{number(release)}.png"))


def png(change: Callable[[bytes], bytes]) -> Forgery:
    def forge(release: Path) -> None:
        path = picture(release)
        path.write_bytes(change(path.read_bytes()))

    return sealed(forge)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">L", len(data)) + kind + data + struct.pack(">L", zlib.crc32(kind + data))


def reencoded(release: Path) -> None:
    note = PngImagePlugin.PngInfo()
    note.add_text("Comment", PAYLOAD)
    Image.open(io.BytesIO(picture(release).read_bytes())).save(picture(release), pnginfo=note)


def rows(change: Callable[[list[str]], list[str]]) -> Forgery:
    def forge(release: Path) -> None:
        lines = (release / "rows.csv").read_text().splitlines()
        (release / "rows.csv").write_text("\n".join(change(lines)) + "\n")

    return sealed(forge)


def consistent_labels(release: Path) -> None:
    """The labels of two images exchanged in every file: rows, archive, folders and DICOM, but not in the verdict."""
    from pipeline.release.dicom_export import dicom_bytes
    from pipeline.release.formats import png_bytes, write_archive
    from pipeline.release.rows import read_rows

    gate = json.loads((release / "gate.json").read_text())
    with np.load(release / "cohort.npz") as found:
        images, labels = found["train_images"][:, None], found["train_labels"][:, 0].astype(np.int64)
    read = read_rows(release / "rows.csv", gate["release"], len(images))
    labels[[0, len(labels) - 1]] = labels[[len(labels) - 1, 0]]
    lines = (release / "rows.csv").read_text().splitlines()[1:]
    seeds = [line.split(",")[-3:-1] for line in lines]
    for place, old in enumerate(read.labels):
        (release / read.table.picture(place, old)).unlink()
    for place, label in enumerate(labels):
        (release / read.table.picture(place, int(label))).write_bytes(png_bytes(images[place]))
        made = dicom_bytes(
            images[place],
            image_id=contents.subject(gate["release"], place),
            label=read.table.classes[label],
            cohort=gate["digests"]["pixels"],
            version=gate["software"],
        )
        (release / read.table.dicom(place)).write_bytes(made)
    written = [read.table.line(place, int(label), seeds[place]) for place, label in enumerate(labels)]
    (release / "rows.csv").write_bytes(read.table.header + b"".join(written))
    write_archive(release / "cohort.npz", images, labels, len(read.table.classes))


def linked(name: str) -> Forgery:
    """A file of the release as a link to its like elsewhere."""

    def change(release: Path) -> None:
        elsewhere = release.parent / f"elsewhere-{Path(name).name}"
        (release / name).rename(elsewhere)
        (release / name).symlink_to(elsewhere)

    return change


def written(name: str, data: bytes = b"x") -> Forgery:
    def change(release: Path) -> None:
        (release / name).parent.mkdir(parents=True, exist_ok=True)
        (release / name).write_bytes(data)

    return sealed(change)


def in_report(html: str, before: str = "<footer>") -> Forgery:
    return edited("report.html", before, html + before)


def check(name: str, **numbers: Any) -> Forgery:
    """Numbers of a check changed, and nothing that follows from them."""
    return json_edit("gate.json", lambda gate: next(c for c in gate["checks"] if c["name"] == name).update(numbers))


def other_contact(record: dict[str, Any]) -> None:
    """Another contact in the record, with the fingerprint that fits it."""
    record["identity"]["config"]["contact"] = PAYLOAD
    record["fingerprint"] = fingerprint(record["identity"])


def private(ds: pydicom.Dataset) -> None:
    ds.private_block(0x0011, "HOSPITAL", create=True).add_new(0x01, "LO", PAYLOAD)


def overlay(ds: pydicom.Dataset) -> None:
    ds.add_new(0x60003000, "OW", b"\0" * 128)


def nested(ds: pydicom.Dataset) -> None:
    ds.ContributingEquipmentSequence[0].InstitutionName = "St. Elsewhere"


def icon(ds: pydicom.Dataset) -> None:
    item = pydicom.Dataset()
    item.Rows = item.Columns = 8
    item.BitsAllocated, item.PixelRepresentation, item.PixelData = 8, 0, b"\0" * 64
    ds.IconImageSequence = [item]


def attribute(name: str, value: Any) -> Forgery:
    return dicom(lambda ds: setattr(ds, name, value))


def meta(name: str, value: Any) -> Forgery:
    return dicom(lambda ds: setattr(ds.file_meta, name, value))


DEEP = b"[" * 200_000
BASE64 = base64.b64encode(bytes(range(256)) * 12).decode()
RASTER = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(900)).decode()
GREY = "".join(f'<rect class="bar" x="{i % 28}" y="{i // 28}" width="1" height="1" rx="0"/>' for i in range(784))
CELLS = "<table><tr>" + "".join(f'<td class="h{i % 8}"></td>' for i in range(784)) + "</tr></table>"

PASSED: dict[str, tuple[Forgery, str]] = {
    # The archive.
    "images as val_images": (archive(lambda a: a.update(val_images=a["train_images"])), "cohort.npz"),
    "images as test_images": (archive(lambda a: a.update(test_images=a["train_images"][:1])), "cohort.npz"),
    "an extra array": (archive(lambda a: a.update(notes=np.arange(9))), "cohort.npz"),
    "an extra member": (members(lambda z: z.writestr("notes.txt", PAYLOAD)), "cohort.npz"),
    "a pickle in the archive": (members(lambda z: z.writestr("evil.pkl", b"cos\nsystem\n(S'x'\ntR.")), "cohort.npz"),
    "the archive's comment": (members(lambda z: setattr(z, "comment", PAYLOAD.encode())), "cohort.npz"),
    "a member twice": (members(lambda z: z.writestr("val_labels.npy", b"x")), "cohort.npz"),
    "bytes after the archive": (appended("cohort.npz", PAYLOAD.encode()), "cohort.npz"),
    "bytes before the archive": (
        sealed(lambda r: (r / "cohort.npz").write_bytes(PAYLOAD.encode() + (r / "cohort.npz").read_bytes())),
        "cohort.npz",
    ),
    "other label type": (archive(lambda a: a.update(train_labels=a["train_labels"].astype(np.int64))), "cohort.npz"),
    "float images": (archive(lambda a: a.update(train_images=a["train_images"].astype(np.float32))), "cohort.npz"),
    "labels changed in the archive": (archive(lambda a: a["train_labels"].__setitem__(0, 4)), "cohort.npz"),
    "labels permuted in the archive": (archive(lambda a: a.update(train_labels=a["train_labels"][::-1])), "cohort.npz"),
    "an archive of text": (written("cohort.npz", b"no archive"), "cohort.npz"),
    "an empty archive": (written("cohort.npz", b""), "cohort.npz"),
    # The rows.
    "an extra column": (rows(lambda lines: [f"{line},{PAYLOAD[:4]}" for line in lines]), "rows.csv"),
    "labels permuted in the rows": (rows(lambda lines: [lines[0], *reversed(lines[1:])]), "rows.csv"),
    "labels exchanged everywhere": (sealed(consistent_labels), "rows.csv has other labels"),
    "another seed": (rows(lambda lines: [*lines[:2], lines[2].replace(",1,1.0,", ",77,1.0,"), *lines[3:]]), "rows.csv has other"),
    "text for a seed": (rows(lambda lines: [*lines[:2], lines[2].replace(",1,1.0,", ",roe,1.0,"), *lines[3:]]), "rows.csv"),
    "another guidance": (rows(lambda lines: [*lines[:2], lines[2].replace(",1.0,", ",1.00,"), *lines[3:]]), "rows.csv"),
    "a line more": (rows(lambda lines: [*lines, lines[-1]]), "rows.csv"),
    "a line less": (rows(lambda lines: lines[:-1]), "rows.csv"),
    "an id of another release": (rows(lambda lines: [*lines[:2], lines[2].replace("SYN-", "PAT-", 1), *lines[3:]]), "rows.csv"),
    "spaces in the rows": (appended("rows.csv", b"\n"), "rows.csv"),
    "a quoted cell": (rows(lambda lines: [*lines[:2], lines[2].replace("normal", '"normal"', 1), *lines[3:]]), "rows.csv"),
    "a formula for a label": (rows(lambda lines: [*lines[:2], lines[2].replace("normal", "=1+1", 1), *lines[3:]]), "rows.csv"),
    "rows in Latin-1": (sealed(lambda r: (r / "rows.csv").write_bytes((r / "rows.csv").read_bytes() + b"\xe4\n")), "rows.csv"),
    "a NUL in the rows": (appended("rows.csv", b"\0\n"), "rows.csv"),
    # Files.
    "an extra file": (written("notes.txt"), "notes.txt must not be"),
    "a hidden file": (written(".thumbs"), ".thumbs must not be"),
    "a picture of no row": (written("images/normal/extra.png"), "images/normal/extra.png must not be"),
    "a deep folder": (written("images/normal/deep/er/x.png"), "images/normal/deep"),
    "an empty folder": (lambda r: (r / "Roe^Jane").mkdir(), "the folder Roe^Jane must not be"),
    "a DICOM of no row": (written("dicom/extra.dcm"), "dicom/extra.dcm must not be"),
    "a file with escapes in its name": (written("\x1b[2Jx"), r"\x1b[2Jx must not be"),
    "a name in no encoding": (lambda r: (r / os.fsdecode(b"\xff\xfe.txt")).touch(), "must not be"),
    "a linked file": (linked("data_card.md"), "data_card.md is a link"),
    "a linked picture folder": (linked("dicom"), "dicom is a link"),
    "a linked verdict": (linked("gate.json"), "gate.json is a link"),
    "a dangling link": (lambda r: (r / "x").symlink_to("nowhere"), "x is a link"),
    "a link to itself": (lambda r: (r / "images" / "loop").symlink_to(".."), "images/loop is a link"),
    "a named pipe": (lambda r: os.mkfifo(r / "pipe"), "pipe is a link or no plain file"),
    "a verdict that is a pipe": (lambda r: ((r / "gate.json").unlink(), os.mkfifo(r / "gate.json")), "gate.json is not a file"),
    "a partial record": (written("partial.json", b"{}"), "partial.json must not be"),
    "a missing picture": (lambda r: picture(r).unlink(), "is missing"),
    "a missing card": (lambda r: (r / "data_card.md").unlink(), "data_card.md is missing"),
    "a folder for a file": (lambda r: ((r / "LICENSE.txt").unlink(), (r / "LICENSE.txt").mkdir()), "LICENSE.txt"),
    # The record.
    "a date in other digits": (
        json_edit("record.json", lambda v: v.update(finished="\u0662" + v["finished"][1:])),
        "record.json",
    ),
    "payload in the record": (json_edit("record.json", lambda v: v.update(notes=PAYLOAD)), "record.json"),
    "payload in the record's summary": (json_edit("record.json", lambda v: v["summary"].update(verdict=PAYLOAD)), "record.json"),
    "payload in the record's hardware": (json_edit("record.json", lambda v: v["hardware"].update(gpu=BASE64)), "record.json"),
    "payload in the record's identity": (json_edit("record.json", lambda v: v["identity"]["config"].update(title="x")), "record.json"),
    "payload in the record's settings": (json_edit("record.json", other_contact), "record.json"),
    "another seal": (edited("record.json", '"seal": "', '"seal": "0'), "record.json"),
    "payload for a package": (json_edit("record.json", lambda v: v["packages"].update({"jane.roe": "1"})), "record.json"),
    "a file more in the record": (json_edit("record.json", lambda v: v["files"].update({"jane.txt": "0" * 64})), "record.json"),
    "a record that holds patient data": (json_edit("record.json", lambda v: v.update(contains_patient_data=True)), "record.json"),
    "a deep record": (written("record.json", DEEP), "record.json"),
    "a record of nothing": (written("record.json", b"null\n"), "record.json"),
    "other times in the record": (json_edit("record.json", lambda v: v.update(finished=PAYLOAD)), "record.json"),
    "a number that is none in the record": (edited("record.json", '"seconds": 1.0', '"seconds": NaN'), "record.json"),
    # The report.
    "a class that takes for ever to match": (in_report(f'<p class="{"n" * 60}!">x</p>'), "report.html"),
    "a script": (in_report("<script>alert(1)</script>"), "report.html"),
    "a script in capitals": (in_report("<SCRIPT src=//x></SCRIPT>"), "report.html"),
    "a remote picture": (in_report('<img alt="x" src="https://example.org/x.png">'), "report.html"),
    "a remote style": (in_report('<link rel="stylesheet" href="https://example.org/x.css">', "</head>"), "report.html"),
    "an event handler": (edited("report.html", "<body>", '<body onload="x()">'), "report.html"),
    "an anchor": (in_report('<a href="https://example.org">x</a>'), "report.html"),
    "a style attribute": (in_report('<p style="background:url(x)">x</p>'), "report.html"),
    "another style sheet": (edited("report.html", "<style>", "<style>@import url(https://example.org);"), "report.html"),
    "a second style sheet": (in_report("<style>p{background:url(x)}</style>"), "report.html"),
    "a refreshing page": (in_report('<meta http-equiv="refresh" content="0;url=https://example.org">', "</head>"), "report.html"),
    "a frame": (in_report('<iframe src="x"></iframe>'), "report.html"),
    "a comment": (in_report(f"<!-- {PAYLOAD} -->"), "report.html"),
    "a foreign object": (in_report("<svg><foreignObject><p>x</p></foreignObject></svg>"), "report.html"),
    "another picture": (in_report(f'<img alt="x" src="data:image/png;base64,{RASTER}">'), "report.html"),
    "a picture of another kind": (in_report('<img alt="x" src="data:image/svg+xml;base64,PHN2Zz4=">'), "report.html"),
    "base64 in the report's text": (in_report(f"<p>{BASE64}</p>"), "report.html"),
    "a report of text": (written("report.html", b"x"), "report.html"),
    "an unclosed element": (in_report("<p>"), "report.html"),
    "a character reference": (in_report("<p>&#74;ane</p>"), "report.html"),
    "another digest": (in_report(f"<p>{'ab' * 32}</p>"), "report.html"),
    "bytes after the report": (appended("report.html", b"\0" + PAYLOAD.encode()), "report.html"),
    "a report in UTF-16": (sealed(lambda r: (r / "report.html").write_text("<p>x</p>", encoding="utf-16")), "report.html"),
    # The verdict.
    "other pixels judged": (json_edit("gate.json", lambda v: v["digests"].update(pixels="0" * 64)), "other images than were judged"),
    "a fail relabelled": (json_edit("gate.json", lambda v: v.update(verdict="fail")), "gate.json contradicts itself"),
    "other reasons": (json_edit("gate.json", lambda v: v["images"].update(reasons=["Trust me."])), "gate.json contradicts itself"),
    "a reason more": (json_edit("gate.json", lambda v: v["images"]["reasons"].append(PAYLOAD)), "gate.json contradicts itself"),
    "weights passed": (json_edit("gate.json", lambda v: v.update(weights={"verdict": "pass", "reasons": []})), "gate.json contradicts"),
    "other needs": (json_edit("gate.json", lambda v: v.update(needed=[PAYLOAD])), "gate.json contradicts itself"),
    "flagged images": (check("copies", flagged=1), "gate.json does not hold together"),
    "a run by no chance": (check("copies", run_p=0.001), "gate.json does not hold together"),
    "a bound that does not follow": (check("copies", high=0.3), "gate.json does not hold together"),
    "a laxer threshold": (check("copies", threshold=0.9), "gate.json does not hold together"),
    "no power": (check("power", low=0.1), "gate.json does not hold together"),
    "a required kind less": (
        json_edit("gate.json", lambda v: next(c for c in v["checks"] if c["name"] == "power")["required"].pop("blur")),
        "gate.json does not hold together",
    ),
    "payload as a kind of copy": (check("power", others={PAYLOAD: [1, 2]}), "gate.json does not hold together"),
    "payload in a run": (
        check("membership_images", one_run={"pairs": 9, "guesses": 1, "correct": 0, "note": PAYLOAD}),
        "gate.json does not hold together",
    ),
    "other counts of a kind": (check("power", others={"crop": [100, 100]}), "gate.json contradicts itself"),
    "an earlier version of the gate": (json_edit("gate.json", lambda v: v.update(gate_version=1)), "judged by version 1 of the gate"),
    "no version of the gate": (json_edit("gate.json", lambda v: v.update(gate_version="new")), "gate.json contradicts itself"),
    "an attempt that is none": (json_edit("gate.json", lambda v: v.update(attempt=0)), "gate.json has an attempt of another form"),
    "fewer patients exposed": (check("copies", exposed=0), "gate.json does not hold together"),
    "no earlier release": (check("copies", earlier_recall=0.5), "bounds of the check copies do not follow"),
    "repeats that were counted": (check("repeats", repeats=1), "gate.json does not hold together"),
    "a small holdout": (check("holdout", n=20, value=20), "gate.json does not hold together"),
    "a check that was not judged": (check("holdout", verdict="not judged"), "gate.json does not hold together"),
    "another meaning": (check("copies", meaning=PAYLOAD), "gate.json does not hold together"),
    "payload in a check": (check("copies", note=PAYLOAD), "gate.json does not hold together"),
    "a check less": (json_edit("gate.json", lambda v: v["checks"].pop(3)), "gate.json does not hold together"),
    "a check twice": (json_edit("gate.json", lambda v: v["checks"].append(v["checks"][0])), "gate.json does not hold together"),
    "no checks": (json_edit("gate.json", lambda v: v.update(checks={})), "gate.json"),
    "a replication that passed": (json_edit("gate.json", lambda v: v.update(replication=True)), "gate.json contradicts itself"),
    "a replication of no kind": (json_edit("gate.json", lambda v: v.update(replication=PAYLOAD)), "gate.json holds no checks"),
    "no attempt": (json_edit("gate.json", lambda v: v.update(attempt=None)), "gate.json"),
    "a text for a number": (check("copies", value="0"), "gate.json does not hold together"),
    "payload in the verdict": (json_edit("gate.json", lambda v: v.update(notes=PAYLOAD)), "gate.json has other keys"),
    "payload for a digest": (json_edit("gate.json", lambda v: v["digests"]["images"].update({"images-00000.npy": PAYLOAD})), "gate.json"),
    "payload for a file": (json_edit("gate.json", lambda v: v["digests"]["images"].update({PAYLOAD: "0" * 64})), "gate.json"),
    "payload for an id": (json_edit("gate.json", lambda v: v.update(release="jane-roe")), "gate.json"),
    "another release's id": (json_edit("gate.json", lambda v: v.update(release="0" * 8)), "rows.csv"),
    "payload for an attempt": (json_edit("gate.json", lambda v: v.update(attempt=PAYLOAD)), "gate.json"),
    "another attempt": (json_edit("gate.json", lambda v: v.update(attempt=7)), "gate.json does not hold together"),
    "payload for a version": (json_edit("gate.json", lambda v: v.update(software=PAYLOAD)), "gate.json"),
    "spaces in the verdict": (edited("gate.json", "{", "{   \n"), "gate.json is not written as a release is"),
    "a key twice": (edited("gate.json", '"unit"', '"verdict": "pass",\n "unit"'), "gate.json has a key twice"),
    "a verdict of no number": (edited("gate.json", '"attempt": 1', '"attempt": Infinity'), "gate.json has the number Infinity"),
    "a verdict with huge digits": (edited("gate.json", '"attempt": 1', '"attempt": 1' + "0" * 9000), "gate.json is damaged"),
    "a deep verdict": (written("gate.json", DEEP), "gate.json is damaged"),
    "a verdict of bytes": (written("gate.json", bytes(range(256))), "gate.json is damaged"),
    "a verdict of a list": (written("gate.json", b"[]\n"), "gate.json has other keys"),
    "an empty verdict": (written("gate.json", b""), "gate.json is damaged"),
    # The card and the licence.
    "a card against the schema": (json_edit("data_card.json", lambda v: v.update(images="many", hospital="x")), "data_card.json: "),
    "another count": (json_edit("data_card.json", lambda v: v["classes"].update(normal=99)), "data_card.json has another classes"),
    "another summary": (json_edit("data_card.json", lambda v: v.update(summary=PAYLOAD)), "data_card.json has another summary"),
    "other uses": (json_edit("data_card.json", lambda v: v["intended_uses"].append("Diagnosis.")), "data_card.json has another intended"),
    "other digests": (json_edit("data_card.json", lambda v: v["digests"].update({"x": "y"})), "data_card.json has another digests"),
    "base64 in the card": (json_edit("data_card.json", lambda v: v["limitations"].append(BASE64)), "data_card.json holds a text"),
    "base64 in pieces": (
        json_edit("data_card.json", lambda v: v["limitations"].append(" ".join(BASE64[i : i + 40] for i in range(0, 4000, 40)))),
        "data_card.json holds a text",
    ),
    "software of another kind": (json_edit("data_card.json", lambda v: v["software"].update(jane="1")), "data_card.json names software"),
    "another source's text": (json_edit("data_card.json", lambda v: v["source"].update(description=PAYLOAD)), "data_card.json has another"),
    "a number as a text": (json_edit("data_card.json", lambda v: v.update(size=str(v["size"]))), "data_card.json"),
    "another card in Markdown": (appended("data_card.md", PAYLOAD.encode()), "data_card.md"),
    "another licence": (edited("LICENSE.txt", "CC0-1.0", "none"), "LICENSE.txt"),
    "a deep card": (written("data_card.json", DEEP), "data_card.json is damaged"),
    # DICOM.
    "a preamble": (dicom(lambda ds: None, PAYLOAD.ljust(128).encode()), "its preamble"),
    "an AE title": (meta("SourceApplicationEntityTitle", "WARD7"), "File Meta Information Group Length"),
    "a receiving AE title": (meta("ReceivingApplicationEntityTitle", "WARD7"), "File Meta Information Group Length"),
    "private file meta information": (meta("PrivateInformationCreatorUID", "1.2.3"), "File Meta Information Group Length"),
    "another implementation": (meta("ImplementationVersionName", "HOSPITAL"), "File Meta Information Group Length"),
    "an institution": (attribute("InstitutionName", "St. Elsewhere"), "departs from that at"),
    "a station": (attribute("StationName", "CT7"), "departs from that at"),
    "an operator": (attribute("OperatorsName", "Roe^R"), "departs from that at"),
    "text after SYNTHETIC^": (attribute("PatientName", "SYNTHETIC^Jane Roe"), "at Patient's Name"),
    "a patient's name": (attribute("PatientName", "Roe^Jane"), "at Patient's Name"),
    "a patient's id": (attribute("PatientID", "SYN-12345678-000001"), "at Patient ID"),
    "a birth date": (attribute("PatientBirthDate", "19560301"), "departs from that at"),
    "a study date": (attribute("StudyDate", "20200101"), "departs from that at"),
    "a comment on an image": (attribute("ImageComments", PAYLOAD), "departs from that at"),
    "not synthetic": (attribute("SyntheticData", "NO"), "at Synthetic Data"),
    "another class": (attribute("SOPClassUID", "1.2.840.10008.5.1.4.1.1.2"), "departs from that at"),
    "another study": (attribute("StudyInstanceUID", "1.2.3"), "departs from that at"),
    "a private tag": (dicom(private), "departs from that at"),
    "an overlay": (dicom(overlay), "departs from that at"),
    "an icon": (dicom(icon), "departs from that at"),
    "an institution in a sequence": (dicom(nested), "departs from that at"),
    "no synthesizer": (dicom(lambda ds: delattr(ds, "ContributingEquipmentSequence")), "departs from that at"),
    "trailing padding": (dicom(lambda ds: ds.add_new(0xFFFCFFFC, "OB", b"Jane")), "bytes after its end"),
    "another label": (attribute("SeriesDescription", "Synthetic: Jane"), "at Series Description"),
    "damaged DICOM": (sealed(lambda r: (r / "dicom" / f"{number(r)}.dcm").write_bytes(b"x")), "its preamble"),
    # PNG.
    "bytes after a picture": (png(lambda data: data + PAYLOAD.encode()), "other chunks"),
    "a text chunk": (png(lambda data: data[:33] + chunk(b"tEXt", b"Comment\0Jane") + data[33:]), "other chunks"),
    "an EXIF chunk": (png(lambda data: data[:33] + chunk(b"eXIf", b"MM\0*") + data[33:]), "other chunks"),
    "a private chunk": (png(lambda data: data[:-12] + chunk(b"jaNe", b"Roe") + data[-12:]), "other chunks"),
    "two data chunks": (png(lambda data: data[:-12] + chunk(b"IDAT", b"") + data[-12:]), "other chunks"),
    "bytes after the pixels": (png(lambda data: data[:33] + chunk(b"IDAT", data[41:-16] + b"Jane") + data[-12:]), "shows other pixels"),
    "more rows": (
        png(lambda data: data[:33] + chunk(b"IDAT", zlib.compress(zlib.decompress(data[41:-16]) + bytes(999))) + data[-12:]),
        "shows other pixels",
    ),
    "other pixels in a picture": (
        png(lambda data: data[:33] + chunk(b"IDAT", zlib.compress(bytes(len(zlib.decompress(data[41:-16]))))) + data[-12:]),
        "shows other pixels",
    ),
    "a picture of another program": (sealed(reencoded), "other chunks"),
    "a wrong checksum of a chunk": (png(lambda data: data[:-14] + b"\0\0" + data[-12:]), "other chunks"),
    "a JPEG": (png(lambda data: b"\xff\xd8\xff\xe0" + data), "is no plain PNG file"),
    "no picture": (png(lambda data: b""), "is no plain PNG file"),
    # The checksums, written to fit nothing.
    "a changed report": (lambda r: (r / "report.html").write_text("x"), "report.html differs from its checksum"),
    "a comment in the checksums": (lambda r: (r / "SHA256SUMS").open("a").write("# Jane Roe\n"), "SHA256SUMS is not the list"),
    "checksums of bytes": (lambda r: (r / "SHA256SUMS").write_bytes(bytes(range(256))), "SHA256SUMS is not the list"),
    "a signature of another size": (written("SHA256SUMS.sig", b"x" * 65), "SHA256SUMS.sig"),
}

REFUSED: dict[str, tuple[Forgery, str]] = {
    "a picture file": (written("image.png", b"\x89PNG"), "image.png must not be"),
    "an archive": (written("cohort.npz", b"PK"), "cohort.npz must not be"),
    "rows": (written("rows.csv", b"id\n"), "rows.csv must not be"),
    "a folder": (lambda r: (r / "images").mkdir(), "the folder images must not be"),
    "a picture in the report": (in_report(f'<img alt="x" src="data:image/png;base64,{RASTER}">'), "report.html"),
    "base64 in the report": (in_report(f"<p>{RASTER}</p>"), "report.html"),
    "base64 in pieces": (in_report("<p>" + " ".join(RASTER[i : i + 32] for i in range(0, 1000, 32)) + "</p>"), "report.html"),
    "base64 in words": (in_report("".join(f"<p>{BASE64[i : i + 12]} and</p>" for i in range(0, 4000, 12))), "report.html"),
    "hexadecimal in words": (in_report("".join(f"<p>{i * 0x9E3779B97F4A7C15 % (1 << 64):016x}</p>" for i in range(99))), "report.html"),
    "base64 over elements": (
        in_report("".join(f"<p>{BASE64[i : i + 64]} {BASE64[i + 64 : i + 128]} {BASE64[i : i + 64]}</p>" for i in range(0, 2000, 128))),
        "report.html",
    ),
    "hexadecimal pixels": (in_report(f"<p>{bytes(range(256)).hex()}</p>"), "report.html"),
    "hexadecimal pixels as digests": (in_report("".join(f"<p>{i:064x}</p>" for i in range(20))), "report.html"),
    "a picture in CSS": (in_report('<i style="background:url(data:image/jpeg;x)">x</i>'), "report.html"),
    "a picture in a style sheet": (
        edited("report.html", "<style>", f"<style>p{{background:url(data:image/png;base64,{RASTER})}}"),
        "report",
    ),
    "a picture in capitals": (in_report("<p><IMG src=x>"), "report.html"),
    "a picture of rectangles": (in_report(f'<svg viewBox="0 0 28 28">{GREY}</svg>'), "report.html"),
    "a picture of coloured rectangles": (in_report('<svg><rect x="0" y="0" width="1" height="1" fill="#777"/></svg>'), "report.html"),
    "a picture of cells": (in_report(CELLS), "report.html"),
    "a picture as a path": (in_report('<svg><path d="M0 0h28v28"/></svg>'), "report.html"),
    "a picture in SVG": (in_report('<svg><image href="x.png"/></svg>'), "report.html"),
    "a canvas": (in_report("<canvas></canvas>"), "report.html"),
    "an object": (in_report('<object data="x.png"></object>'), "report.html"),
    "a video": (in_report('<video poster="x.png"></video>'), "report.html"),
    "a script": (in_report("<script>x()</script>"), "report.html"),
    "a template element": (in_report("<template><p>x</p></template>"), "report.html"),
    "a comment": (in_report(f"<!--{RASTER}-->"), "report.html"),
    "CDATA": (in_report(f"<svg><![CDATA[{RASTER}]]></svg>"), "report.html"),
    "a text as an attribute": (in_report(f'<svg aria-label="{RASTER}"></svg>'), "report.html"),
    "a linked raster": (
        lambda r: ((r.parent / "x.png").write_bytes(b"\x89PNG"), (r / "report.html").unlink(), (r / "report.html").symlink_to("../x.png")),
        "report.html is a link",
    ),
    "a linked verdict": (linked("gate.json"), "gate.json is a link"),
    "a link beside": (lambda r: (r / "x").symlink_to("../x.png"), "x is a link"),
    "base64 in the verdict": (json_edit("gate.json", lambda v: v["images"]["reasons"].append(RASTER)), "gate.json contradicts itself"),
    "base64 as a key": (json_edit("gate.json", lambda v: v.update({RASTER: 1})), "gate.json has other keys"),
    "base64 in a check": (check("copies", meaning=RASTER), "gate.json does not hold together"),
    "a fail relabelled as pass": (
        json_edit("gate.json", lambda v: (v.update(verdict="pass"), v["images"].update(verdict="pass"))),
        "gate.json",
    ),
    "an image appended to the report": (appended("report.html", b"\x89PNG\r\n\x1a\n" + bytes(900)), "report.html"),
    "an image for a report": (written("report.html", b"\x89PNG\r\n\x1a\n" + bytes(900)), "report.html"),
    "no report": (lambda r: (r / "report.html").unlink(), "report.html is missing"),
    "payload in the record": (json_edit("record.json", lambda v: v.update(image=RASTER)), "record.json"),
    "images in the record": (json_edit("record.json", lambda v: v["summary"].update(images=10)), "record.json"),
}
