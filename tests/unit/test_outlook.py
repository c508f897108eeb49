"""What the gate will need is told from counts, by the gate's own bounds; a cohort that cannot pass stops after ingest, and says so."""

import json
import re
from dataclasses import replace

import pytest
from cohort_runs import ingest, message, pictures
from rich.console import Console
from stage_stubs import stub

from pipeline import api, outlook, split_table, stages
from pipeline.config import Config, load_config
from pipeline.errors import NotEnough
from pipeline.images import ImageSet
from pipeline.ingest import class_folders, split
from pipeline.progress import Reporter
from pipeline.runner import run_stages
from privacy import bounds, limits
from privacy.gate import copy_bounds
from tests.unit.command import run_main

SURE = limits.confidence(1)
FOREIGN = {"source": "pictures", "path": "A", "classes": ["all"], "unlabelled": True}


def config(**sections):
    base = {"ingest": {"source": "phantom"}, "train": {"images": 1}, "generate": {"per_class": 600}}
    return Config.model_validate({"name": "x"} | {name: base.get(name, {}) | sections.get(name, {}) for name in {*base, *sections}})


def facts(train, audit, unit="patient", classes=("a", "b")):
    counts = {name: dict.fromkeys(classes, 3) for name in split_table.SPLITS}
    counts["train"]["b"] = 2
    return {"unit": unit, "units": {"train": train, "audit": audit, "val": 50, "test": 50}, "classes": list(classes), "counts": counts}


def test_enough_of_everything_is_no_shortage():
    assert outlook.expected(config(), "patient", 1200, 2).shortages() == []
    assert outlook.found(config(), facts(400, 300)).shortages() == []


def test_the_sealed_are_the_shares_of_the_whole():
    # 1200 patients, of whom .65 are not val or test, and .43 of these are sealed
    assert outlook.expected(config(), "patient", 1200, 2).sealed == round(1200 * 0.65 * 0.43)
    # of a published split it is .43 of train alone
    assert outlook.expected(config(), "image", 780, 2, train=546).sealed == round(546 * 0.43)


def test_too_few_sealed_patients_say_how_many_would_do():
    [short] = outlook.expected(config(), "patient", 1000, 2).shortages()
    assert "300 sealed patients are needed, and about 280 will be" in short
    enough = int(re.search(r": ([\d,]+) patients in all", short)[1].replace(",", ""))
    assert outlook.expected(config(), "patient", enough, 2).sealed >= limits.MIN_HOLDOUT
    assert outlook.expected(config(), "patient", enough - 5, 2).sealed < limits.MIN_HOLDOUT
    share = float(re.search(r"ingest.audit_share=(0\.\d+)", short)[1])
    assert outlook.expected(config(ingest={"audit_share": share}), "patient", 1000, 2).shortages() == []


def test_after_the_split_the_sealed_are_counted():
    assert outlook.found(config(), facts(400, 300)).shortages() == []
    [short] = outlook.found(config(), facts(400, 299)).shortages()
    assert "299 are" in short
    assert "about" not in short


@pytest.mark.parametrize("unit", ["patient", "image"])
def test_near_duplicates_are_told_of_where_they_made_those_that_are_there_fewer(unit):
    counted = facts(200, 150, unit) | {"near_duplicates": {f"groups_across_{unit}s": 3}}
    [short] = outlook.found(config(), counted).shortages()
    assert f"{unit}s in all, near-duplicates counting as one, would do at the present" in short
    [short] = outlook.found(config(), facts(200, 150, unit) | {"near_duplicates": {f"groups_across_{unit}s": 0}}).shortages()
    assert f"{unit}s in all would do at the present" in short


