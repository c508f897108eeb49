"""A whole run that passes its gate: what it holds, what it says, and that no patient's identity is anywhere in it."""

import io
import json
import re
import zipfile

import numpy as np
import pydicom
import pytest

from pipeline.phantom.anatomy import draw_patients
from pipeline.phantom.dicom import planted_identities
from pipeline.release.verify import verify
from tests.integration.small import PATIENTS, passing

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def finished(tmp_path_factory, command):
    folder = tmp_path_factory.mktemp("passing")
    config = passing(folder)
    process = command("run", config, "--out", folder / "run")
    assert process.returncode == 0, process.stdout + process.stderr
    return folder / "run", config, process


def test_it_passes_and_the_release_is_whole(finished):
    run, _, _ = finished
    release = run / "release"
    gate = json.loads((release / "gate.json").read_text())
    assert gate["verdict"] == "pass"
    assert verify(release, run) == []
    with np.load(release / "cohort.npz", allow_pickle=False) as cohort:
        assert cohort["train_images"].shape == (1100, 32, 32)
        assert np.bincount(cohort["train_labels"][:, 0]).tolist() == [220] * 5
    assert len(list((release / "images").rglob("*.png"))) == 1100
    dataset = pydicom.dcmread(next((release / "dicom").iterdir()))
    assert dataset[0x0008, 0x001C].value == "YES"


def test_running_it_again_does_nothing_and_says_so(finished, command):
    run, config, _ = finished
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}
    process = command("run", config, "--out", run)
    assert process.returncode == 0
    assert "Nothing to do" in process.stdout
    after = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}
    assert {path.name for path in after if after[path] != before.get(path)} <= {".lock", ".sources.json"}


def test_no_planted_identity_is_in_the_release_the_logs_or_the_output(finished):
    run, _, process = finished
    identities = planted_identities(draw_patients(PATIENTS, 0), 0)
    assert len(identities) > 5000
    texts = {"stdout": process.stdout.encode(), "stderr": process.stderr.encode(), "log": (run / "log.jsonl").read_bytes()}
    for path in (run / "release").rglob("*"):
        if path.is_file() and path.suffix != ".png":
            texts[path.name] = path.read_bytes()
        texts[f"name of {path.name}"] = str(path.relative_to(run)).encode()
    with zipfile.ZipFile(run / "release" / "cohort.npz") as archive:
        texts["npz members"] = " ".join(archive.namelist()).encode()
    everything = io.BytesIO()
    for text in texts.values():
        everything.write(text + b"\n")
    found = _occurring(identities, everything.getvalue())
    assert not found, found[:5]


def test_the_grep_would_find_them_in_the_patients_zone(finished):
    run, _, _ = finished
    identities = planted_identities(draw_patients(PATIENTS, 0), 0)
    sources = b"\n".join(path.read_bytes() for path in sorted((run / "ingest" / "phantom").rglob("*"))[:20] if path.is_file())
    assert len(_occurring(identities, sources)) > 50


def _occurring(identities: set[str], haystack: bytes) -> list[str]:
    """The identities that occur as whole tokens, in UTF-8 or Latin-1."""
    tokens = set(re.findall(rb"[^\s\x00\\^,;:<>()\[\]{}\"'/=]+", haystack))
    hits = []
    for identity in identities:
        for encoded in {identity.encode("utf-8"), identity.encode("latin-1", "ignore")} - {b""}:
            pieces = [piece for piece in re.findall(rb"[^\s\x00\\^,;:<>()\[\]{}\"'/=]+", encoded) if len(piece) >= 4]
            if not pieces or any(piece not in tokens for piece in pieces):
                continue
            if re.search(rb"(?<![0-9A-Za-z])" + re.escape(encoded) + rb"(?![0-9A-Za-z])", haystack):
                hits.append(identity)
    return hits


def test_patient_data_is_kept_private(finished):
    run, _, _ = finished
    for stage in ("ingest", "train", "generate", "audit", "evaluate", "stress", "review"):
        assert (run / stage).stat().st_mode & 0o777 == 0o700
        assert json.loads((run / stage / "record.json").read_text())["contains_patient_data"] is True
    assert json.loads((run / "release" / "record.json").read_text())["contains_patient_data"] is False


def test_a_changed_configuration_is_refused_until_redo_and_names_the_stages(finished, command):
    run, config, _ = finished
    process = command("run", config, "--out", run, "--set", "generate.steps=5")
    assert process.returncode == 2
    assert process.stderr.count("\n") == 1
    for word in ("generate.steps", "generate, audit, evaluate, stress, review, release", "--redo"):
        assert word in process.stderr


def test_show_and_verify_work_on_it(finished, command):
    run, _, _ = finished
    shown = command("show", run)
    assert shown.returncode == 0
    assert "pass" in shown.stdout
    checked = command("verify", run / "release", "--run", run)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "fits its verdict" in checked.stdout
