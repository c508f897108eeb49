"""The audit stage: attacks on the generated images and on the weights, against patients whom the generator never saw."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from evaluation.data import Labelled
from pipeline import regenerate, runtime, warm_start
from pipeline.artifacts import read_object, write_json
from pipeline.cohorts.ledger import count_attempt, settled
from pipeline.conditions import Conditions
from pipeline.context import Context
from pipeline.denoiser import load_denoiser
from pipeline.errors import InputError
from pipeline.evaluate import halves, labelled
from pipeline.images import ImageSet, unit_of
from pipeline.ingest.duplicates import identical
from pipeline.ingest.split import kept_together
from pipeline.phantom.anatomy import CLASSES
from pipeline.phantom.image import phantom_arrays
from pipeline.release.figures import audit_figures, summary
from privacy import attributes, audit, copy_report, copy_score, judgements, membership, one_run, prompts

PAIRS = "pairs.json"
ATTRIBUTES = ("sex", "age_band", "site")
"""Columns that an attacker would like to know of a patient."""
STAND_INS = 150
"""Phantom patients that the copies' score is learned from where the real validation images are too few."""


def run(ctx: Context) -> dict[str, Any]:
    """Search for copies, measure the search's power, attack membership and attributes; writes ``audit.json`` and the nearest pairs.

    What shadow trainings found is taken over where the run has them.

    The weights of a foreign set are not here to be attacked, and its holdout may be too small to calibrate the search, or missing: its
    nearest images are found none the less, and the gate says what that leaves open.

    Raises:
        InputError: too few images for an audit, or synthetic ones that are images of the holdout.
    """
    runtime.limit_threads()
    runtime.reuse_memory()
    section, device, seed = ctx.config.audit, runtime.device(), ctx.config.seed
    everyone = ImageSet.load(ctx.folder("ingest"))
    synthetic = ImageSet.load(ctx.folder("generate"))
    images = np.asarray(synthetic.images)
    train, audited = (_side(everyone, name) for name in ("train", "audit"))
    foreign, least = ctx.config.foreign, copy_report.CALIBRATION
    if not foreign and (len(audited.images) < least or len(images) < least):
        raise InputError(
            f"an audit needs {least} sealed and {least} generated images at least, there are {len(audited.images)} and {len(images)}: "
            "raise ingest.audit_share or generate.per_class"
        )
    if foreign and (overlap := _both(images, np.asarray(everyone.images[(everyone.rows["split"] != "train").to_numpy()]))):
        raise InputError(
            f"{overlap} of the synthetic images are images of the holdout, which is thus not what their generator never saw: give others"
        )
    total = copy_report.searched(len(images), len(audited), section.planted, regenerated=not foreign)
    with ctx.reporter.progress("searching for copies", total) as advance:
        found = copy_report.find_copies(
            train,
            audited,
            images,
            planted=section.planted,
            rng=np.random.default_rng(runtime.derive_seed(seed, "planted copies")),
            device=device,
            learn=_learn(everyone, seed),
            others=_side(everyone, "val", "test"),
            regenerate=None if foreign else regenerate.regenerator(ctx, device),
            report=advance,
        )
    attacked = None if foreign else _attacked(ctx, train, audited, device)
    drawn = judgements.DRAWN[0 if not foreign else 1 if section.holdout_random else 2]
    bias_rng = np.random.default_rng(runtime.derive_seed(seed, "split bias"))
    report = audit.summarise(
        found,
        attacked,
        pixels=images.shape[-1],
        unit=unit_of(ctx.folder("ingest")),
        drawn=drawn,
        started=warm_start.trained_beside(ctx.folder("train")) if "train" in ctx.records else judgements.STARTED[0],
        n_train=len(train.images),
        n_audit=len(audited.images),
        holdout_units=len(np.unique(audited.groups)),
        bias=audit.split_bias(train, audited, bias_rng) if foreign and len(audited) >= least else None,
        further={
            "shadows": read_object(ctx.folder("shadows") / "shadows.json") if "shadows" in ctx.records else None,
            "one_run": _one_run(ctx, everyone, images, device) if drawn != judgements.DRAWN[2] else None,
            "attributes": _attributes(everyone, synthetic),
            "prompts": None if foreign else _prompts(ctx, train, audited, device),
        },
    )
    # Before anybody can read what came of it. Of a foreign set the verdict is settled too: its images are with who reads that they pass.
    standing = settled(ctx, report)[0] if foreign else count_attempt(ctx)
    write_json(ctx.out / "audit.json", report | dataclasses.asdict(standing))
    nearest = nearest_pairs(found)
    pairs = pair_rows(found, nearest, synthetic.rows["id"], everyone.split("train").rows["id"])
    write_json(
        ctx.out / PAIRS, {"pairs": pairs, "twins": twin_rows(found, *(everyone.split(name).rows["id"] for name in ("train", "audit")))}
    )
    pair_sheet(images, train.images, found, nearest, ctx.out / "pairs.png")
    return summary(audit_figures(report))


