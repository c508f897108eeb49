"""Where a patient's images are, before and after a run's patient data were removed, and what a purge leaves."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
import release_run
from command import refused, run_main
from release_run import LENIENT, audit, measure, released

from pipeline import api, artifacts
from pipeline.errors import InputError
from pipeline.images import ImageSet
from pipeline.release.verify import verify
from privacy import limits

PATIENT = "Roe-007"
MEMBERS = ("train", "train", "test")


def made(run: Path, monkeypatch: pytest.MonkeyPatch, verdict: str = "pass", *, cleared: bool = False, unit: str = "patient") -> Path:
    """A finished run that holds three images of one patient, whose pseudonym is that of the project key."""
    key = os.environ["SYNTHCOHORT_KEY"].encode()
    images = release_run.synthetic_images()
    names = [artifacts.keyed(key, "patient", "roe007")[:16]] * 3 + [f"other{number}" for number in range(len(images) - 3)]
    splits = [*MEMBERS, *("audit" for _ in names[3:])]
    rows = images.rows.assign(id=[f"realimage{number:04d}" for number in range(len(images))], patient=names, split=splits)
    monkeypatch.setattr(limits, "MAX_COPY_RATE", LENIENT)
    monkeypatch.setattr(release_run, "ingested", lambda channels=1: ImageSet(255 - images.images, rows))
    if cleared:
        part = {"auc": measure(0.512, n=1200), "tpr_at_1pct_fpr": measure(0.011, 0.008), "worst": {"name": "nodule", "auc": measure(0.53)}}
        shadows = {"trainings": 8, "members": 1100, "non_members": 550, "weights": part, "images": part, "control": {"auc": measure(0.5)}}
        monkeypatch.setattr(release_run, "audit", lambda verdict: audit(verdict) | {"shadows": shadows})
    ctx = released(run, verdict)
    facts = json.loads((run / "ingest" / "cohort.json").read_text()) | {"key_mark": artifacts.key_mark(key), "unit": unit}
    artifacts.write_json(run / "ingest" / "cohort.json", facts)
    (run / ".sources.json").write_text("{}")
    return ctx.run


def test_a_patient_is_found_in_any_spelling_with_split_and_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = made(tmp_path / "runs" / "one", monkeypatch)
    release = json.loads((run / "release" / "gate.json").read_text())["release"]
    for spelling in (PATIENT, "roe 007", "ROE007"):
        (place,) = api.where(spelling, runs=tmp_path / "runs")
        assert (place.run, place.images, place.release, place.verdict) == (run, {"train": 2, "test": 1}, release, "pass")
        assert not place.purged
    assert api.where("Doe-1", runs=tmp_path / "runs") == []


def test_a_run_that_cannot_tell_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(tmp_path / "runs" / "by image", monkeypatch, unit="image")
    other = made(tmp_path / "runs" / "other key", monkeypatch)
    facts = json.loads((other / "ingest" / "cohort.json").read_text())
    artifacts.write_json(other / "ingest" / "cohort.json", facts | {"key_mark": "0" * 16})
    (tmp_path / "runs" / "unfinished one" / "unfinished" / "ingest").mkdir(parents=True)
    said = {place.run.name: place.unknown for place in api.where(PATIENT, runs=tmp_path / "runs")}
    assert said["by image"] == "its source says of no image whose it is"
    assert said["other key"] == "its pseudonyms were made under another key"
    assert "not finished" in said["unfinished one"]


def files(run: Path) -> set[str]:
    return {path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()}


def test_without_yes_nothing_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = made(tmp_path / "runs" / "one", monkeypatch)
    before = files(run)
    found = api.purge(run)
    assert files(run) == before
    assert list(found.removed) == ["ingest", "train", "generate", "audit", "evaluate", "stress", "review", ".sources.json"]
    assert found.removed["ingest"] == sum(path.stat().st_size for path in (run / "ingest").iterdir())
    assert list(found.kept) == ["release"]


def test_a_purged_run_keeps_its_release_and_the_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = made(tmp_path / "runs" / "one", monkeypatch)
    kept = {name for name in files(run) if name.startswith("release/")}
    (before,) = api.where(PATIENT, runs=tmp_path / "runs")
    api.purge(run, yes=True)
    assert files(run) - {".lock", "log.jsonl"} == kept | {"purged.json"}
    assert verify(run / "release") == []
    left = "".join(path.read_text(errors="replace") for path in run.rglob("*") if path.is_file())
    assert "other3" not in left
    assert artifacts.keyed(os.environ["SYNTHCOHORT_KEY"].encode(), "patient", "roe007")[:16] not in left
    (after,) = api.where(PATIENT, runs=tmp_path / "runs")
    assert (after.images, after.release, after.verdict) == (before.images, before.release, before.verdict)
    assert after.purged
    with pytest.raises(InputError, match="was purged already"):
        api.purge(run, yes=True)


def test_cleared_weights_stay_and_know_how_they_were_sampled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.further import _section

    run = made(tmp_path / "runs" / "one", monkeypatch, cleared=True)
    sampling = _section(run)
    found = api.purge(run, yes=True)
    assert list(found.kept) == ["release", "train"]
    assert (run / "train" / "model.safetensors").is_file()
    assert not (run / "generate").exists()
    assert _section(run) == sampling


def test_what_a_run_did_not_write_is_not_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = made(tmp_path / "runs" / "one", monkeypatch)
    (run / "train" / "thesis.txt").write_text("x")
    with pytest.raises(InputError, match=r"holds files or links that this run did not write \(1\)"):
        api.purge(run, yes=True)
    assert (run / "ingest" / "rows.parquet").is_file()
    with pytest.raises(InputError, match="is no run folder"):
        api.purge(tmp_path)


def test_a_purge_that_was_killed_is_finished_and_counts_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = made(tmp_path / "runs" / "one", monkeypatch)
    with monkeypatch.context() as patch:
        patch.setattr("pipeline.folders.discard", lambda folder: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            api.purge(run, yes=True)
    api.purge(run, yes=True)
    (place,) = api.where(PATIENT, runs=tmp_path / "runs")
    assert place.images == {"train": 2, "test": 1}


def test_a_purge_that_is_killed_after_every_single_file_ends_and_counts_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = made(tmp_path / "runs" / "one", monkeypatch)
    unlink = Path.unlink

    def killing(path: Path, missing_ok: bool = False) -> None:
        there = path.exists()
        unlink(path, missing_ok)
        if there:
            raise KeyboardInterrupt

    def restarted(times: int) -> None:
        for _ in range(times):
            with contextlib.suppress(KeyboardInterrupt):
                api.purge(run, yes=True)

    many = len(files(run))
    monkeypatch.setattr(Path, "unlink", killing)
    with pytest.raises(InputError, match="was purged already"):
        restarted(many)
    assert not {name.partition("/")[0] for name in files(run)} - {"release", "purged.json", ".lock", "log.jsonl"}
    (place,) = api.where(PATIENT, runs=tmp_path / "runs")
    assert place.images == {"train": 2, "test": 1}


def test_the_commands_say_it_without_the_patients_id(tmp_path: Path, monkeypatch: Any, capfd: Any) -> None:
    run = made(tmp_path / "runs" / "one", monkeypatch)
    said = run_main(monkeypatch, capfd, "where", PATIENT, "--runs", tmp_path / "runs")
    assert said.returncode == 0
    text = " ".join(said.stdout.split())
    assert "1 used to test with, 2 the generator was trained on" in text
    assert "verdict pass" in text
    assert PATIENT not in said.stdout
    said = run_main(monkeypatch, capfd, "purge", run)
    assert "would remove ingest" in said.stdout
    assert "add --yes" in said.stdout
    refused(run_main(monkeypatch, capfd, "where", "...", "--runs", tmp_path / "runs"), "no letter or digit")
    monkeypatch.delenv("SYNTHCOHORT_KEY")
    monkeypatch.setenv("SYNTHCOHORT_COHORTS", str(tmp_path / "none"))
    refused(run_main(monkeypatch, capfd, "where", PATIENT, "--runs", tmp_path / "runs"), "no key", "SYNTHCOHORT_COHORTS")
    assert not (tmp_path / "none").exists()
