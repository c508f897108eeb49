"""What the audit has a run's own model draw: images of reports, which it then looks for their patients in."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from trainings import cohort, context, renamed

from pipeline import audit, regenerate, train
from pipeline.artifacts import write_json
from pipeline.context import Context
from privacy import prompts


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> Context:
    """A run whose model reads texts; each patient's is in words that many have, and in an order that nobody else's has."""
    rng, words = np.random.default_rng(0), np.array(["small", "left", "lung", "clear", "heart", "large"])
    images = cohort()
    texts = [" ".join(words[rng.permutation(6)]) for _ in range(len(images))]
    ctx = context(tmp_path_factory.mktemp("read"), renamed(images, attribute_text=texts), text=True, widths=[16])
    assert ctx.config.train is not None
    short = ctx.config.train.model_copy(update={"images": 32})  # what it draws hangs on the report after two steps
    ctx = dataclasses.replace(ctx, config=ctx.config.model_copy(update={"train": short}))
    train.run(ctx)
    return ctx


def test_what_reports_draw_hangs_on_each_report_alone(read: Context) -> None:
    everyone = audit.ImageSet.load(read.folder("ingest"))
    ours, theirs = audit._side(everyone, "train"), audit._side(everyone, "audit")
    both = regenerate.drawn(read, "cpu", [ours, theirs])
    assert [made.shape for made in both] == [ours.images.shape, theirs.images.shape]
    few = regenerate.drawn(read, "cpu", [ours.take(np.arange(3))])[0].astype(int)
    assert np.abs(few - both[0][:3]).max() <= 1
    ours.asked["text"][:] = ours.asked["text"][::-1]  # type: ignore[index]
    assert (regenerate.drawn(read, "cpu", [ours])[0] != both[0]).any()


def test_the_audit_measures_whether_reports_draw_their_patients(read: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    everyone = audit.ImageSet.load(read.folder("ingest"))
    sides = audit._side(everyone, "train"), audit._side(everyone, "audit")
    assert audit._prompts(read, *sides, "cpu") == {}, "too few"
    monkeypatch.setattr(prompts, "LEAST", 3)
    found = audit._prompts(read, *sides, "cpu")
    assert 3 <= found["pairs"] <= 15
    assert set(found) == {"pairs", "train", "audit", "difference", "p"}
    assert found == audit._prompts(read, *sides, "cpu")


def test_a_model_that_reads_no_text_is_not_asked(tmp_path: Path) -> None:
    ctx = context(tmp_path, cohort())
    write_json(ctx.out / "model.json", {"classes": ["healthy", "ill"]})
    everyone = audit.ImageSet.load(ctx.folder("ingest"))
    assert audit._prompts(ctx, audit._side(everyone, "train"), audit._side(everyone, "audit"), "cpu") == {}
