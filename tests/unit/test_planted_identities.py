"""Identities planted in every VR, in private and nested attributes, in file names, the label table and the pixels: none gets out."""

from __future__ import annotations

import csv
import json
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dicom_folder
import numpy as np
import pandas as pd
import pytest
from pydicom import Dataset
from pydicom.datadict import dictionary_VR, keyword_dict
from pydicom.sequence import Sequence
from rich.console import Console
from scipy.ndimage import gaussian_filter

from pipeline.config import Config
from pipeline.context import Context
from pipeline.images import ImageSet
from pipeline.ingest import stage
from pipeline.ingest.readers.attributes import parsed
from pipeline.progress import Reporter
from tests.benchmarks.text_pictures import ink

SECRET = "ZYXSECRET"
PLANTED: dict[str, Any] = {
    **dict.fromkeys(("AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UT", "UR"), SECRET),
    **{"UI": "1.2.840.99.4829133177", "DA": "19480229", "DT": "19480229101112", "TM": "101112.131415"},
    **{"DS": "4829133177", "IS": "482913317", "FD": 4829133177.0, "UL": 482913317, "OB": b"ZYXSECRET4829133", "UN": b"ZYXSECRET4829133"},
}
TRACES = (SECRET, SECRET.lower(), "4829133", "19480229", "101112.13", "OTHERSECRET")
PATIENTS, BURNED = 34, 3


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYNTHCOHORT_KEY", "a key of the tests, long enough")


def cohort(root: Path) -> Path:
    """Two classes, a folder and a name in the path for each patient; the last :data:`BURNED` patients have theirs in the pixels."""
    rng = np.random.default_rng(4)
    rows = []
    for patient in range(PATIENTS):
        pixels = gaussian_filter(np.kron(rng.normal(1500, 400, (12, 20)), np.ones((8, 8))), 2).astype(np.float32)
        if patient >= PATIENTS - BURNED:
            letters = ink(f"{SECRET} 1948", "DejaVuSans", 14, True)
            part = pixels[8 : 8 + letters.shape[0], 12 : 12 + letters.shape[1]]
            part += letters * (4000 - part)
        name = f"{SECRET}_{patient}/OTHERSECRET_19480229_{patient}.dcm"
        dicom_folder.write(root / name, identified(pixels.astype(np.uint16), f"{SECRET}-{patient}"))
        rows.append((name, ("normal", "effusion")[patient % 2], f"{SECRET}^JANE", "19480229"))
    (root / f"{SECRET}.txt").write_text(SECRET)
    with (root / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file", "label", "name", "born"), *rows])
    return root


def identified(pixels: Any, patient: str) -> Dataset:
    """An image with an identity in every attribute of the dictionary that is not needed to show it."""
    header = dicom_folder.dataset(pixels, PatientID=patient, NumberOfFrames=1, WindowCenter=2048, WindowWidth=4096)
    needed = {element.keyword for element in header}
    geometry = ("Image", "Pixel", "Rescale", "VOI", "LUT", "Palette", "Window", "Offset", "Annotation", "Visual", "Conversion", "Capture")
    for keyword, tag in keyword_dict.items():
        vr = dictionary_VR(tag)
        plain = keyword and keyword not in needed and tag > 0x00080005 and not any(word in keyword for word in geometry)
        if plain and vr in PLANTED and tag >> 16 < 0x5000:
            header.add_new(tag, vr, PLANTED[vr])
    inner = Dataset()
    inner.PatientName, inner.PatientBirthDate = SECRET, "19480229"
    outer = Dataset()
    outer.RequestAttributesSequence = Sequence([inner])
    header.RequestAttributesSequence, header.OriginalAttributesSequence = Sequence([outer]), Sequence([inner])
    block = header.private_block(0x0011, SECRET, create=True)
    for number, (vr, value) in enumerate(PLANTED.items()):
        block.add_new(number, vr, value)
    header.ViewPosition = header.PatientSex = header.InstitutionName = SECRET
    return header


def context(root: Path, run: Path) -> Context:
    section = {"source": "dicom", "path": root, "classes": ("normal", "effusion")}
    settings = Config.model_validate({"name": "t", "ingest": section, "train": {"images": 1}, "generate": {"per_class": 1}})
    (run / "ingest").mkdir(mode=0o700, parents=True)
    return Context(settings, run, run / "ingest", Reporter(run / "log.jsonl", Console(quiet=True)), {})


def files(folder: Path) -> Iterator[tuple[Path, str]]:
    """Every file below, with its content as text, tables as CSV."""
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        yield path, pd.read_parquet(path).to_csv() if path.suffix == ".parquet" else path.read_bytes().decode("latin-1")


def traces(content: str) -> list[str]:
    return [trace for trace in TRACES if trace in content]


def test_nothing_of_it_is_outside_the_list_of_what_was_left_out(tmp_path: Path, cohorts: Path, capfd: pytest.CaptureFixture[str]) -> None:
    root, run = cohort(tmp_path / "in"), tmp_path / "run"
    ctx = context(root, run)
    stage.run(ctx)
    kept = ImageSet.load(ctx.out)
    assert len(kept) == PATIENTS - BURNED
    for path, content in files(run):
        assert not traces(str(path.relative_to(run)))
        if path.stem == "quarantine":  # names files, inside the folder that only its owner can enter
            assert content.count("text was found in the pixels") == BURNED
        else:
            assert traces(content) == [], path.name
    assert traces("".join(capfd.readouterr())) == []
    pseudonyms = {*kept.rows["id"], *kept.rows["patient"]}
    assert not [path for path, content in files(run) if traces(content) and any(name in content for name in pseudonyms)]
    [ledger] = cohorts.glob("cohort-*.json")
    assert stat.S_IMODE(ledger.stat().st_mode) == 0o600
    assert not traces(ledger.read_text())
    assert set(kept.rows["patient"]) == set(json.loads(ledger.read_text())["patients"])


def test_an_interrupted_run_leaves_no_table_from_identities_to_pseudonyms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.ingest.deidentify import allow_list

    root, run = cohort(tmp_path / "in"), tmp_path / "run"
    monkeypatch.setattr(stage.duplicates, "near_duplicates", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        stage.run(context(root, run))
    key = b"a key of the tests, long enough"
    headers = [dicom_folder.dataset(dicom_folder.ramp(), PatientID=f"{SECRET}-{patient}") for patient in range(PATIENTS)]
    pseudonyms = {allow_list.keep(parsed(header), key).patient for header in headers}
    lines = [line for _, content in files(run) for line in content.splitlines()]
    assert any(name in line for line in lines for name in pseudonyms), "the run was to leave something"
    assert not [line for line in lines if traces(line) and any(name in line for name in pseudonyms)]
