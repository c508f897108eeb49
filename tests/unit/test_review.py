"""The page that a person looks at before images leave: the pixels that it names, beside each other, and private."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pipeline import artifacts, review
from pipeline.audit import PAIRS
from pipeline.config import Config
from pipeline.context import Context
from pipeline.errors import InputError
from pipeline.images import ImageSet
from pipeline.progress import Reporter, silent
from pipeline.stages import BY_NAME
from pipeline.stress import FAILURES, failures

CLASSES = ("left", "right")


def images(name: str, n: int, splits: tuple[str, ...] = (), channels: int = 1) -> ImageSet:
    pixels = np.random.default_rng(len(name)).integers(0, 256, (n, channels, 12, 12), np.uint8)
    labels = np.arange(n) % len(CLASSES)
    rows = pd.DataFrame({"id": [f"{name}{i}" for i in range(n)], **{f"finding_{c}": labels == k for k, c in enumerate(CLASSES)}})
    rows[[f"finding_{c}" for c in CLASSES]] = rows[[f"finding_{c}" for c in CLASSES]].astype(np.int8)
    return ImageSet(pixels, rows.assign(split=np.resize(splits, n)) if splits else rows)


def made_run(folder: Path, channels: int = 1) -> Context:
    real, made = images("real", 40, ("train", "audit", "val", "test", "audit"), channels), images("made", 20, (), channels)
    for name, part in (("ingest", real), ("generate", made)):
        part.save(folder / name)
    artifacts.write_json(folder / "ingest" / "cohort.json", {"unit": "patient"})
    train = real.split("train").rows["id"].tolist()
    rows = [
        {"synthetic": f"made{i}", "training": train[-i], "distance": 0.1 + i, "p": 0.01, "flagged": i == 1, "undecided": i == 2}
        for i in range(3)
    ]
    wrong = [{"image": "real3", "class": "right", "called": "left", "probability": 0.93}]
    for stage, file, value in (
        ("audit", PAIRS, {"pairs": rows, "twins": [{"sealed": "real1", "real": "real0"}]}),
        ("stress", FAILURES, {"failures": wrong}),
    ):
        (folder / stage).mkdir()
        artifacts.write_json(folder / stage / file, value)
    (folder / "review").mkdir()
    settings = {"ingest": {"source": "phantom"}, "train": {"images": 1}, "generate": {"per_class": 10}, "review": {"images": 3}}
    config = Config.model_validate({"name": "two", **settings})
    records: dict[str, Any] = {stage: {} for stage in ("ingest", "generate", "audit", "stress")}
    return Context(config, folder, folder / "review", Reporter(folder / "log.jsonl", silent()), records)


def shown(page: str, alt: str) -> list[np.ndarray]:
    """The pictures whose text begins so."""
    found = re.findall(rf'<img alt="{alt}[^"]*" src="data:image/png;base64,([^"]+)">', page)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(one)))) for one in found]


def page_of(ctx: Context) -> str:
    review.run(ctx)
    return (ctx.out / review.PAGE).read_text()


def test_every_pair_shows_the_two_images_that_the_audit_names(tmp_path: Path) -> None:
    ctx = made_run(tmp_path)
    page = page_of(ctx)
    real, made = ImageSet.load(tmp_path / "ingest"), ImageSet.load(tmp_path / "generate")
    train = np.asarray(real.split("train").images)
    for seen, expected in ((shown(page, "synthetic image of pair"), made.images[:3]), (shown(page, "training image"), train[[0, -1, -2]])):
        np.testing.assert_array_equal(seen, np.asarray(expected)[:, 0])
    assert page.count('<figure class="marked">') == 2
    assert "Marked: 1, called a copy by the audit. Undecided: 1," in page


def test_twins_among_the_real_images_are_shown_with_what_to_do(tmp_path: Path) -> None:
    page = page_of(made_run(tmp_path))
    real = np.asarray(ImageSet.load(tmp_path / "ingest").images)
    for alt, number in (("sealed image 1", 1), ("its twin", 0)):
        np.testing.assert_array_equal(shown(page, alt)[0], real[number][0])
    assert "1 sealed image is as near" in page
    assert "patient_id" in page


def test_both_sides_show_images_of_their_class_and_no_more_than_were_asked_for(tmp_path: Path) -> None:
    page = page_of(made_run(tmp_path))
    real, made = ImageSet.load(tmp_path / "ingest").split("audit"), ImageSet.load(tmp_path / "generate")
    for k, name in enumerate(CLASSES):
        for side, of in (("sealed", real), ("synthetic", made)):
            known = {np.asarray(image).tobytes() for image in of.images[of.labels == k]}
            seen = shown(page, f"{side} {name}")
            assert len(seen) == 3
            assert all(image.tobytes() in known for image in seen)


def test_failures_show_the_image_and_what_it_was_called(tmp_path: Path) -> None:
    ctx = made_run(tmp_path)
    page = page_of(ctx)
    np.testing.assert_array_equal(shown(page, "right called left")[0], ImageSet.load(tmp_path / "ingest").images[3][0])
    assert "called left, 0.930" in page


def test_colour_stays(tmp_path: Path) -> None:
    ctx = made_run(tmp_path, channels=3)
    page = page_of(ctx)
    made = np.asarray(ImageSet.load(tmp_path / "generate").images)
    np.testing.assert_array_equal(shown(page, "synthetic image of pair 1")[0], made[0].transpose(1, 2, 0))


def test_the_page_stands_alone_and_says_that_it_is_patient_data(tmp_path: Path) -> None:
    page = page_of(made_run(tmp_path))
    assert "Patient data: for local eyes only" in page
    assert "Distance: 1 minus the correlation" in page
    assert re.search(r"""(?:src|href)\s*=\s*["'](?!data:)""", page) is None
    assert "<script" not in page
    assert "synthetic, not for diagnosis" not in page
    assert BY_NAME["review"].private


