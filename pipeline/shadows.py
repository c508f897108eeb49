"""The shadows stage: how far membership in the run's training can be told by who has trained on other parts of the same cohort.

Each shadow sees a random part of ``train`` and ``audit`` together, as large as ``train``; what an attack looks at is measured under all of
them and under the run's own weights and images. Shadows' weights are patient data, and never on the disk. What was measured of each is,
until all are scored, so that an interrupted stage goes on with the next training.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.data import Labelled, rarest, to_unit
from pipeline import fit_recipe, ranks, resume, runtime, word_features
from pipeline.artifacts import damage, read_object, write_json
from pipeline.conditions import Conditions
from pipeline.config import Config
from pipeline.context import Context
from pipeline.denoiser import load_denoiser
from pipeline.diffusion.objectives import Denoiser
from pipeline.diffusion.training import BatchTooLarge
from pipeline.errors import InputError
from pipeline.exposed import picture
from pipeline.images import ImageSet, unit_of
from pipeline.ingest.split import kept_together
from pipeline.ranks import Report, Share
from pipeline.shadow_training import Shadows
from pipeline.wanted import wanted
from pipeline.warm_start import SAME
from privacy import shadows
from privacy.neighbours import Neighbourhoods

SUFFIX = ".npy"
WEIGHTS = len(shadows.LEVELS)
"""Columns of the weights' features; those of the images follow."""


def run(ctx: Context) -> dict[str, Any]:
    """Train the shadows, attack the run's own weights and images with them; writes ``shadows.json``, ``scores.parquet``, ``exposed.png``.

    Raises:
        InputError: a warm start that no shadow can repeat, too few images, or a training that fails.
    """
    from pipeline.release.figures import shadow_figures, summary

    runtime.limit_threads()
    runtime.reuse_memory()
    config, device = fit_recipe.replayed(ctx.config, ctx.folder("train")), runtime.device()
    model = read_object(ctx.folder("train") / "model.json")
    _check_warm_start(model)
    pool, units, inside = _pool_and_draws(config, ctx.folder("ingest"))
    parts = ctx.out / "partial"
    parts.mkdir(exist_ok=True)
    with ctx.reporter.progress("training on other images", len(inside) * model["images"]) as advance:
        ranks.together(make_parts, config, ctx.folder("ingest"), ctx.folder("train"), parts, report=advance)
    paths = [_part(parts, number) for number in range(len(inside))]
    if not all(paths):
        raise InputError("shadows: what was measured of a training was changed while others were made: the same command makes it again")
    others = np.stack([np.load(path, allow_pickle=False) for path in paths if path])
    target = _of_the_run(ctx, pool, device)
    if others.shape[1:] != target.shape:
        raise InputError(damage(ctx.out.name, parts.name))
    result, scored = _attack(pool, units, target, others, inside)
    write_json(ctx.out / "shadows.json", {"unit": unit_of(ctx.folder("ingest")), **result})
    _write_scores(ctx, pool, scored)
    shutil.rmtree(parts)
    return {"trainings": len(inside), **summary(shadow_figures(result))}


def make_parts(share: Share, config: Config, ingest: Path, trained: Path, parts: Path, *, report: Report) -> None:
    """Train a rank's share of the shadows, and keep what is measured of each in ``parts``; those that are there and whole stand.

    Args:
        share: which shadows.
        config: the run's, with what its training settled.
        ingest: the ingest stage's folder.
        trained: the train stage's folder.
        parts: an existing folder.
        report: told how many images all ranks have trained on, taking the others to be as fast as this one.

    Raises:
        InputError: a training that does not fit into memory, or diverges.
    """
    runtime.limit_threads()
    device, model = runtime.device(), read_object(trained / "model.json")
    pool, _, inside = _pool_and_draws(config, ingest)
    mine = [number for number in share.places(len(inside)) if _part(parts, number) is None]
    if not mine:
        return
    conditions = Conditions.of_model(model)
    words = word_features.of(ingest, conditions.words) if conditions.features else None
    trainings = Shadows(config, pool, model, device, words)
    neighbourhoods = Neighbourhoods(pool.images, device)
    asked = wanted(config, conditions)
    before = len(share.places(len(inside))) - len(mine)
    for done, number in enumerate(mine, start=before):

        def advance(seen: int, done: int = done) -> None:
            report(share.of * (done * model["images"] + seen))

        try:
            denoiser = trainings.train(number, inside[number], advance)
        except (FloatingPointError, BatchTooLarge) as error:
            raise InputError(f"shadow training {number + 1}: {error}: the run's own came through; free memory, or run it again") from None
        measured = [
            _weights_features(denoiser, config, trainings.conditions, pool, device),
            neighbourhoods.features(trainings.release(asked)),
        ]
        unfinished = parts / f"unfinished-{number:03d}{SUFFIX}"
        np.save(unfinished, np.concatenate(measured, axis=1), allow_pickle=False)
        resume.keep(unfinished, f"{number:03d}")


def _part(parts: Path, number: int) -> Path | None:
    """What was measured of a shadow, where it is whole."""
    return resume.kept(parts, f"{number:03d}", SUFFIX)