def test_what_is_called_too_few_images_cannot_pass_the_gates_own_bound():
    """The best that can be: no image is flagged, and every planted copy is found."""
    planted = limits.REQUIRED_TIMES * config().audit.planted
    recall = bounds.worst_recall({str(kind): (planted, planted) for kind in range(5)}, (1 - SURE) / 2)[1]

    def passes(images):
        return copy_bounds(0, images, images, recall, (None, None), 1 - SURE)["high"] <= limits.MAX_COPY_RATE

    first = next(count for count in range(1, 5000) if passes(count))
    one_class = {"classes": 1}
    assert outlook.expected(config(generate={"per_class": first}), "patient", 2000, **one_class).shortages() == []
    [short] = outlook.expected(config(generate={"per_class": first - 1}), "patient", 2000, **one_class).shortages()
    assert f"{first:,} distinct synthetic images are needed, and {first - 1:,} will be made" in short
    each = int(re.search(r"per_class=(\d+)", short)[1])
    assert outlook.expected(config(generate={"per_class": each}), "patient", 2000, **one_class).shortages() == []


def test_of_a_plan_its_counts_are_to_be_raised_and_would_do():
    def short(count):
        ask = config()
        plan = type(ask.generate).model_validate({"plan": [{"findings": ["a"], "count": count}]})
        return outlook.expected(ask.model_copy(update={"generate": plan}), "patient", 2000, 2).shortages()

    [said] = short(100)
    assert "per_class" not in said, "which excludes a plan"
    enough = int(re.search(r"raise the counts of generate\.plan to ([\d,]+) in all", said)[1].replace(",", ""))
    assert short(enough) == []


@pytest.mark.parametrize("pixels", [28, 64])
def test_the_fewest_planted_copies_that_a_configuration_allows_can_show_the_recall(pixels):
    planted = limits.REQUIRED_TIMES * 20
    with pytest.raises(ValueError, match="planted"):
        config(audit={"planted": 19})
    kinds = dict.fromkeys(limits.required_kinds(pixels), (planted, planted))
    assert bounds.worst_recall(kinds, (1 - SURE) / 2)[1] >= limits.MIN_RECALL


def test_a_class_that_cannot_be_split_is_named():
    [short] = outlook.expected(config(), "patient", 2000, {"a": 1993, "b": 7}).shortages()
    assert "8 patients of every class are needed, and b has 7" in short
    assert class_folders.LEAST == split.MIN_PATIENTS * 4


def test_what_nobody_has_counted_is_no_shortage():
    ahead = outlook.expected(config(), "patient", None, None)
    assert ahead.shortages() == []
    assert any("not known yet" in need for need in ahead.needs())


@pytest.mark.parametrize(("name", "short"), [("quickstart", False), ("overfit_demo", True)])
def test_the_shipped_configurations_say_what_they_are_for(name, short):
    loaded = load_config(name)
    ahead = outlook.expected(loaded, "patient", loaded.ingest.phantom_patients, 5)
    assert bool(ahead.shortages()) == short == loaded.anyway


def test_the_rarest_class_says_how_many_reach_training():
    assert split_table.rarest(facts(400, 300)).startswith("2 of your 11 b images reach training")
    one = facts(400, 300) | {"counts": {name: {"a": 9, "b": int(name == "train")} for name in split_table.SPLITS}}
    assert split_table.rarest(one).startswith("1 of your 1 b image reaches training")


def test_the_table_has_images_and_patients_of_every_split():
    people = {name: {"a": 2, "b": 1} for name in split_table.SPLITS}
    table = split_table.splits(facts(400, 300) | {"people": people})
    assert [str(cell) for cell in table.columns[1].cells] == ["3 (2)", "2 (1)"]
    without = split_table.splits(facts(400, 300, unit="image") | {"people": people})
    assert [str(cell) for cell in without.columns[1].cells] == ["3", "2"]


def test_a_small_cohort_stops_after_ingest_with_the_advice(tmp_path, monkeypatch, capfd):
    root = pictures(tmp_path / "source", 60)
    file = tmp_path / "c.yaml"
    section = {"source": "pictures", "path": str(root), "classes": ["a", "b"], "burned_in": "declared"}
    file.write_text(json.dumps({"name": "c", "ingest": section, "train": {"images": 1}, "generate": {"per_class": 600}}))
    process = run_main(monkeypatch, capfd, "run", file, "--out", tmp_path / "run")
    assert process.returncode == 4
    assert process.stderr.count("\n") == 1
    assert "300 sealed images are needed" in process.stderr
    assert "--anyway" in process.stderr
    assert "reach training" in process.stdout
    assert (tmp_path / "run" / "ingest" / "record.json").exists()
    assert not (tmp_path / "run" / "train").exists()
    again = run_main(monkeypatch, capfd, "run", file, "--out", tmp_path / "run")
    assert (again.returncode, again.stderr) == (4, process.stderr)
    assert run_main(monkeypatch, capfd, "run", file, "--out", tmp_path / "run", "--until", "ingest").returncode == 0
    planned = run_main(monkeypatch, capfd, "plan", file, "--out", tmp_path / "run")
    assert "300 sealed images are needed" in " ".join(planned.stdout.split())


