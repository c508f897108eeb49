"""A foreign set is a run: anybody's synthetic images, judged and released as the pipeline's own are."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from rich.console import Console

from pipeline import api
from pipeline.api.foreign import foreign_config
from pipeline.artifacts import fingerprint, read_json, read_record
from pipeline.errors import InputError
from pipeline.images import ImageSet
from privacy import copy_report, copy_score, limits, power
from tests.integration import foreign
from tests.integration.foreign import QUICK, SIDE, phantoms, pictures
from tests.unit.command import run_main

pytestmark = pytest.mark.usefixtures("one_worker")

LENIENT = {"MIN_HOLDOUT": 10, "MAX_COPY_RATE": 0.9, "MIN_RECALL": 0.1, "MAX_EXPOSED": 1000, "MAX_SPLIT_BIAS": 1}
"""Constants that a set of a few images can meet."""


@pytest.fixture(scope="module")
def honest(given, tmp_path_factory, one_worker):
    a, b, c = given
    return api.audit(train=a, synthetic=b, holdout=c, out=tmp_path_factory.mktemp("runs") / "honest", settings=QUICK)


@pytest.fixture(scope="module")
def flat(given, tmp_path_factory, one_worker):
    """The synthetic images without classes, under names that nobody may learn."""
    folder = tmp_path_factory.mktemp("flat")
    for number, file in enumerate(sorted(given[1].rglob("*.png"))):
        shutil.copy(file, folder / f"secret name {number:03d}.png")
    return folder


@pytest.fixture(scope="module")
def declared(honest, given, flat, tmp_path_factory):
    """The same set as the honest one, with a holdout that was drawn at random."""
    a, _, c = given
    out = tmp_path_factory.mktemp("runs") / "declared"
    return api.audit(train=a, synthetic=flat, holdout=c, holdout_random=True, out=out, settings=QUICK)


def of(found, name):
    [check] = [check for check in found.gate["checks"] if check["name"] == name and check["subject"] == "images"]
    return check


def split_counts(run):
    return ImageSet.load(run / "ingest").rows.groupby("split")["patient"].nunique().to_dict()


def test_an_honest_set_has_no_flags_and_says_how_large_a_holdout_would_do(honest):
    audit = read_json(honest.folder / "audit" / "audit.json")
    assert audit["copies"]["flagged"] == 0
    assert of(honest, "power")["low"] > 0.4
    assert honest.verdict == "inconclusive"
    assert of(honest, "holdout")["verdict"] == "inconclusive"
    assert "300 patients whom the generator never saw are needed and 30 are there" in " ".join(honest.gate["needed"])
    assert split_counts(honest.folder) == {"audit": 30, "train": 40}


def test_nothing_is_trained_and_no_weights_are_judged(honest):
    assert not (honest.folder / "train").exists()
    assert honest.gate["weights"]["verdict"] == "not judged"
    assert "membership" not in read_json(honest.folder / "audit" / "audit.json")
    assert [step.stage.name for step in honest.steps] == ["ingest", "generate", "audit"]
    assert (honest.folder / "audit" / "pairs.png").exists()


def test_the_imported_images_are_those_that_were_given_and_keep_nothing_of_their_names(honest):
    made = phantoms(25, 11)[0]
    found = ImageSet.load(honest.folder / "generate")
    assert sorted(image.tobytes() for image in np.asarray(found.images)) == sorted(image.tobytes() for image in made)
    assert set(found.rows.columns) == {"id", *(f"finding_{name}" for name in found.classes)}
    assert found.rows["id"].str.fullmatch(r"synthetic-\d{6}").all()


def test_planted_copies_fail(given, tmp_path):
    a, b, c = given
    copies = shutil.copytree(b, tmp_path / "B")
    sources = sorted(a.rglob("*.png"))[:6]
    for file, source in zip(sorted(copies.rglob("*.png")), sources):
        Image.fromarray(np.asarray(Image.open(source))[:, ::-1]).save(file)
    found = api.audit(train=a, synthetic=copies, holdout=c, out=tmp_path / "run", settings=QUICK)
    assert found.verdict == "fail"
    assert read_json(found.folder / "audit" / "audit.json")["copies"]["flagged"] >= 5


@pytest.mark.parametrize("copied", [False, True])
def test_the_training_images_themselves_fail_even_without_a_holdout(given, tmp_path, copied):
    a = given[0]
    b = shutil.copytree(a, tmp_path / "B") if copied else a
    found = api.audit(train=a, synthetic=b, out=tmp_path / "run", settings=QUICK)
    audit = read_json(found.folder / "audit" / "audit.json")
    assert found.verdict == "fail"
    assert audit["copies"]["flagged"] == audit["n"]["synthetic"]


def test_without_a_holdout_the_verdict_is_inconclusive_and_the_nearest_pairs_are_there(given, tmp_path):
    a, b, _ = given
    found = api.audit(train=a, synthetic=b, out=tmp_path / "run", settings=QUICK)
    assert found.verdict == "inconclusive"
    assert any("never saw" in reason for reason in found.gate["images"]["reasons"])
    assert of(found, "power")["verdict"] == "not judged"
    assert (found.folder / "audit" / "pairs.png").exists()


def test_a_holdout_that_is_not_declared_random_calibrates_no_pass_and_a_declared_one_is_held_to_it(honest, declared, given, tmp_path):
    a, b, _ = given
    assert "They were not declared as held out at random" in of(honest, "holdout")["reason"]
    assert of(honest, "split_bias")["n"] > 0
    assert "one_run" not in read_json(honest.folder / "audit" / "audit.json"), "without fair coins ε has no bound"
    assert "not declared" not in of(declared, "holdout")["reason"]
    assert declared.gate["attempt"] == honest.gate["attempt"], "a declaration draws nothing anew"
    assert set(read_json(declared.folder / "audit" / "audit.json")["one_run"]) == {"images"}
    with pytest.raises(InputError, match="--holdout-random says how the holdout was drawn, and there is none"):
        api.audit(train=a, synthetic=b, holdout_random=True, out=tmp_path / "other")


@pytest.mark.slow
def test_a_holdout_from_elsewhere_is_told_from_train_without_any_generator(given, tmp_path):
    """Images of another contrast: nothing that they calibrate is worth anything, whatever was declared."""
    a, b, c = given
    other = shutil.copytree(c, tmp_path / "C")
    for file in other.rglob("*.png"):
        Image.fromarray(np.asarray(Image.open(file)) // 2 + 60).save(file)
    found = api.audit(train=a, synthetic=b, holdout=other, holdout_random=True, out=tmp_path / "run", settings=QUICK)
    assert of(found, "split_bias")["verdict"] == "inconclusive"
    assert "differ by themselves" in " ".join(found.gate["images"]["reasons"])


def test_moving_and_renaming_the_folders_redoes_nothing_and_one_other_image_redoes_what_reads_it(honest, given, tmp_path):
    a, b, c = (shutil.copytree(path, tmp_path / f"moved {path.name}") for path in given)
    run = shutil.copytree(honest.folder, tmp_path / "run")
    again = api.audit(train=a, synthetic=b, holdout=c, out=run, settings=QUICK)
    assert [step.reason for step in again.steps] == [None, None, None]
    file = next(b.rglob("*.png"))
    before = file.read_bytes()
    Image.fromarray(np.asarray(Image.open(file)) // 2).save(file)
    with pytest.raises(InputError, match=r"generate, audit.* would be redone"):
        api.audit(train=a, synthetic=b, holdout=c, out=run, settings=QUICK)
    reasons = {step.stage.name: step.reason for step in api.plan(foreign_config("audit", a, b, c, None, QUICK), out=run)}
    assert reasons["ingest"] is None
    assert reasons["generate"] is not None
    file.write_bytes(before)
    (c / "labels.csv").write_text((c / "labels.csv").read_text() + "\n")
    with pytest.raises(InputError, match="ingest, generate, audit would be redone"):
        api.audit(train=a, synthetic=b, holdout=c, out=run, settings=QUICK)


def test_who_is_in_both_is_left_out_of_the_holdout_with_its_reason(given, tmp_path):
    """A patient of both sides, and a training image under another patient's name, whose other images are doubtful too."""
    a, b, c = given
    holdout = shutil.copytree(c, tmp_path / "C")
    lines = (holdout / "labels.csv").read_text().splitlines()
    known = (a / "labels.csv").read_text().splitlines()[1].split(",")
    first = lines[1].split(",")
    same = [line for line in lines if line.endswith(f",{first[2]}")]
    lines = [line.replace(f",{first[2]}", f",{known[2]}") if line in same else line for line in lines]
    shutil.copy(a / known[0], holdout / known[1] / "twin.png")
    doubtful = next(line.split(",")[2] for line in lines[1:] if line.split(",")[2] != known[2])
    of_doubtful = sum(line.endswith(f",{doubtful}") for line in lines)
    lines.append(f"{known[1]}/twin.png,{known[1]},{doubtful}")
    (holdout / "labels.csv").write_text("\n".join(lines) + "\n")
    config = foreign_config("audit", a, b, holdout, None, QUICK)
    run = api.run(config, out=tmp_path / "run", until="ingest").folder
    reasons = read_json(run / "ingest" / "cohort.json")["quarantined"]
    assert {reason.partition(":")[0]: count for reason, count in reasons.items()} == {
        "in the holdout, but of a patient of the training images": len(same),
        "in the holdout, but a near-duplicate of a training image, or of the patient of one": of_doubtful + 1,
    }
    assert split_counts(run) == {"audit": 28, "train": 40}