def _one_run(ctx: Context, everyone: ImageSet, synthetic: NDArray[np.uint8], device: str) -> dict[str, Any]:
    """What one run shows of ε, for the images and for the weights where they are here."""
    rows = everyone.rows["split"].isin(("train", "audit")).to_numpy()
    both = everyone.take(rows)
    # Who shares a near-duplicate is in one split, and tosses one coin.
    units = kept_together(both.rows)
    member = (both.rows["split"] == "train").to_numpy()
    real = Labelled(np.asarray(both.images), both.findings, units, asked=both.asked)

    def rng(subject: str) -> np.random.Generator:
        return np.random.default_rng(runtime.derive_seed(ctx.config.seed, f"one run, {subject}"))

    found = {"images": one_run.from_images(real, units, member, synthetic, rng("images"))}
    if "train" in ctx.records:
        denoiser, model = load_denoiser(ctx.folder("train"), device)
        condition = Conditions.of_model(model).met.of(real)
        draws = ctx.config.audit.membership_draws
        with runtime.autocast(device):
            found["weights"] = one_run.from_weights(
                denoiser, real, condition, units, member, draws=draws, rng=rng("weights"), device=device
            )
    return {subject: run.to_dict() for subject, run in found.items() if run is not None}


def _attributes(everyone: ImageSet, synthetic: ImageSet) -> dict[str, Any]:
    """What the images tell of sex, age band, site and finding, of train patients and of others."""
    train, audited, val = (_side(everyone, name, columns=ATTRIBUTES) for name in ("train", "audit", "val"))
    if not len(audited):
        return {}
    made = Labelled(np.asarray(synthetic.images), synthetic.findings, np.arange(len(synthetic)))
    return attributes.infer(train, audited, made, val)


def _prompts(ctx: Context, train: Labelled, audited: Labelled, device: str) -> dict[str, Any]:
    """Whether reports that were trained on draw their patients; nothing of a model that reads no text."""
    if not Conditions.of_model(read_object(ctx.folder("train") / "model.json")).vocabulary:
        return {}
    rng = np.random.default_rng(runtime.derive_seed(ctx.config.seed, "prompts"))
    pairs = prompts.aimed(train, audited, rng)
    if not len(pairs):
        return {}
    ours, theirs = regenerate.drawn(ctx, device, [train.take(pairs[:, 0]), audited.take(pairs[:, 1])])
    return prompts.judge(train, audited, pairs, (ours, theirs), rng)


def _attacked(ctx: Context, train: Labelled, audited: Labelled, device: str) -> membership.Membership:
    """The attack on the weights."""
    denoiser, model = load_denoiser(ctx.folder("train"), device)
    with runtime.autocast(device):
        return audit.attack_membership(
            denoiser,
            train,
            audited,
            condition=Conditions.of_model(model).of,
            draws=ctx.config.audit.membership_draws,
            rng=np.random.default_rng(runtime.derive_seed(ctx.config.seed, "membership")),
            device=device,
        )


def _both(synthetic: NDArray[np.uint8], unseen: NDArray[np.uint8]) -> int:
    """How many synthetic images have the same pixels as one of the others."""
    first = identical(np.concatenate([unseen, synthetic]))[len(unseen) :]
    return int((first < len(unseen)).sum())