def test_images_and_patients_are_counted_by_class_and_split(tmp_path):
    root = pictures(tmp_path / "source", 48)
    lines = ["file,label,patient_id", *(f"{'ab'[number % 2]}/{number:03d}.png,{'ab'[number % 2]},p{number // 4}" for number in range(48))]
    (root / "labels.csv").write_text("\n".join(lines))
    ingest(root, tmp_path / "run", val_share=0.25, test_share=0.25)
    found = json.loads((tmp_path / "run" / "ingest" / "cohort.json").read_text())
    rows = ImageSet.load(tmp_path / "run" / "ingest").rows
    for name in split_table.SPLITS:
        for label in ("a", "b"):
            there = rows[(rows["split"] == name) & (rows[f"finding_{label}"] == 1)]
            assert found["counts"][name][label] == len(there)
            assert found["people"][name][label] == there["patient"].nunique()
    # each of the twelve patients has two images of each class
    assert sum(found["people"][name]["a"] for name in split_table.SPLITS) == 12


def small(ctx):
    """A stage that takes no time; the ingest of a cohort that is too small."""
    if ctx.out.name == "ingest":
        (ctx.out / "cohort.json").write_text(json.dumps(facts(30, 20)))
    return stub(ctx)


@pytest.mark.parametrize(
    ("changes", "until", "goes_on"),
    [
        ({}, None, False),
        ({}, "audit", False),
        ({}, "generate", True),  # no verdict is asked for
        ({"anyway": True}, None, True),
        ({"ingest": {"source": "phantom", "replication": True}}, None, True),  # never released anyway
        ({"train": None, "ingest": FOREIGN, "generate": {"import_from": "B"}}, None, True),  # its images are there, and may fail
    ],
)
def test_who_asks_for_a_verdict_that_cannot_be_is_stopped(tmp_path, monkeypatch, changes, until, goes_on):
    monkeypatch.chdir(tmp_path)
    for name in ("A", "B"):
        pictures(tmp_path / name, 24)
    monkeypatch.setattr("pipeline.imported.run", small)
    monkeypatch.setattr(stages, "STAGES", tuple(replace(stage, function="test_outlook:small") for stage in stages.STAGES))
    base = {"name": "x", "ingest": {"source": "phantom"}, "train": {"images": 1}, "generate": {"per_class": 600}}
    chosen = Config.model_validate(base | changes)
    reporter = Reporter(tmp_path / "log.jsonl", Console(quiet=True))
    if goes_on:
        run_stages(chosen, tmp_path / "run", reporter, until=until)
        assert (tmp_path / "run" / (until or "release") / "record.json").exists()
    else:
        with pytest.raises(NotEnough) as error:
            run_stages(chosen, tmp_path / "run", reporter, until=until)
        assert "inconclusive at best" in message(error)
        assert (tmp_path / "run" / "calls.txt").read_text().split() == ["ingest"]


def test_an_outlook_of_an_ingest_that_no_longer_fits_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(stages, "STAGES", tuple(replace(stage, function="test_outlook:small") for stage in stages.STAGES))
    base = {"name": "x", "ingest": {"source": "phantom"}, "train": {"images": 1}, "generate": {"per_class": 600}}
    run_stages(Config.model_validate(base), tmp_path / "run", Reporter(tmp_path / "log.jsonl", Console(quiet=True)), until="ingest")
    assert api.outlook(Config.model_validate(base), out=tmp_path / "run")[1] == ()
    other = Config.model_validate(base | {"ingest": {"source": "phantom", "audit_share": 0.5}})
    [note] = api.outlook(other, out=tmp_path / "run")[1]
    assert "counted by the earlier ingest, which is to run again" in note