def test_of_images_of_nobody_no_patient_is_called_unseen(tmp_path: Path) -> None:
    ctx = made_run(tmp_path)
    assert "nor others of their patients" in page_of(ctx)
    artifacts.write_json(tmp_path / "ingest" / "cohort.json", {"unit": "image"})
    assert "whose they are is not known" in page_of(ctx)


def test_a_set_that_no_classifier_judged_has_no_failures(tmp_path: Path) -> None:
    ctx = made_run(tmp_path)
    without = Context(**{**vars(ctx), "records": {"ingest": {}, "generate": {}, "audit": {}}})
    assert "Failures of the classifiers" not in page_of(without)


@pytest.mark.parametrize(("stage", "file"), [("audit", PAIRS), ("stress", FAILURES)])
def test_a_damaged_result_is_named(tmp_path: Path, stage: str, file: str) -> None:
    ctx = made_run(tmp_path)
    gone = [{"synthetic": "gone", "image": "gone"}]
    lists = [{"pairs": gone, "twins": [], "failures": gone}, {"pairs": [], "twins": [{"sealed": "gone"}], "failures": gone}]
    for damaged in ('{"a": 1}', "[1]", '{"pairs": [1], "failures": [1]}', *map(json.dumps, lists)):
        (tmp_path / stage / file).write_text(damaged)
        with pytest.raises(InputError, match=f"{stage}/{file}"):
            review.run(ctx)


def test_the_surest_errors_of_each_class_come_first() -> None:
    test = images("real", 8)
    p = np.full((8, 2), 0.5)
    p[:, 0] = [0.9, 0.6, 0.3, 0.99, 0.1, 0.2, 0.9, 0.1]
    p[:, 1] = 1 - p[:, 0]
    found = failures(test, p, count=2)
    assert [(row["image"], row["class"], row["called"]) for row in found] == [
        ("real4", "left", "right"),
        ("real2", "left", "right"),
        ("real3", "right", "left"),
        ("real1", "right", "left"),
    ]
    assert found[0]["probability"] == 0.9