def _check_warm_start(model: dict[str, Any]) -> None:
    """Raise InputError where the run began from weights that know its own train patients: every shadow would have seen them."""
    if model.get("warm_start", {}).get("patients") == SAME:
        raise InputError(
            "shadows.trainings: train.start_from was trained on this run's own train patients, and so would every shadow be, which hides "
            "what the weights know: set shadows.trainings=0, or train without it"
        )


def _pool_and_draws(config: Config, ingest: Path) -> tuple[ImageSet, NDArray[np.int64], NDArray[np.bool_]]:
    """The images of ``train`` and ``audit``, what stays together among them, and which of them each shadow sees, ``bool [k, n]``.

    The split has no part in it but for its size.

    Raises:
        InputError: one of the two is empty.
    """
    everyone = ImageSet.load(ingest)
    pool = everyone.take(everyone.rows["split"].isin(["train", "audit"]).to_numpy())
    member = _members(pool)
    if not member.any() or member.all():
        raise InputError("no image in train, or none in audit: add patients, or raise ingest.audit_share")
    strata = rarest(pool.findings == 1)
    size = np.bincount(strata[member], minlength=int(strata.max()) + 1)
    rng = np.random.default_rng(runtime.derive_seed(config.seed, "shadows"))
    units = kept_together(pool.rows)
    return pool, units, shadows.draw(units, strata, size, config.shadows.trainings, rng)


def _members(pool: ImageSet) -> NDArray[np.bool_]:
    return np.asarray(pool.rows["split"] == "train", bool)


def _weights_features(denoiser: Denoiser, config: Config, conditions: Conditions, pool: ImageSet, device: str) -> NDArray[np.float64]:
    """What the attack sees of weights, for each image of the pool."""
    assert config.train is not None
    seeds = [runtime.derive_seed(config.seed, "shadows", "noise", draw) for draw in range(config.shadows.draws)]
    condition = conditions.met.of(pool)
    batch = config.train.batch // config.train.accumulate
    with runtime.autocast(device):
        return shadows.weights_features(denoiser, to_unit(pool.images), condition, seeds=seeds, device=device, batch=batch)


def _of_the_run(ctx: Context, pool: ImageSet, device: str) -> NDArray[np.float64]:
    """The same of the run's own weights and images."""
    denoiser, model = load_denoiser(ctx.folder("train"), device)
    released = ImageSet.load(ctx.folder("generate"))
    around = Neighbourhoods(pool.images, device).features(np.asarray(released.images))
    return np.concatenate([_weights_features(denoiser, ctx.config, Conditions.of_model(model), pool, device), around], axis=1)


def _attack(
    pool: ImageSet, units: NDArray[np.int64], target: NDArray[np.float64], others: NDArray[np.float64], inside: NDArray[np.bool_]
) -> tuple[dict[str, Any], dict[str, NDArray[np.float64]]]:
    """``shadows.json``, and each image's scores by ``weights`` and by ``images``; patients who share near-duplicates count as one."""
    from pipeline.evaluate import labelled

    member, everyone = _members(pool), labelled(pool)
    subgroups = _subgroups(everyone, pool.classes)
    result: dict[str, Any] = {
        "trainings": len(inside),
        "members": int(member.sum()),
        "non_members": int((~member).sum()),
    }
    control: dict[str, Any] = {}
    scored = {}
    for name, columns in (("weights", slice(WEIGHTS)), ("images", slice(WEIGHTS, None))):
        own, theirs = target[:, columns], others[:, :, columns]
        scored[name] = shadows.scores(own, theirs, inside)
        result[name] = shadows.measure(scored[name], member, units, subgroups)
        # A training that had no regard to the split, in the place of the run's: what is found there is the split's own.
        twin = shadows.scores(theirs[0], theirs[1:], inside[1:])
        control[name] = {"twin": shadows.measure(twin, member, units, {})["auc"], **shadows.power(theirs, inside)}
    result["control"] = {"auc": control["weights"]["twin"], **control}
    return result, scored


def _subgroups(everyone: Labelled, classes: tuple[str, ...]) -> dict[str, NDArray[np.bool_]]:
    """Which images are of each class, and of each value of each attribute, by name."""
    found = {name: everyone.findings[:, number] == 1 for number, name in enumerate(classes)}
    for attribute, column in everyone.attributes.items():
        found |= {f"{attribute.replace('_', ' ')} {value}": column == value for value in np.unique(column) if value}
    return found


def _write_scores(ctx: Context, pool: ImageSet, scored: dict[str, NDArray[np.float64]]) -> None:
    """Every image's scores, and the most exposed training images as a picture: both for local eyes only."""
    pool.rows[["id", "split"]].assign(**scored).to_parquet(ctx.out / "scores.parquet", index=False)
    released = np.asarray(ImageSet.load(ctx.folder("generate")).images)
    members = np.flatnonzero(_members(pool))
    most = max(1, round(shadows.EXPOSED * len(members)))
    rows = {f"most exposed by the {name}": members[np.argsort(-score[members], kind="stable")[:most]] for name, score in scored.items()}
    picture(np.asarray(pool.images), rows, released).save(ctx.out / "exposed.png")
