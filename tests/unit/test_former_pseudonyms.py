"""Cohorts of earlier versions, whose ledgers know images by another pseudonym of their values, are known again."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from cohort_runs import files, ingest, pictures, read
from numpy.typing import NDArray
from PIL import Image
from release_run import make_context

from pipeline import artifacts
from pipeline.cohorts import ledger
from pipeline.cohorts.key import project_key
from pipeline.ingest import pseudonym

SPLITS = ("train", "audit", "train", "val", "test")
ATTEMPTS = [{"generated": "a set", "verdict": "fail", "date": "2026-11-25"}]


def shown(root: Path) -> dict[Path, NDArray[np.float32]]:
    return {path: np.asarray(Image.open(path), np.float32)[None] for path in sorted(root.rglob("*.png"))}


def former(values: NDArray[np.float32], key: bytes) -> str:
    """The pseudonym that an earlier version gave an image."""
    return artifacts.keyed(key, "content", str(values.shape), hashlib.sha256(values.tobytes()).digest())[:16]


def settle(cohorts: Path, key: bytes, **settled: object) -> None:
    """A cohort's file as an earlier version wrote it."""
    value = {"key": artifacts.key_mark(key), "patients": {}, "images": {}, "attempts": ATTEMPTS, "seen": [], **settled}
    seal = artifacts.keyed(key, "cohort seal", artifacts.fingerprint(value))
    cohorts.mkdir(exist_ok=True)
    (cohorts / "cohort-0.json").write_text(json.dumps(value | {"seal": seal}))


def earlier(folder: Path, cohorts: Path) -> tuple[Path, pd.Series]:
    """Pictures that an earlier version ingested, and the split that it settled for each, by this version's pseudonym."""
    root, key = pictures(folder / "in"), project_key(folder)
    images = list(shown(root).values())
    splits = [SPLITS[number % len(SPLITS)] for number in range(len(images))]
    settle(cohorts, key, images={former(image, key): split for image, split in zip(images, splits)})
    return root, pd.Series(splits, [pseudonym.of_values(image, key) for image in images])


def test_it_is_known_again_and_by_its_own_pseudonyms_alone_from_then_on(tmp_path: Path, cohorts: Path) -> None:
    root, splits = earlier(tmp_path, cohorts)
    rows = ingest(root, tmp_path / "run", seed=5)
    assert rows.set_index("values")["split"].to_dict() == splits.to_dict()
    [cohort] = [read(path) for path in files(cohorts)]
    assert [attempt.generated for attempt in cohort.attempts] == ["a set"]
    assert {name: cohort.images[name] for name in splits.index} == splits.to_dict()
    assert set(rows["pixels"]) <= cohort.images.keys(), "what was settled stays"
    assert not ledger.knows_formerly(tmp_path)
    again = ingest(root, tmp_path / "again", seed=6)
    assert "pixels" not in again, "all of it is known by what this version makes"
    assert again.set_index("values")["split"].to_dict() == splits.to_dict()
    assert len(files(cohorts)) == 1


def test_former_pseudonyms_are_made_until_every_image_was_met(tmp_path: Path, cohorts: Path) -> None:
    root, splits = earlier(tmp_path, cohorts)
    away = {path: path.read_bytes() for path in sorted(root.rglob("*.png"))[::2]}
    for path in away:
        path.unlink()
    ingest(root, tmp_path / "run", test_share=0.3, val_share=0.2)
    assert ledger.knows_formerly(tmp_path), "half of it is known by former pseudonyms alone"
    for path in root.rglob("*.png"):
        path.unlink()
    for path, content in away.items():
        path.write_bytes(content)
    rows = ingest(root, tmp_path / "other").set_index("values")["split"]
    assert len(rows) == 20
    assert rows.to_dict() == splits[rows.index].to_dict()


def test_a_ledger_of_this_version_has_no_former_pseudonyms_made(tmp_path: Path, cohorts: Path) -> None:
    assert "pixels" not in ingest(pictures(tmp_path / "in"), tmp_path / "run")
    assert not read(files(cohorts)[0]).former
    assert "pixels" not in ingest(pictures(tmp_path / "more", first=100), tmp_path / "other")


def test_a_lost_ledger_that_an_earlier_run_folder_settles_anew_counts_as_one_of_its_version(tmp_path: Path, cohorts: Path) -> None:
    root, key = pictures(tmp_path / "in"), project_key(tmp_path)
    rows = ingest(root, tmp_path / "run").reset_index()
    by_values = {pseudonym.of_values(image, key): former(image, key) for image in shown(root).values()}
    old = rows.assign(pixels=rows["values"].map(by_values), patient=rows["values"].map(by_values)).drop(columns="values")
    old.to_parquet(tmp_path / "run" / "ingest" / "rows.parquet")
    files(cohorts)[0].unlink()
    ledger.restore(tmp_path / "run", stands=False)
    assert ledger.knows_formerly(tmp_path)
    again = ingest(root, tmp_path / "other", seed=9)
    assert again.set_index("values")["split"].to_dict() == rows.set_index("values")["split"].to_dict()


@pytest.mark.parametrize("all_seen", [True, False])
def test_attempts_on_what_a_foreign_generator_saw_go_on_counting(tmp_path: Path, cohorts: Path, all_seen: bool) -> None:
    ctx = make_context(tmp_path / "run")
    folder = tmp_path / "run" / "ingest"
    facts = artifacts.read_object(folder / "cohort.json")
    artifacts.write_json(folder / "cohort.json", facts | {"foreign": True, "unit": "image", "source": {"kind": "pictures"}})
    rows = pd.read_parquet(folder / "rows.parquet")
    names = [f"{place:016x}" for place in range(len(rows))]
    rows = rows.assign(values=[f"v{name}" for name in names], pixels=names, patient=[f"v{name}" for name in names])
    rows.to_parquet(folder / "rows.parquet")
    ctx.config.__dict__["generate"] = ctx.config.generate.model_copy(update={"import_from": tmp_path})
    ctx.config.__dict__["train"] = None
    trained = rows.loc[rows["split"] == "train", "pixels"].tolist()
    settle(cohorts, project_key(tmp_path), seen=sorted(trained if all_seen else [*trained, "another"]))
    assert ledger.count_attempt(ctx).attempt == 2
    assert ledger.knows_formerly(tmp_path) != all_seen