def test_files_of_one_name_in_both_folders_are_different_images(tmp_path):
    """Without patient ids an image is named after its file, which says nothing from folder to folder."""
    images, labels, _ = phantoms(70, 3)
    a = pictures(tmp_path / "A", images[:50], labels[:50])
    c = pictures(tmp_path / "C", images[-50:], labels[-50:])
    b = pictures(tmp_path / "B", *phantoms(25, 11)[:2])
    config = foreign_config("audit", a, b, c, None, QUICK)
    rows = ImageSet.load(api.run(config, out=tmp_path / "run", until="ingest").folder / "ingest").rows
    assert rows["id"].is_unique
    assert (rows["split"] == "audit").sum() >= 45


def test_synthetic_images_that_are_in_the_holdout_are_refused(given, tmp_path):
    a, b, c = given
    some = shutil.copytree(b, tmp_path / "B")
    file = next(c.rglob("*.png"))
    shutil.copy(file, some / file.parent.name / "x.png")
    with pytest.raises(InputError, match=r"1 of the synthetic images are images of the holdout"):
        api.audit(train=a, synthetic=some, holdout=c, out=tmp_path / "run", settings=QUICK)


def test_a_release_packs_the_images_says_that_their_maker_is_unknown_and_counts_the_attempt(declared, given, flat, tmp_path, monkeypatch):
    """With constants that so small a set can meet; what was audited is not audited again."""
    a, _, c = given
    for name, value in LENIENT.items():
        monkeypatch.setattr(limits, name, value)
    run = shutil.copytree(declared.folder, tmp_path / "run")
    settings = [*QUICK, "release.licence=CC0-1.0"]
    outcome = api.release(train=a, synthetic=flat, holdout=c, holdout_random=True, out=run, settings=settings)
    assert {step.stage.name for step in outcome.steps if step.reason is not None} == {"review", "release"}
    assert outcome.verdict == "pass"
    out = outcome.folder / "release"
    card = json.loads((out / "data_card.json").read_text())
    assert "not known" in card["how_made"][0]
    assert any("Fidelity, utility and robustness were not measured" in text for text in card["limitations"])
    assert card["attempt"] == 1
    assert read_json(out / "gate.json")["weights"]["verdict"] == "not judged"
    assert read_json(out / "gate.json")["digests"]["weights"] is None
    assert api.verify(out, run=outcome.folder) == []
    text = b"".join(path.read_bytes() for path in out.rglob("*") if path.is_file())
    assert b"secret name" not in text
    assert str(tmp_path).encode() not in text
    made_from = {stage: read_record(outcome.folder / stage)["digest"] for stage in ("ingest", "generate", "audit")}
    assert read_record(out)["identity"]["inputs"] == {"all": fingerprint(made_from)}


