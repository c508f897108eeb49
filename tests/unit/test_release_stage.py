"""The release stage obeys the gate: what lies in its folder after each verdict."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pydicom
import pytest
import release_run
from PIL import Image
from release_run import CLASSES, COMMON, LENIENT, RARE, audit, finished, make_context, measure, released, synthetic_images

from pipeline.artifacts import file_digest
from pipeline.cohorts.ledger import count_attempt
from pipeline.context import Context
from pipeline.errors import InputError
from pipeline.images import ImageSet
from pipeline.release import contents, stage
from pipeline.release import rows as rows_module
from pipeline.release.verify import verify
from privacy import gate, limits


@pytest.fixture(autouse=True)
def lenient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_COPY_RATE", LENIENT)


def release(run: Path, verdict: str = "pass", channels: int = 1) -> Context:
    ctx = make_context(run, channels, verdict)
    stage.run(ctx)
    return ctx


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} - {"partial.json"}


@pytest.mark.parametrize("verdict", ["fail", "inconclusive"])
def test_without_a_pass_only_verdict_and_report_are_written(tmp_path: Path, verdict: str) -> None:
    ctx = release(tmp_path / "run", verdict)
    assert files(ctx.out) == {"gate.json", "report.html"}
    assert json.loads((ctx.out / "gate.json").read_text())["verdict"] == verdict
    assert b"data:image" not in (ctx.out / "report.html").read_bytes()


@pytest.mark.parametrize("channels", [1, 3])
def test_pass_writes_the_same_images_in_every_format(tmp_path: Path, channels: int) -> None:
    out = release(tmp_path / "run", "pass", channels).out
    images = synthetic_images(channels)
    with np.load(out / "cohort.npz", allow_pickle=False) as archive:
        pixels, labels = archive["train_images"], archive["train_labels"]
        assert pixels.dtype == labels.dtype == np.uint8
        assert labels.shape == (len(images), 1)
        assert archive["val_images"].shape == (0, *pixels.shape[1:])
        assert archive["test_labels"].shape == (0, 1)
    assert np.array_equal(pixels, images.images[:, 0] if channels == 1 else np.moveaxis(images.images, 1, -1))
    with (out / "rows.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["label"] for row in rows] == [CLASSES[index] for index in labels[:, 0]]
    assert [int(row["seed"]) for row in rows] == list(range(len(images)))
    with Image.open(out / rows[7]["file"]) as picture:
        assert np.array_equal(np.asarray(picture), pixels[7])
    assert {row["file"] for row in rows} | {f"dicom/{row['id']}.dcm" for row in rows} <= files(out)
    assert {"data_card.md", "data_card.json", "report.html", "gate.json", "LICENSE.txt", "SHA256SUMS"} <= files(out)


def test_archive_has_the_layout_of_medmnists_own(tmp_path: Path) -> None:
    if "SYNTHCOHORT_DATA" not in os.environ:
        pytest.skip("SYNTHCOHORT_DATA is not set: no MedMNIST file to compare with")
    out = release(tmp_path / "run", "pass").out
    with np.load(Path(os.environ["SYNTHCOHORT_DATA"]) / "breastmnist" / "breastmnist.npz") as theirs, np.load(out / "cohort.npz") as ours:
        layout = [{key: (archive[key].dtype, archive[key].ndim) for key in archive} for archive in (theirs, ours)]
    assert layout[0] == layout[1]


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="sha256sum is not installed")
def test_checksums_are_read_by_sha256sum_and_cover_everything(tmp_path: Path) -> None:
    out = release(tmp_path / "run", "pass").out
    found = subprocess.run(["sha256sum", "--strict", "-c", "SHA256SUMS"], cwd=out, capture_output=True, text=True, check=False)
    assert found.returncode == 0
    assert {line.rpartition(": ")[0] for line in found.stdout.splitlines()} == files(out) - {"SHA256SUMS"}


@pytest.mark.skipif(sys.platform == "win32", reason="permissions are those of POSIX")
def test_passed_release_is_readable_by_others(tmp_path: Path) -> None:
    out = release(tmp_path / "run", "pass").out
    modes = {path.stat().st_mode & 0o777 for path in out.rglob("*") if path.name != "partial.json"}
    assert modes == {0o755, 0o644}
    assert out.stat().st_mode & 0o777 == 0o755


def test_same_run_releases_the_same_bytes(tmp_path: Path) -> None:
    sums = [(release(tmp_path / name, "pass").out / "SHA256SUMS").read_text().splitlines() for name in ("a", "b")]
    assert sums[0] == sums[1]


def test_images_changed_after_the_audit_are_refused(tmp_path: Path) -> None:
    ctx = make_context(tmp_path / "run")
    shard = np.load(ctx.folder("generate") / "images-00000.npy")
    shard[3, 0, 0, 0] ^= 1
    np.save(ctx.folder("generate") / "images-00000.npy", shard)
    with pytest.raises(InputError, match="has changed since it was judged"):
        stage.run(ctx)
    assert files(ctx.out) == set()


def test_audit_of_other_images_is_refused(tmp_path: Path) -> None:
    ctx = make_context(tmp_path / "run")
    ctx.records["audit"]["identity"]["inputs"]["generate"] = "0" * 64
    with pytest.raises(InputError, match="audit judged other images"):
        stage.run(ctx)


def test_class_names_become_distinct_plain_folders() -> None:
    folders = contents.class_folders(("normal, benign", "normal / benign", "../up", "plain", "Plain"))
    assert len({folder.lower() for folder in folders.values()}) == 5
    assert folders["plain"] == "plain"
    assert all("/" not in name and not name.startswith(".") for name in folders.values())
    assert len(set(contents.class_folders(("a_b_2", "a b", "a_b")).values())) == 3


def test_subjects_carry_an_id_of_the_release_that_only_the_key_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = []
    for folder, key in (("a", "x" * 16), ("b", "x" * 16), ("c", "y" * 16)):
        monkeypatch.setenv("SYNTHCOHORT_KEY", key)
        monkeypatch.setenv("SYNTHCOHORT_COHORTS", str(tmp_path / f"cohorts of {key[0]}"))
        out = release(tmp_path / folder).out
        ids.append(json.loads((out / "gate.json").read_text())["release"])
        with (out / "rows.csv").open(newline="") as file:
            assert [row["id"] for row in csv.DictReader(file)] == [f"SYN-{ids[-1]}-{number:06d}" for number in range(10)]
    assert ids[0] == ids[1]
    assert ids[0] != ids[2]


@pytest.mark.parametrize("verdict", ["pass", "fail", "inconclusive"])
def test_what_is_written_is_verified_and_so_is_the_stages_record(tmp_path: Path, verdict: str) -> None:
    ctx = released(tmp_path / "run", verdict)
    assert (ctx.out / "record.json").exists()
    assert verify(ctx.out, ctx.run) == []


def test_texts_that_are_no_language_are_refused_before_anything_is_released(tmp_path: Path) -> None:
    ctx = make_context(tmp_path / "run")
    release = ctx.config.release.model_copy(update={"contact": "iVBORw0KGgo" * 20})
    with pytest.raises(InputError, match="change the texts or the class names"):
        stage.run(dataclasses.replace(ctx, config=ctx.config.model_copy(update={"release": release})))


@pytest.mark.parametrize("damage", ["{", "[]", "{}", '{"copies": 1}', '{"n": NaN}'])
def test_a_damaged_audit_is_one_line(tmp_path: Path, damage: str) -> None:
    ctx = make_context(tmp_path / "run")
    (ctx.folder("audit") / "audit.json").write_text(damage)
    with pytest.raises(InputError, match=r"audit\.json is missing or damaged"):
        stage.run(ctx)


def test_a_measure_out_of_its_range_is_no_verdict(tmp_path: Path) -> None:
    ctx = make_context(tmp_path / "run")
    (ctx.folder("audit") / "audit.json").write_text(json.dumps(audit("pass") | {"n": {**audit("pass")["n"], "holdout_units": -5}}))
    with pytest.raises(InputError, match="damaged"):
        stage.run(ctx)


def words(release: Path) -> dict[str, set[str]]:
    """By file of a release's top, its words that nothing but a common source makes twice: digests and times."""
    texts = (path for path in release.iterdir() if path.is_file() and path.suffix in (".json", ".html", ".csv", ".md", ".txt"))
    return {
        path.name: set(re.findall(r"(?<![0-9a-f.])[0-9a-f]{16,}|[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]*", path.read_text())) for path in texts
    }


