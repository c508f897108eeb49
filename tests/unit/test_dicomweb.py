"""DICOMweb against a real Orthanc, started here; skipped, saying so, where it or the extra is not installed."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import dicom_folder
import numpy as np
import pydicom
import pytest
from dicom_folder import write
from pydicom.uid import RLELossless, generate_uid
from rich.console import Console
from test_ingest_stage import ingest

from pipeline.config import Config, QueryConfig
from pipeline.errors import InputError
from pipeline.ingest.readers.values import quiet
from pipeline.progress import Reporter
from pipeline.runner import run_stages

PLUGINS = ("/usr/share/orthanc/plugins/libOrthancDicomWeb.so", "/usr/lib/orthanc/libOrthancDicomWeb.so")
PATIENTS = 20


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.fixture(scope="module")
def pacs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of an Orthanc that holds 20 DX patients, studied on different days, and one CT image."""
    pytest.importorskip("dicomweb_client", reason="the extra dicomweb is not installed")
    plugin = next((path for path in PLUGINS if Path(path).exists()), None)
    if shutil.which("Orthanc") is None or plugin is None:
        pytest.skip("Orthanc with its DICOMweb plugin is not installed")
    folder, port = tmp_path_factory.mktemp("orthanc"), free_port()
    settings = {
        **{"HttpPort": port, "DicomServerEnabled": False, "RemoteAccessAllowed": False, "AuthenticationEnabled": True},
        **{"RegisteredUsers": {"reader": "secret"}, "StorageDirectory": str(folder / "db"), "IndexDirectory": str(folder / "db")},
        **{"Plugins": [plugin], "DicomWeb": {"Enable": True, "Root": "/dicom-web/"}},
    }
    (folder / "orthanc.json").write_text(json.dumps(settings))
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(["Orthanc", str(folder / "orthanc.json")], stdout=log, stderr=log)
    try:
        base = f"http://127.0.0.1:{port}"
        _wait(f"{base}/system")
        for path in _files(folder / "files"):
            _request(f"{base}/instances", path.read_bytes())
        yield f"{base}/dicom-web"
    finally:
        server.terminate()
        server.wait(timeout=30)


def _files(folder: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    paths = []
    for number in range(PATIENTS + 1):
        what = {"Modality": "CT" if number == PATIENTS else "DX", "BodyPartExamined": ("CHEST", "HAND")[number % 2]}
        what |= {"PatientID": f"MRN-{number}", "StudyDate": f"202401{number + 1:02d}", "WindowCenter": 2048, "WindowWidth": 4096}
        uids = {name: generate_uid() for name in ("StudyInstanceUID", "SeriesInstanceUID")}
        pixels = rng.integers(0, 4096, (40, 32), dtype=np.uint16)
        one = dicom_folder.dataset(pixels, **what, **uids)
        one.compress(RLELossless, generate_instance_uid=False)
        paths.append(write(folder / f"{number}.dcm", one))
    return paths


def _request(url: str, data: bytes | None = None) -> bytes:
    passwords = urllib.request.HTTPPasswordMgrWithDefaultRealm()
    passwords.add_password(None, url, "reader", "secret")
    opener = urllib.request.build_opener(urllib.request.HTTPBasicAuthHandler(passwords), urllib.request.ProxyHandler({}))
    with opener.open(url, data, timeout=10) as answer:
        return bytes(answer.read())


def _wait(url: str) -> None:
    for _ in range(150):
        try:
            _request(url)
            return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.2)
    pytest.fail("Orthanc did not start")


