"""Verification finds what was changed, added, removed or never allowed in a release, whatever it reads."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fuzz_release
import numpy as np
import pytest
from forgeries_passed import PASSED
from forgeries_refused import REFUSED
from forging import Forgery, chunk, json_edit, number, picture
from release_run import LENIENT, ingested, released

from pipeline import api, artifacts
from pipeline.commands import releases
from pipeline.errors import InputError
from pipeline.release.formats import write_archive
from pipeline.release.verify import MOST_FINDINGS, verify
from privacy import limits


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "MAX_COPY_RATE", LENIENT)
        for verdict in ("pass", "fail", "inconclusive"):
            made[verdict] = tmp_path_factory.mktemp(verdict) / "run"
            released(made[verdict], verdict)
        yield made


def copy_of(runs: dict[str, Path], folder: Path, verdict: str = "pass") -> Path:
    shutil.copytree(runs[verdict] / "release", folder / "release")
    return folder / "release"


def test_untouched_releases_have_no_problem(runs: dict[str, Path]) -> None:
    for run in runs.values():
        assert verify(run / "release") == []
        assert verify(run / "release", run) == []


def test_a_release_without_the_stages_record_is_whole(runs: dict[str, Path], tmp_path: Path) -> None:
    release = copy_of(runs, tmp_path)
    (release / "record.json").unlink()
    assert verify(release) == []


def assert_found(release: Path, forgery: Forgery, expected: str) -> None:
    forgery(release)
    problems = verify(release)
    assert any(re.search(expected, problem) for problem in problems), problems
    assert all(problem.isprintable() for problem in problems)


@pytest.mark.parametrize("name", PASSED)
def test_forgery_of_a_passed_release_is_found(runs: dict[str, Path], tmp_path: Path, name: str) -> None:
    forgery, expected = PASSED[name]
    assert_found(copy_of(runs, tmp_path), forgery, re.escape(expected).replace(r"\|", "|"))


@pytest.mark.parametrize("name", REFUSED)
def test_forgery_of_a_refused_release_is_found(runs: dict[str, Path], tmp_path: Path, name: str) -> None:
    forgery, expected = REFUSED[name]
    assert_found(copy_of(runs, tmp_path, "fail"), forgery, re.escape(expected))


def test_a_folder_without_verdict_is_no_release(tmp_path: Path) -> None:
    assert verify(tmp_path) == ["gate.json is missing: this is no release"]


def test_a_release_whose_verdict_cannot_be_read_is_not_called_none(runs: dict[str, Path], tmp_path: Path) -> None:
    """One of another version, or with line ends that a mail or a checkout changed, is a release, of which nothing else was checked."""
    release = copy_of(runs, tmp_path)
    json_edit("gate.json", lambda verdict: verdict.update(gate_version=3))(release)
    older = verify(release)
    gate = runs["pass"] / "release" / "gate.json"
    (release / "gate.json").write_bytes(gate.read_bytes().replace(b"\n", b"\r\n"))
    for problem in (*older, *verify(release)):
        assert problem.endswith(": nothing else was checked")


def mappings(tree: Any) -> Iterator[dict[str, Any]]:
    """Every mapping in a JSON value."""
    if isinstance(tree, dict):
        yield tree
    for part in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ():
        yield from mappings(part)


@pytest.mark.parametrize("verdict", ["pass", "fail"])
def test_a_further_key_anywhere_in_the_verdict_is_found(runs: dict[str, Path], tmp_path: Path, verdict: str) -> None:
    release = copy_of(runs, tmp_path, verdict)
    before = (release / "gate.json").read_bytes()
    count = len(list(mappings(json.loads(before))))
    assert count > 10
    for place in range(count):
        json_edit("gate.json", lambda gate, place=place: list(mappings(gate))[place].update(note="0" * 64))(release)
        assert any(problem.startswith("gate.json ") for problem in verify(release))
        (release / "gate.json").write_bytes(before)


def test_extended_attributes_are_found_but_not_those_of_the_system(
    runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = copy_of(runs, tmp_path)
    tied = {release: ["user.ward"], release / "dicom": ["user.mrn", "system.posix_acl_access"], release / "rows.csv": ["security.selinux"]}

    def listed(path: str | Path, *, follow_symlinks: bool) -> list[str]:
        if Path(path) == release / "images":
            raise OSError(errno.ENOTSUP, "not supported")
        return tied.get(Path(path), [])

    monkeypatch.setattr(os, "listxattr", listed, raising=False)
    problems = [problem for problem in verify(release) if "extended attributes" in problem]
    assert [problem.partition(" has")[0] for problem in problems] == ["the folder", "dicom"]
    assert "user.mrn" in problems[1]
    monkeypatch.delattr(os, "listxattr")
    assert verify(release) == []


def test_weights_that_were_not_judged_are_found(runs: dict[str, Path], tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(runs["pass"], run)
    (run / "train" / "model.safetensors").write_bytes(b"other weights")
    (run / "train" / "record.json").unlink()
    artifacts.publish(run / "train", {"stage": "train"})
    assert "the weights of the run's stage train are not those that were judged" in verify(run / "release", run)


def swapped_ingest(run: Path, other: Path) -> None:
    shutil.rmtree(run / "ingest")
    shutil.copytree(other / "ingest", run / "ingest")
    rows = ingested().rows.assign(patient=[f"somebody{i:04d}" for i in range(len(ingested()))])
    (run / "ingest" / "record.json").unlink()
    type(ingested())(ingested().images[::-1], rows).save(run / "ingest")
    artifacts.publish(run / "ingest", json.loads((other / "ingest" / "record.json").read_text())["identity"])


WITNESSES = {
    "source images of another run": (swapped_ingest, "another ingest stage than the one that lies there"),
    "rows that were edited": (lambda run, _: edited_rows(run), "the run's ingest/rows.parquet"),
    "an image that was edited": (lambda run, _: byte_of(run / "ingest" / "images-00000.npy"), "the run's ingest/images-00000.npy"),
    "a file that was added": (lambda run, _: (run / "generate" / "more.npy").touch(), "the run's generate holds files or links"),
    "no ingest": (lambda run, _: shutil.rmtree(run / "ingest"), "the run holds no finished stage ingest"),
    "an edited record": (lambda run, _: byte_of(run / "ingest" / "record.json"), "the run: ingest/record.json in run is damaged"),
    "no audit": (lambda run, _: shutil.rmtree(run / "audit"), "the run holds no finished stage audit"),
    "a link": (lambda run, other: linked_stage(run / "audit", other / "audit"), None),
}


def edited_rows(run: Path) -> None:
    images = ingested()
    type(images)(images.images, images.rows.assign(patient="somebody")).save(run / "ingest")


def byte_of(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def linked_stage(folder: Path, other: Path) -> None:
    shutil.rmtree(folder)
    folder.symlink_to(other)


@pytest.mark.parametrize("name", WITNESSES)
def test_a_run_that_is_not_as_it_was_is_no_witness(runs: dict[str, Path], tmp_path: Path, name: str) -> None:
    """A search for traces in other source images than those that were trained on would find none, and say so."""
    run, (change, expected) = tmp_path / "run", WITNESSES[name]
    shutil.copytree(runs["pass"], run)
    change(run, runs["pass"])
    problems = verify(run / "release", run)
    assert any(expected in problem for problem in problems) if expected else problems == [], problems


@pytest.mark.parametrize("given", ["nothing", "a release", "purged"])
def test_what_is_no_run_at_all_is_told_of_the_option_and_not_of_the_release(runs: dict[str, Path], tmp_path: Path, given: str) -> None:
    run = {"nothing": tmp_path / "nothing", "a release": runs["pass"] / "release", "purged": tmp_path / "run"}[given]
    if given == "purged":
        shutil.copytree(runs["pass"], run)
        shutil.rmtree(run / "ingest")
        (run / "purged.json").write_text("{}")
    with pytest.raises(InputError, match=r"^--run: ") as raised:
        api.verify(runs["pass"] / "release", run=run)
    assert ("leave --run out" in str(raised.value)) == (given == "purged")


def test_a_file_that_was_laid_beside_is_one_problem_and_the_list_another(runs: dict[str, Path], tmp_path: Path) -> None:
    release = copy_of(runs, tmp_path)
    (release / "Thumbs.db").write_bytes(b"x")
    assert verify(release) == [
        "Thumbs.db must not be in a release whose verdict is pass",
        "SHA256SUMS is not the list of this release's files",
    ]


def test_findings_are_bounded(runs: dict[str, Path], tmp_path: Path) -> None:
    release = copy_of(runs, tmp_path)
    for index in range(5000):
        (release / "dicom" / f"{index}.dcm").touch()
    assert len(verify(release)) == MOST_FINDINGS


def test_source_pixels_and_pseudonyms_in_a_release_are_found(runs: dict[str, Path], tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(runs["pass"], run)
    images = ingested()
    images.images[0] = np.load(run / "generate" / "images-00000.npy")[5]
    rows = images.rows.copy()
    rows.loc[0, "patient"] = "quickstart"  # a word of the report
    type(images)(images.images, rows).save(run / "ingest")
    problems = verify(run / "release", run)
    assert "1 released images are pixel for pixel images of the source" in problems
    assert "report.html holds an id or a pseudonym of the source" in problems


def test_checks_that_are_not_those_of_the_runs_audit_are_found(runs: dict[str, Path], tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(runs["pass"], run)
    audit = json.loads((run / "audit" / "audit.json").read_text())
    audit["copies"]["run_p"] = 0.5
    (run / "audit" / "audit.json").write_text(json.dumps(audit))
    problems = verify(run / "release", run)
    assert any(problem.startswith("the run's audit/audit.json is damaged, or was changed") for problem in problems)
    assert "gate.json has checks that do not follow from the audit of the run" in problems


def test_a_damaged_run_is_a_finding(runs: dict[str, Path], tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(runs["pass"], run)
    (run / "audit" / "audit.json").write_text("{")
    assert verify(run / "release", run) == ["the run's " + artifacts.damage("audit", "audit.json"), "the run cannot be read (TypeError)"]


def bomb_in_archive(release: Path) -> None:
    """40 KB that would unpack to 40 MB for each image, were they believed."""
    with zipfile.ZipFile(release / "cohort.npz", "w", zipfile.ZIP_DEFLATED) as archive, archive.open("train_images.npy", "w") as member:
        for _ in range(400):
            member.write(bytes(1 << 20))


def bomb_of_huge_images(release: Path) -> None:
    """An archive in our own layout of ten images of 2 048 pixels, which nothing else in the release has."""
    count = len(list((release / "dicom").iterdir()))
    images = np.broadcast_to(np.zeros((1, 1, 1, 1), np.uint8), (count, 1, 2048, 2048))
    write_archive(release / "cohort.npz", images, np.arange(count) % 5, 5)


def bomb_in_picture(release: Path) -> None:
    data = picture(release).read_bytes()
    picture(release).write_bytes(data[:33] + chunk(b"IDAT", zlib.compress(bytes(1 << 28), 9)) + data[-12:])


BOMBS = {
    "archive": bomb_in_archive,
    "archive of huge images": bomb_of_huge_images,
    "picture": bomb_in_picture,
    "deep JSON": lambda r: (r / "gate.json").write_bytes(b"[" * (3 << 20)),
    "wide JSON": lambda r: (r / "gate.json").write_bytes(b"[" + b"{}," * (1 << 20) + b"{}]"),
    "deep card": lambda r: (r / "data_card.json").write_bytes(b'{"a":' * (1 << 19)),
    "sparse verdict": lambda r: os.truncate(r / "gate.json", 1 << 40),
    "sparse report": lambda r: os.truncate(r / "report.html", 1 << 40),
    "sparse archive": lambda r: os.truncate(r / "cohort.npz", 1 << 40),
    "sparse rows": lambda r: os.truncate(r / "rows.csv", 1 << 40),
    "sparse checksums": lambda r: os.truncate(r / "SHA256SUMS", 1 << 40),
    "sparse record": lambda r: os.truncate(r / "record.json", 1 << 40),
    "sparse licence": lambda r: os.truncate(r / "LICENSE.txt", 1 << 40),
    "sparse DICOM": lambda r: os.truncate(r / "dicom" / f"{number(r)}.dcm", 1 << 40),
    "huge rows": lambda r: (r / "rows.csv").write_bytes((r / "rows.csv").read_bytes() * 20_000),
    "one long row": lambda r: (r / "rows.csv").write_bytes(b"a," * (10 << 20)),
    "an open quote": lambda r: (r / "rows.csv").write_bytes(b'id,"' + b"x\n" * (10 << 20)),
    "a report of one element": lambda r: (r / "report.html").write_bytes(b"<!DOCTYPE html>\n" + b"<p" * (2 << 20)),
    "a report of entities": lambda r: (r / "report.html").write_bytes(b"<!DOCTYPE html>\n" + b"&lt;" * (1 << 20)),
    "a report of spaces": lambda r: (r / "report.html").write_bytes(b"<p" + b" " * (4 << 20)),
}


@pytest.fixture(scope="module")
def bombed(runs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    releases = []
    for bomb in BOMBS.values():
        releases.append(copy_of(runs, tmp_path_factory.mktemp("bomb")))
        bomb(releases[-1])
    found = fuzz_release.child(*releases)
    for release in releases:
        shutil.rmtree(release)
    return dict(zip(BOMBS, found, strict=True))


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_findings_in_bounded_memory_and_time(bombed: dict[str, dict[str, Any]], name: str) -> None:
    found = bombed[name]
    assert found["problems"]
    assert found["megabytes"] < fuzz_release.MEGABYTES
    assert found["seconds"] < fuzz_release.SECONDS


def fuzz(release: Path, count: int, seed: int) -> None:
    for found in fuzz_release.child(release, str(count), str(seed)):
        assert found["problems"] or not found["must"], found["mutation"]
        assert found["megabytes"] < fuzz_release.MEGABYTES
        assert found["seconds"] < fuzz_release.SECONDS, found["mutation"]


@pytest.mark.parametrize("verdict", ["pass", "fail"])
def test_mutated_releases_are_findings(runs: dict[str, Path], tmp_path: Path, verdict: str) -> None:
    fuzz(copy_of(runs, tmp_path, verdict), 40, 1)


@pytest.mark.slow
@pytest.mark.parametrize("verdict", ["pass", "fail", "inconclusive"])
def test_three_thousand_mutated_releases_are_findings(runs: dict[str, Path], tmp_path: Path, verdict: str) -> None:
    fuzz(copy_of(runs, tmp_path, verdict), 1000, 2)


def test_what_was_not_checked_is_said(runs: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever gives no key has checked no maker, and whoever gives no run has looked for no trace of a patient."""
    run = runs["pass"]
    releases.verify(run / "release")
    told = capsys.readouterr().out
    assert "Not checked: who made it (it is not signed)" in told
    assert "Not checked: traces of the patients" in told
    releases.verify(run / "release", run=run)
    told = capsys.readouterr().out
    assert "who made it" in told
    assert "traces" not in told