def test_halves_of_a_set_that_pass_an_audit_one_after_the_other_are_bounded_together(given, tmp_path, monkeypatch):
    """Whoever reads that a set passes shares it, without any release: the next set of the cohort is judged beside it."""
    a, b, c = given
    for name, value in LENIENT.items():
        monkeypatch.setattr(limits, name, value)
    monkeypatch.setattr(copy_report, "KINDS", power.CORE)
    monkeypatch.setattr(copy_score, "LEAST", 1000)
    files = sorted(b.rglob("*.png"))
    found = []
    for number in range(2):
        half = tmp_path / f"half {number}"
        half.mkdir()
        for file in files[number::2]:
            shutil.copy(file, half / f"{file.parent.name}{file.name}")
        out = tmp_path / f"run {number}"
        found.append(api.audit(train=a, synthetic=half, holdout=c, holdout_random=True, out=out, settings=QUICK))
    first, second = (of(one, "copies") for one in found)
    assert found[0].verdict == "pass"
    assert (first["earlier_recall"], first["earlier_attempt"]) == (None, None)
    assert (second["earlier_recall"], second["earlier_attempt"]) == (first["recall"], 1)


@pytest.mark.slow
def test_a_labelled_set_of_the_size_that_the_gate_asks_for_passes_and_is_evaluated(tmp_path):
    a, b, c = foreign.sets(tmp_path, train=300, holdout=470, synthetic=600)
    settings = [*QUICK, "audit.planted=100"]
    outcome = api.release(train=a, synthetic=b, holdout=c, holdout_random=True, out=tmp_path / "run", settings=settings)
    assert outcome.verdict == "pass"
    evaluation = read_json(outcome.folder / "evaluate" / "evaluation.json")
    assert "still learning after 1,280 images" in evaluation["utility"]["unfit"], "the least of judges, which says so"
    assert evaluation["fidelity"]["two_sample"]["judges"]["plain"]["synthetic"]["n"] > 0
    assert split_counts(outcome.folder)["audit"] >= 300
    assert api.verify(outcome.folder / "release", run=outcome.folder) == []


