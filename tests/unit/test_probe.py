"""What a plan says of time, memory and disk: every stage has its line, and what can be counted is counted."""

import pytest
import torch
from cohort_runs import ingest, pictures

from pipeline import probe, probe_search
from pipeline.api import cost
from pipeline.conditions import KNOTS
from pipeline.config import Config
from pipeline.errors import InputError
from pipeline.stages import flow
from privacy.copy_report import searched
from privacy.power import REGENERATED
from tests.benchmarks.plan_accuracy import measured, table

TINY = {
    "name": "tiny",
    "ingest": {"source": "phantom", "phantom_patients": 200, "size": 16},
    "train": {"images": 64, "batch": 8, "widths": [8], "blocks": 1, "attention": []},
    "generate": {"per_class": 10, "steps": 2, "batch": 10},
    "audit": {"planted": 20},
    "evaluate": {"seeds": 2, "classifier_images": 256},
}


def tiny(**sections):
    return Config.model_validate(TINY | {name: TINY.get(name, {}) | section for name, section in sections.items()})


def test_the_splits_are_the_shares_of_the_images():
    size = probe.expected(tiny(), None, 1000, 5)
    assert sum(size.images.values()) == pytest.approx(1000, abs=2)
    assert size.images["test"] == 200
    assert size.images["audit"] == pytest.approx(650 * 0.43, abs=1)
    assert (size.channels, size.classes) == (1, 5)


def test_a_finished_ingest_is_counted():
    counts = {name: {"a": 3, "b": number} for number, name in enumerate(("train", "audit", "val", "test"))}
    size = probe.expected(tiny(), {"counts": counts, "channels": 3, "classes": ["a", "b"]}, None, None)
    assert (size.images["train"], size.images["test"], size.channels, size.classes) == (3, 6, 3, 2)


def test_what_is_not_known_is_said():
    with pytest.raises(InputError, match="--until ingest"):
        probe.expected(tiny(), None, None, 2)