@pytest.mark.parametrize("verdict", ["pass", "fail"])
def test_two_releases_of_one_cohort_and_one_model_state_nothing_by_which_they_could_be_linked(tmp_path: Path, verdict: str) -> None:
    outs = []
    for number in range(2):
        ctx = make_context(tmp_path / f"run{number}", verdict=verdict, seed=number)
        records = {name: ctx.records[name]["digest"] for name in ("ingest", "train", "generate")}
        outs.append((finished(ctx, f"2026-03-0{number + 1}T03:04:05+0000").out, records))
    (one, had), (other, has) = outs
    assert had["ingest"] == has["ingest"]
    assert had["train"] == has["train"]
    assert had["generate"] != has["generate"]
    seconds = words(other)
    for name, said in words(one).items():
        # Of what a release holds, texts that are no cohort's are the same: their digests, in the record.
        same = {file_digest(one / "LICENSE.txt")} if verdict == "pass" else set()
        assert said & seconds[name] <= same, name
        assert not said & set(had.values()), name
    assert words(one)["record.json"]


def test_nothing_local_is_in_the_report(tmp_path: Path) -> None:
    """Paths of other runs and of the key, and the digest by which the cohort could be recognised."""
    ctx = make_context(tmp_path / "run", 1, "fail")
    config = ctx.config.model_copy(
        update={
            "generate": ctx.config.generate.model_copy(update={"autoguidance": Path("/srv/roe/train")}),
            "train": ctx.config.train.model_copy(update={"start_from": Path("/srv/roe/other")}),
        }
    )
    stage.run(dataclasses.replace(ctx, config=config))
    page = (ctx.out / "report.html").read_text()
    assert "/srv/roe" not in page
    assert ctx.records["ingest"]["digest"] not in page