@pytest.fixture(autouse=True)
def _login(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYNTHCOHORT_KEY", "a key of the tests, long enough")
    monkeypatch.setenv("SYNTHCOHORT_DICOMWEB_USER", "reader")
    monkeypatch.setenv("SYNTHCOHORT_DICOMWEB_PASSWORD", "secret")


def config(url: str, **query: str) -> Config:
    section = {"source": "dicomweb", "classes": ("chest", "hand"), "label_field": "BodyPartExamined"}
    section |= {"query": {"url": url, "modality": "DX", **query}, "burned_in": "declared"}
    return Config.model_validate({"name": "t", "ingest": section, "train": {"images": 1}, "generate": {"per_class": 1}})


def test_a_query_becomes_a_cohort(pacs: str, tmp_path: Path) -> None:
    with quiet():
        summary, cohort = ingest(config(pacs), tmp_path / "run")
    assert (summary["images"], summary["patients"], summary["quarantined"]) == (PATIENTS, PATIENTS, 0)
    assert sorted(cohort.labels.tolist()) == [0] * 10 + [1] * 10
    assert not (tmp_path / "run" / "ingest" / "dicomweb").exists()  # identities do not stay


@pytest.mark.parametrize(
    ("query", "expected"),
    [({}, PATIENTS), ({"dates": "20240103"}, 1), ({"dates": "20240103-20240108"}, 6), ({"body_part": "HAND"}, 10), ({"modality": "CT"}, 1)],
)
def test_each_criterion_narrows_the_answer(pacs: str, query: dict[str, str], expected: int) -> None:
    from pipeline.ingest.readers import dicomweb

    assert len(dicomweb.find(QueryConfig(url=pacs, **({"modality": "DX"} | query)))) == expected


def test_long_answers_come_in_pages(pacs: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.ingest.readers import dicomweb

    query = QueryConfig(url=pacs, modality="DX")
    whole = dicomweb.find(query)
    monkeypatch.setattr(dicomweb, "PAGE", 3)
    assert dicomweb.find(query) == whole


def test_what_was_retrieved_is_what_was_stored_and_is_not_asked_for_again(pacs: str, tmp_path: Path) -> None:
    from pipeline.ingest.readers import dicomweb

    query, reporter = QueryConfig(url=pacs, modality="DX", dates="20240101-20240103"), Reporter(tmp_path / "log", Console(quiet=True))
    with quiet():
        dicomweb.fetch(query, tmp_path / "got", reporter)
        [first, *_] = paths = sorted((tmp_path / "got").iterdir())
        assert len(paths) == 3
        uid, _, instance = dicomweb.find(query)[0].split("/")
        found = pydicom.dcmread(first)
        assert (found.StudyInstanceUID, found.SOPInstanceUID) == (uid, instance)
        assert found.file_meta.TransferSyntaxUID == RLELossless
        assert found.pixel_array.shape == (40, 32)
        marks = {path: path.stat().st_mtime_ns for path in paths[1:]}
        first.unlink()
        dicomweb.fetch(query, tmp_path / "got", reporter)
    assert first.exists()
    assert {path: path.stat().st_mtime_ns for path in paths[1:]} == marks


def test_a_run_follows_what_the_pacs_holds(pacs: str, tmp_path: Path) -> None:
    reporter = Reporter(tmp_path / "log", Console(quiet=True))
    with quiet():
        first = run_stages(config(pacs), tmp_path, reporter, until="ingest")
        again = run_stages(config(pacs), tmp_path, reporter, until="ingest")
    assert [step.reason is None for step in (*first, *again)] == [False, True]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"modality": "MG"}, "has no series to this query"),
        ({"url": "http://127.0.0.1:9/dicom-web"}, "did not answer"),
        ({"url": "nonsense"}, "is no address"),
    ],
)
def test_no_answer_gets_one_line(pacs: str, change: dict[str, str], expected: str) -> None:
    from pipeline.ingest.readers import dicomweb

    with pytest.raises(InputError, match=expected) as caught:
        dicomweb.find(QueryConfig(**({"url": pacs, "modality": "DX"} | change)))
    assert "\n" not in str(caught.value)


def test_a_wrong_password_gets_one_line(pacs: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.ingest.readers import dicomweb

    monkeypatch.setenv("SYNTHCOHORT_DICOMWEB_PASSWORD", "wrong-password")
    with pytest.raises(InputError, match="answered 401") as caught:
        dicomweb.find(QueryConfig(url=pacs, modality="DX"))
    assert "wrong-password" not in str(caught.value)
