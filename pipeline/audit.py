"""The audit stage: attacks on the generated images and on the weights, against patients whom the generator never saw."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from evaluation.data import Labelled
from pipeline import runtime
from pipeline.artifacts import write_json
from pipeline.cohorts.ledger import count_attempt
from pipeline.context import Context
from pipeline.diffusion.conditioning import Condition
from pipeline.errors import InputError
from pipeline.images import ImageSet, unit_of
from pipeline.release.results import interval
from pipeline.train import load_denoiser
from privacy import audit, power


def run(ctx: Context) -> dict[str, Any]:
    """Search for copies, measure the search's power, attack the weights; writes ``audit.json`` and ``pairs.png``."""
    runtime.limit_threads()
    runtime.reuse_memory()
    section, device, seed = ctx.config.audit, runtime.device(), ctx.config.seed
    everyone = ImageSet.load(ctx.folder("ingest"))
    synthetic = ImageSet.load(ctx.folder("generate"))
    images = np.asarray(synthetic.images)
    train, audited = (_side(everyone, name) for name in ("train", "audit"))
    if len(audited.images) < 20 or len(images) < 20:
        raise InputError(
            f"an audit needs 20 sealed and 20 generated images at least, there are {len(audited.images)} and {len(images)}: "
            "raise ingest.audit_share or generate.per_class"
        )
    total = len(images) + section.planted * len(power.CORE + power.FURTHER)
    with ctx.reporter.progress("searching for copies", total) as advance:
        found = audit.find_copies(
            train,
            audited,
            images,
            planted=section.planted,
            rng=np.random.default_rng(runtime.derive_seed(seed, "planted copies")),
            device=device,
            report=advance,
        )
    denoiser, model = load_denoiser(ctx.folder("train"), device)
    with runtime.autocast(device):
        attacked = audit.attack_membership(
            denoiser,
            train,
            audited,
            condition=lambda side: Condition.of_classes(side.labels, len(model["classes"])),
            draws=section.membership_draws,
            rng=np.random.default_rng(runtime.derive_seed(seed, "membership")),
            device=device,
        )
    unit = unit_of(ctx.folder("ingest"))
    report = audit.summarise(
        found,
        attacked,
        unit=unit,
        n_train=len(train.images),
        n_audit=len(audited.images),
        holdout_units=len(np.unique(audited.groups)),
    )
    count_attempt(ctx)  # before anybody can read what came of it
    write_json(ctx.out / "audit.json", report)
    pair_sheet(images, train.images, found, ctx.out / "pairs.png")
    return {
        "flagged_as_copies": f"{report['copies']['flagged']} of {len(images)}",
        "search_recall_at_least": round(found.recall_low, 3),
        "membership_auc": interval(report["membership"]["auc"]),
    }


def _side(everyone: ImageSet, split: str) -> Labelled:
    patients = np.unique(everyone.rows["patient"].to_numpy(), return_inverse=True)[1]
    mask = (everyone.rows["split"] == split).to_numpy()
    return Labelled(np.asarray(everyone.images[mask]), everyone.findings[mask], patients[mask].astype(np.int64))


def pair_sheet(synthetic: np.ndarray, train: np.ndarray, found: audit.CopyReport, path: Path, pairs: int = 24) -> None:
    """The nearest pairs as a picture for local eyes: each synthetic image (left) beside the training image it is nearest to."""
    order = np.argsort(found.matches.distance, kind="stable")[:pairs]
    side = max(96, synthetic.shape[-1])
    columns, margin, caption = 4, 8, 14
    rows = -(-len(order) // columns)
    sheet = Image.new("RGB", (columns * (2 * side + 3 * margin), rows * (side + caption + margin) + 40), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((margin, 6), "PATIENT DATA - for local eyes only. Nearest pairs: synthetic (left), training image (right).", fill="black")
    draw.text((margin, 20), f"distance = 1 - aligned NCC; flagged as a copy below {found.threshold:.4f} (red)", fill="black")
    for number, index in enumerate(order):
        x = number % columns * (2 * side + 3 * margin) + margin
        y = number // columns * (side + caption + margin) + 40
        for offset, picture in ((0, synthetic[index]), (side + margin // 2, train[found.matches.index[index]])):
            plane = Image.fromarray(picture[0] if len(picture) == 1 else picture.transpose(1, 2, 0))
            sheet.paste(plane.resize((side, side), Image.Resampling.NEAREST).convert("RGB"), (x + offset, y))
        colour = "red" if found.flagged[index] else "black"
        draw.text((x, y + side + 1), f"{found.matches.distance[index]:.4f}", fill=colour)
    sheet.save(path)