def test_the_command_ends_with_the_verdict_of_the_images(monkeypatch, capfd, given, tmp_path):
    a, b, _ = given
    done = run_main(monkeypatch, capfd, "audit", "--train", a, "--synthetic", b, "--out", tmp_path / "run", "--set", "audit.planted=20")
    assert done.returncode == 4, done.stderr
    assert "inconclusive" in done.stdout
    assert "pairs.png" in done.stdout
    assert "to do" not in done.stdout.replace("release", "").splitlines()[-1]


def test_pandas_reads_why_images_were_left_out(given, tmp_path):
    """Hostile and broken files cost themselves only, and links are not followed."""
    a, b, c = given
    some = shutil.copytree(b, tmp_path / "B")
    (some / "normal" / "broken.png").write_bytes(next(b.rglob("*.png")).read_bytes()[:90])
    (some / "normal" / "script.png").write_text("import os; os.system('touch /tmp/owned')")
    Image.fromarray(np.full((30, 30), 7, np.uint8)).save(some / "normal" / "flat.png")
    (some / "normal" / "link.png").symlink_to(next(a.rglob("*.png")))
    run = api.run(foreign_config("audit", a, some, c, None, QUICK), out=tmp_path / "run", until="generate").folder
    left_out = pd.read_parquet(run / "generate" / "quarantine.parquet")
    assert {Path(file).name for file in left_out["file"]} == {"broken.png", "script.png", "flat.png", "link.png"}
    assert len(ImageSet.load(run / "generate")) == len(list(b.rglob("*.png")))
    shown = io.StringIO()
    api.show(run, Console(file=shown, width=150))
    assert "synthetic, left out: not judged" in shown.getvalue()
    assert "generate/quarantine.csv lists them" in shown.getvalue()
    assert ImageSet.load(run / "generate").images.shape[-1] == SIDE
