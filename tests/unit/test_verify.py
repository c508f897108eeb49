"""Verification finds what was changed, added, removed or never allowed in a release."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image, PngImagePlugin
from release_run import gate_module, ingested, make_context

from pipeline.release import stage
from pipeline.release.verify import verify


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = {}
    with pytest.MonkeyPatch.context() as patch:
        for verdict in ("pass", "fail"):
            patch.setattr(stage, "gate", gate_module(verdict))
            made[verdict] = tmp_path_factory.mktemp(verdict) / "run"
            stage.run(make_context(made[verdict]))
    return made


def reseal(release: Path) -> None:
    """Write fitting checksums, as somebody would who tampers with a release."""
    (release / "SHA256SUMS").unlink()
    stage._seal(release)


def edit_dicom(change: Callable[[pydicom.Dataset], object]) -> Callable[[Path], None]:
    def edit(release: Path) -> None:
        path = release / "dicom" / "s000003.dcm"
        ds = pydicom.dcmread(path)
        change(ds)
        ds.save_as(path)
        reseal(release)

    return edit


def edit_gate(release: Path) -> None:
    gate = json.loads((release / "gate.json").read_text())
    gate["digests"]["pixels"] = "0" * 64
    (release / "gate.json").write_text(json.dumps(gate))
    reseal(release)


def edit_card(release: Path) -> None:
    card = json.loads((release / "data_card.json").read_text())
    (release / "data_card.json").write_text(json.dumps(card | {"images": "many", "hospital": "x"}))
    reseal(release)


def edit_png(release: Path) -> None:
    path = release / "images" / "normal" / "s000001.png"
    note = PngImagePlugin.PngInfo()
    note.add_text("Comment", "from patient 17")
    Image.fromarray(np.zeros((32, 32), np.uint8)).save(path, pnginfo=note)
    reseal(release)


def private(ds: pydicom.Dataset) -> None:
    ds.private_block(0x0011, "HOSPITAL", create=True).add_new(0x01, "LO", "ward 7")


TAMPERED: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "extra file": (lambda r: (r / "notes.txt").write_text("x"), ("notes.txt is not listed",)),
    "missing picture": (lambda r: (r / "images/normal/s000000.png").unlink(), ("s000000.png is listed in SHA256SUMS but missing",)),
    "missing card": (lambda r: (r / "data_card.md").unlink(), ("data_card.md is missing",)),
    "changed report": (lambda r: (r / "report.html").write_text("x"), ("report.html differs from its checksum",)),
    "other pixels judged": (edit_gate, ("other images than were judged",)),
    "card against schema": (edit_card, ("images: ", "hospital: ")),
    "picture with metadata": (edit_png, ("s000001.png shows other pixels", "s000001.png carries metadata: Comment")),
    "not marked synthetic": (edit_dicom(lambda ds: setattr(ds, "SyntheticData", "NO")), ("Synthetic Data (0008,001C) is not YES",)),
    "patient's name": (edit_dicom(lambda ds: setattr(ds, "PatientName", "Doe^Jane")), ("Patient's Name is not marked synthetic",)),
    "birth date": (edit_dicom(lambda ds: setattr(ds, "PatientBirthDate", "19560301")), ("holds Patient's Birth Date",)),
    "physician": (edit_dicom(lambda ds: setattr(ds, "ReferringPhysicianName", "Roe^R")), ("holds Referring Physician's Name",)),
    "private tag": (edit_dicom(private), ("holds the private or overlay attribute",)),
    "other class": (edit_dicom(lambda ds: setattr(ds, "SOPClassUID", "1.2.840.10008.5.1.4.1.1.2")), ("SOP Class is not Secondary",)),
    "no synthesizer": (edit_dicom(lambda ds: delattr(ds, "ContributingEquipmentSequence")), ("no synthesizing equipment",)),
    "damaged DICOM": (lambda r: ((r / "dicom/s000003.dcm").write_bytes(b"x"), reseal(r)), ("s000003.dcm: cannot be read",)),
}


def test_untouched_releases_have_no_problem(runs: dict[str, Path]) -> None:
    for run in runs.values():
        assert verify(run / "release") == []
        assert verify(run / "release", run) == []


@pytest.mark.parametrize("name", TAMPERED)
def test_tampering_is_found(runs: dict[str, Path], tmp_path: Path, name: str) -> None:
    release = tmp_path / "release"
    shutil.copytree(runs["pass"] / "release", release)
    tamper, expected = TAMPERED[name]
    tamper(release)
    problems = "\n".join(verify(release))
    assert all(text in problems for text in expected), problems


@pytest.mark.parametrize(
    "addition",
    [("image.png", b"\x89PNG"), ("report.html", b"<p><IMG src=x>"), ("report.html", b'<i style="background:url(data:image/jpeg;x)">')],
)
def test_refused_release_with_a_raster_is_found(runs: dict[str, Path], tmp_path: Path, addition: tuple[str, bytes]) -> None:
    release = tmp_path / "release"
    shutil.copytree(runs["fail"] / "release", release)
    (release / addition[0]).write_bytes(addition[1])
    assert any(addition[0] in problem for problem in verify(release))


def test_a_folder_without_verdict_is_no_release(tmp_path: Path) -> None:
    assert verify(tmp_path) == ["gate.json is missing or damaged: this is no release"]


def test_a_fail_relabelled_as_pass_is_found(runs: dict[str, Path], tmp_path: Path) -> None:
    release = tmp_path / "release"
    shutil.copytree(runs["pass"] / "release", release)
    gate = json.loads((release / "gate.json").read_text())
    (release / "gate.json").write_text(json.dumps(gate | {"verdict": "fail"}))
    assert "contradicts itself" in verify(release)[0]


def test_source_pixels_and_pseudonyms_in_a_release_are_found(runs: dict[str, Path], tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(runs["pass"], run)
    images = ingested()
    images.images[0] = np.load(run / "generate" / "images-00000.npy")[5]
    images.save(run / "ingest")
    (run / "release" / "LICENSE.txt").write_text("thanks to pseudonym0007")
    reseal(run / "release")
    problems = verify(run / "release", run)
    assert "1 released images are pixel for pixel images of the source" in problems
    assert "LICENSE.txt holds an id or a pseudonym of the source" in problems