def test_every_stage_has_a_cost_and_nothing_is_left_behind(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SYNTHCOHORT_WORKERS", "1")
    monkeypatch.setattr(probe, "SECONDS", 0.0)
    monkeypatch.setattr(probe, "FILES", 12)
    config = tiny(shadows={"trainings": 4})
    costs = cost(config)
    assert sorted(one.stage for one in costs) == sorted(stage.name for stage in flow(config))
    assert all(one.seconds > 0 and one.memory > 0 and one.disk > 0 for one in costs)
    by_stage = {one.stage: one for one in costs}
    assert by_stage["shadows"].seconds == pytest.approx(4 * (by_stage["train"].seconds + by_stage["generate"].seconds))
    assert by_stage["generate"].disk == 50 * (16 * 16 + probe.ROW)
    assert list(tmp_path.iterdir()) == []
    assert "| all |" in table(costs, tmp_path, 10**9)


@pytest.mark.parametrize("settings", [{"minutes": 7}, {"minutes": 7, "compile": True, "dropout": 0.1, "augment": 0.1}])
def test_minutes_cost_minutes_whatever_the_machine_makes_of_them(monkeypatch, settings):
    monkeypatch.setattr(probe, "SECONDS", 0.0)
    config = tiny(train={"images": None} | settings, shadows={"trainings": 4})
    train, _, shadows = probe._train_and_generate(config, probe.expected(config, None, 200, 5), 16 * 16)
    assert train.seconds == pytest.approx(420, abs=10)
    assert not train.at_most
    assert shadows.seconds == pytest.approx(4 * 420, rel=0.1)


@pytest.mark.parametrize(("train", "audit", "side"), [(1000, 500, 32), (70_000, 30_000, 64), (70_000, 30_000, 512)])
def test_a_search_is_scaled_from_a_bounded_one(monkeypatch, train, audit, side):
    tried, config = [], tiny(ingest={"size": side})

    def searching(references, sealed, channels, at):
        tried.append((references, at))
        return 1e-4 * references + 1e-8 * references**2, 0.02 + 1e-6 * references, 1.25

    monkeypatch.setattr(probe_search, "searching", searching)
    generate = probe.Cost("generate", 10.0, 1, 1)
    found = probe._audit(config, probe.Size({"train": train, "audit": audit, "val": 9, "test": 9}, 1, 5), generate)
    real, area = train + audit, (max(side, 64) / 64) ** 2
    queries = searched(50, audit, 20, regenerated=True)
    looked = min(real, probe_search.REFERENCES)
    each = (0.02 + 1e-6 * looked) * area + 1e-6 * (real - looked)
    linear = 1e-4 * real if real > looked else 1e-4 * real + 1e-8 * real**2
    expected = linear * area + (1e-8 * real**2 if real > looked else 0) + each * queries
    anew = 20 * len(REGENERATED) * 10.0 / 50
    assert found.seconds == pytest.approx(5 + 1.25 * expected + anew)
    assert all(references <= probe_search.REFERENCES and at <= probe_search.SIDE for references, at in tried)
    assert found.memory > 2 * max(0, real - looked) * side**2


def test_a_search_holds_no_more_images_than_it_is_asked_for(monkeypatch):
    held = []
    right = probe_search._noise
    monkeypatch.setattr(probe_search, "_noise", lambda count, *given: held.append(count) or right(count, *given))
    begun, each, strain = probe_search.searching(100, 30, 1, 16)
    assert begun + each > 0
    assert 1 <= strain <= torch.get_num_threads()
    assert sum(held) == 100 + 20 + 160


def test_a_model_is_timed_with_all_that_it_will_be_told():
    several = {"ingest": {"several_findings": True, "attributes": {"severity": "number", "side": ["left", "right"]}, "report": "report"}}
    told = several | {"train": {"attributes": ["severity", "side", "sex"], "text": True}}
    conditions = probe._conditions(tiny(**told), 4)
    assert conditions.sizes == (2, 2, 2, 2, KNOTS, 2, 2)
    assert conditions.names[-1] == "text"
    assert probe._conditions(tiny(), 4).sizes == (4,)
    train, generate = probe._train_and_generate(tiny(**told), probe.expected(tiny(**told), None, 200, 4), 16 * 16)
    assert min(train.seconds, generate.seconds) > 0


def test_ones_own_files_are_read_and_no_model_of_them_is_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("SYNTHCOHORT_WORKERS", "1")
    root = pictures(tmp_path / "data", 24)
    before = {path: path.read_bytes() for path in root.rglob("*.png")}
    read = probe._reading(tiny(ingest={"source": "pictures", "path": root, "classes": ["a", "b"]}).ingest, root, ["a/000.png", "b/001.png"])
    assert read > 0
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before


def test_the_benchmark_compares_with_what_a_stage_took(tmp_path):
    root = pictures(tmp_path / "data", 40)
    ingest(root, tmp_path / "run")
    seconds, size = measured(tmp_path / "run", "ingest")
    assert seconds > 0
    assert size == sum(path.stat().st_size for path in (tmp_path / "run" / "ingest").iterdir())
    costs = [probe.Cost("ingest", 2 * seconds, 10**9, 3 * size), probe.Cost("train", 60, 2 * 10**9, 1, at_most=True)]
    text = table(costs, tmp_path / "run", 10**9)
    assert text.splitlines()[2].split("|")[4].strip() == "2.00"
    assert text.splitlines()[2].split("|")[7].strip() == "3.00"
    assert "| train |" not in text
    assert "ratio 2.00" in text


def test_a_foreign_set_and_volumes_have_no_probe(tmp_path):
    volumes = Config.model_validate(TINY | {"ingest": {"source": "nifti", "path": str(tmp_path), "classes": ["a", "b"]}})
    foreign = {"name": "x", "ingest": {"source": "pictures", "path": "A", "classes": ["all"], "unlabelled": True}}
    for config in (volumes, Config.model_validate(foreign | {"generate": {"import_from": "B"}})):
        with pytest.raises(InputError, match="leave it out"):
            cost(config)


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.2, "1 s"), (80, "80 s"), (100, "2 min"), (5000, "83 min"), (7200, "2.0 h"), (104_400, "29.0 h")]
)
def test_a_time_in_words(seconds, words):
    assert probe.told(seconds) == words


def test_bytes_in_words():
    assert (probe.size_of(1), probe.size_of(3_000_000), probe.size_of(2_500_000_000)) == ("1 MB", "3 MB", "2.5 GB")