def test_images_that_repeat_more_than_was_judged_are_not_released(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = synthetic_images()
    again = ImageSet(np.repeat(made.images[:1], len(made), axis=0), made.rows)
    monkeypatch.setattr(release_run, "synthetic_images", lambda channels=1, seed=0, several=False: again)
    with pytest.raises(InputError, match=r"cohort\.npz holds 9 images that repeat another one"):
        stage.run(make_context(tmp_path / "run"))


def test_a_second_release_of_a_cohort_is_judged_with_the_first(tmp_path: Path) -> None:
    """The search's recall of the first counts for the patients of both, and bounds have the confidence of a second attempt."""
    first = make_context(tmp_path / "run")
    stage.run(first)
    second = make_context(tmp_path / "other")
    second.records["generate"]["digest"] = "1" * 64
    second.records["audit"]["identity"]["inputs"]["generate"] = "1" * 64
    stage.run(second)
    gates = [json.loads((ctx.out / "gate.json").read_text()) for ctx in (first, second)]
    copies = [next(check for check in gate["checks"] if check["name"] == "copies") for gate in gates]
    assert [gate["attempt"] for gate in gates] == [1, 2]
    assert [check["earlier_recall"] for check in copies] == [None, copies[0]["recall"]]
    assert [check["earlier_attempt"] for check in copies] == [None, 1]
    assert [check["confidence"] for check in copies] == [limits.confidence(1), limits.confidence(2)]


def test_a_set_is_judged_again_where_another_of_its_cohort_passes_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ctx, other, checks = make_context(tmp_path / "run"), make_context(tmp_path / "other"), gate.checks
    other.records["generate"]["digest"] = "1" * 64

    def beside(*given: Any, **named: Any) -> Any:
        count_attempt(other, "pass", 0.87)
        return checks(*given, **named)

    monkeypatch.setattr(gate, "checks", beside)
    stage.run(ctx)
    copies = next(check for check in json.loads((ctx.out / "gate.json").read_text())["checks"] if check["name"] == "copies")
    assert (copies["earlier_recall"], copies["earlier_attempt"]) == (0.87, 2)


def test_shadow_trainings_clear_weights_and_stand_in_the_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part = {"auc": measure(0.512, n=1200), "tpr_at_1pct_fpr": measure(0.011, 0.008), "worst": {"name": "nodule", "auc": measure(0.53)}}
    shadows = {"trainings": 8, "members": 1100, "non_members": 550, "weights": part, "images": part, "control": {"auc": measure(0.5)}}
    monkeypatch.setattr(release_run, "audit", lambda verdict: audit(verdict) | {"shadows": shadows})
    ctx = make_context(tmp_path / "run")
    assert stage.run(ctx)["weights"] == "pass"
    assert "Membership with shadow trainings" in (ctx.out / "report.html").read_text()
    shadows["weights"] = {**part, "auc": measure(0.86)}
    ctx = make_context(tmp_path / "other")
    assert (stage.run(ctx)["weights"], stage.run(ctx)["verdict"]) == ("fail", "pass")


def test_several_findings_are_released_in_medmnists_layout_and_verified(tmp_path: Path) -> None:
    """A column for each finding and no label; what was left open is -1; pictures lie in one folder; and nobody edits a row unseen."""
    ctx = finished(make_context(tmp_path / "run", several=True))
    made = synthetic_images(several=True)
    rows = pd.read_csv(ctx.out / "rows.csv")
    asked = ["attribute_side", "attribute_severity", "attribute_text", "unseen"]
    assert list(rows.columns) == ["id", *(f"finding_{name}" for name in CLASSES), *asked, "seed", "guidance", "file"]
    np.testing.assert_array_equal(rows[[f"finding_{name}" for name in CLASSES]].to_numpy(), made.findings)
    np.testing.assert_array_equal(pd.read_parquet(ctx.out / "rows.parquet")[list(rows.columns[1:6])].to_numpy(), made.findings)
    with np.load(ctx.out / "cohort.npz", allow_pickle=False) as arrays:
        np.testing.assert_array_equal(arrays["train_labels"], made.findings)
        assert arrays["val_labels"].shape == (0, 5)
    entry = json.loads((ctx.out / "medmnist.json").read_text())["cohort"]
    assert entry["task"] == "multi-label, binary-class"
    assert {path.name for path in (ctx.out / "images").iterdir()} == {Path(name).name for name in rows["file"]}
    card = json.loads((ctx.out / "data_card.json").read_text())
    assert card["images"] == len(made)
    assert card["classes"] == {name: int((made.findings[:, k] == 1).sum()) for k, name in enumerate(CLASSES)}
    label = str(pydicom.dcmread(ctx.out / "dicom" / f"{rows['id'][0]}.dcm").ImageComments)
    assert all((name in label) == (made.findings[0, k] == 1) for k, name in enumerate(CLASSES))
    assert verify(ctx.out) == []
    types = {field["name"]: field["dataType"] for field in json.loads((ctx.out / "croissant.json").read_text())["recordSet"][1]["field"]}
    assert [types[name] for name in asked] == ["sc:Text", "sc:Float", "sc:Text", "sc:Integer"]
    lines = (ctx.out / "rows.csv").read_text().splitlines()
    edited = next(line for line in lines if ",0," in line)
    (ctx.out / "rows.csv").write_text("\n".join(lines).replace(edited, edited.replace(",0,", ",1,", 1)) + "\n")
    assert verify(ctx.out)


def test_rows_say_what_was_asked_for_but_repeat_no_report_of_few_patients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows_module, "LEAST_PATIENTS", 5)
    ctx = finished(make_context(tmp_path / "run", several=True))
    made, rows = synthetic_images(several=True).rows, pd.read_parquet(ctx.out / "rows.parquet")
    for name in ("attribute_side", "attribute_severity", "unseen"):
        np.testing.assert_array_equal(rows[name], made[name])
    assert set(rows["attribute_text"]) == {COMMON, "", "no such report"}
    np.testing.assert_array_equal(rows["attribute_text"] == "", made["attribute_text"] == RARE)
    told = {"attribute_text": [COMMON, RARE], "attribute_without_text": [RARE, COMMON], "seed": [1, 2]}
    expected = told | {"attribute_text": [COMMON, ""], "attribute_without_text": ["", COMMON]}
    assert rows_module.without_reports(told, ctx.folder("ingest")) == expected
    purged = rows_module.without_reports(told, tmp_path / "purged")
    assert purged == {"attribute_text": ["", ""], "attribute_without_text": ["", ""], "seed": [1, 2]}, "nobody can tell any more"