def _side(everyone: ImageSet, *splits: str, columns: tuple[str, ...] = ()) -> Labelled:
    """The images of some splits, with those of the columns that the cohort has (an empty text is unknown); patients who share a
    near-duplicate count as one."""
    rows = everyone.rows
    groups = kept_together(rows)
    mask = rows["split"].isin(splits).to_numpy()
    known = {name: rows.loc[mask, name].astype(object) for name in columns if name in rows}
    values = {name: column.where(column.notna(), "").to_numpy(dtype=str) for name, column in known.items()}
    asked = {name: column[mask] for name, column in everyone.asked.items()}
    return Labelled(np.asarray(everyone.images[mask]), everyone.findings[mask], groups[mask], values, asked)


def _learn(everyone: ImageSet, seed: int) -> Labelled:
    """What the copies' score is learned from: *learn* of ``val``, or phantoms where that is too small."""
    val = labelled(everyone.split("val"))
    if len(np.unique(val.groups)) > 1 and len(learn := halves(val, seed)[0]) >= copy_score.LEAST:
        return learn
    images, labels, patients = phantom_arrays(STAND_INS, runtime.derive_seed(seed, "stand-ins") % 2**32, everyone.images.shape[-1])
    return Labelled.of_classes(np.repeat(images, everyone.images.shape[1], axis=1), labels, patients, len(CLASSES))


def nearest_pairs(found: copy_report.CopyReport, count: int = 24) -> NDArray[np.intp]:
    """Numbers of the synthetic images that are least probably as near to a training image by chance, the least probable first."""
    return np.lexsort((found.matches.distance, found.p_values))[:count]


def pair_rows(found: copy_report.CopyReport, order: NDArray[np.intp], synthetic: pd.Series, train: pd.Series) -> list[dict[str, Any]]:
    """Pairs by the ids of their images, for :mod:`pipeline.review`: ``synthetic``, ``training``, ``distance`` (1 − aligned NCC), ``p`` (the
    probability of an image so near by chance), ``flagged`` and ``undecided``."""
    return [
        {
            "synthetic": str(synthetic.iloc[index]),
            "training": str(train.iloc[found.matches.index[index]]),
            "distance": float(found.matches.distance[index]),
            "p": float(found.p_values[index]),
            "flagged": bool(found.flagged[index]),
            "undecided": bool(found.undecided[index]),
        }
        for index in order
    ]


def twin_rows(found: copy_report.CopyReport, train: pd.Series, audited: pd.Series) -> list[dict[str, str]]:
    """Sealed images that are as near to another real one as a copy is, and that one, by their ids: ``sealed`` and ``real``."""
    real = pd.concat([train, audited], ignore_index=True)
    return [{"sealed": str(audited.iloc[place]), "real": str(real.iloc[found.twins[place]])} for place in np.flatnonzero(found.twins >= 0)]


def pair_sheet(synthetic: np.ndarray, train: np.ndarray, found: copy_report.CopyReport, order: NDArray[np.intp], path: Path) -> None:
    """Pairs as a picture for local eyes: each synthetic image (left) beside the training image it is nearest to."""
    side = max(96, synthetic.shape[-1])
    columns, margin, caption = 4, 8, 14
    rows = -(-len(order) // columns)
    sheet = Image.new("RGB", (columns * (2 * side + 3 * margin), rows * (side + caption + margin) + 40), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((margin, 6), "PATIENT DATA - for local eyes only. Nearest pairs: synthetic (left), training image (right).", fill="black")
    draw.text(
        (margin, 20),
        f"distance = 1 - aligned NCC; red: flagged as a copy, blue: undecided, both nearer than chance allows: below {found.threshold:.4f} "
        "or by the ratio or the learned score",
        fill="black",
    )
    for number, index in enumerate(order):
        x = number % columns * (2 * side + 3 * margin) + margin
        y = number // columns * (side + caption + margin) + 40
        for offset, picture in ((0, synthetic[index]), (side + margin // 2, train[found.matches.index[index]])):
            plane = Image.fromarray(picture[0] if len(picture) == 1 else picture.transpose(1, 2, 0))
            sheet.paste(plane.resize((side, side), Image.Resampling.NEAREST).convert("RGB"), (x + offset, y))
        colour = "red" if found.flagged[index] else "blue" if found.undecided[index] else "black"
        draw.text((x, y + side + 1), f"{found.matches.distance[index]:.4f}", fill=colour)
    sheet.save(path)
