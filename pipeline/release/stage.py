"""The release stage: obeys the gate.

On the verdict ``pass`` it re-hashes what was judged and writes the release; otherwise nothing leaves but the verdict and a report
without any raster image.
"""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.artifacts import PARTIAL, file_digest, read_json, write_json
from pipeline.cohorts.ledger import count_attempt
from pipeline.context import Context
from pipeline.errors import InputError
from pipeline.images import FINDING, ImageSet
from pipeline.release import gate
from pipeline.release.cards import data_card, render_card
from pipeline.release.dicom_export import write_secondary_capture
from pipeline.release.report import render_report
from pipeline.release.results import CHECKSUMS, Results, pixel_digest

PLAIN_ID = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_-]{0,55}$")
SAMPLES = 12


def run(ctx: Context) -> dict[str, Any]:
    """Judge, then write the release that the verdict allows.

    Returns:
        ``verdict`` and ``weights`` (pass, fail or inconclusive), ``images`` released, and ``attempt`` (none for a replication).

    Raises:
        InputError: the generated images are not those that were judged, or the configuration would loosen the gate.
    """
    audit = read_json(ctx.folder("audit") / "audit.json")
    if not isinstance(audit, dict):
        raise InputError("audit/audit.json is missing or damaged: delete the audit folder of this run to measure it again")
    generated = _judged_images(ctx)
    verdict = gate.decide(audit, ctx.config.release.max_copy_rate)
    if ctx.config.ingest.replication:
        verdict = gate.withheld(verdict)
    verdict["digests"] = {
        "images": {name: digest for name, digest in ctx.records["generate"]["files"].items() if name.endswith((".npy", ".parquet"))},
        # A foreign set comes without its weights.
        "weights": {name: digest for name, digest in _files(ctx, "train").items() if name.endswith(".safetensors")},
        "pixels": pixel_digest(generated.images),
    }
    verdict["attempt"] = count_attempt(ctx, verdict["images"]["verdict"])
    results = Results.load(ctx.config, ctx.folder, verdict, ctx.records)
    passed = verdict["images"]["verdict"] == "pass"
    if passed:
        _write_cohort(ctx, generated)
        card = data_card(results, class_counts(generated))
        write_json(ctx.out / "data_card.json", card.model_dump(mode="json"))
        (ctx.out / "data_card.md").write_text(render_card(card), encoding="utf-8")
        (ctx.out / "LICENSE.txt").write_text(_licence(results), encoding="utf-8")
    samples = _samples(generated) if passed else {}
    (ctx.out / "report.html").write_text(render_report(results, samples), encoding="utf-8")
    write_json(ctx.out / "gate.json", verdict)
    if passed:
        _seal(ctx.out)
    released = len(generated) if passed else 0
    return {
        "verdict": verdict["images"]["verdict"],
        "weights": verdict["weights"]["verdict"],
        "images": released,
        "attempt": verdict["attempt"],
    }


def _files(ctx: Context, stage: str) -> dict[str, str]:
    """Digests of a stage's files; none where the configuration has no such stage."""
    return dict(ctx.records[stage]["files"]) if stage in ctx.records else {}


def class_counts(images: ImageSet) -> dict[str, int]:
    """Images of each class, by name."""
    return {name: int((images.labels == index).sum()) for index, name in enumerate(images.classes)}


def class_folders(classes: tuple[str, ...]) -> dict[str, str]:
    """A folder name for each class: its own name where it is a plain one, made plain and distinct where it is not."""
    folders: dict[str, str] = {}
    for index, name in enumerate(classes):
        plain = re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._") or "class"
        folders[name] = plain if plain not in folders.values() else f"{plain}_{index}"
    return folders


def _judged_images(ctx: Context) -> ImageSet:
    """The generated images, after checking that they are still those that the audit read."""
    judged, record = ctx.records["audit"]["identity"]["inputs"], ctx.records["generate"]
    if any(judged[stage] != ctx.records[stage]["digest"] for stage in ("generate", "train") if stage in ctx.records):
        raise InputError("the audit judged other images or weights than this run holds: delete the audit folder of this run to repeat it")
    folder = ctx.folder("generate")
    changed = [name for name, digest in record["files"].items() if file_digest(folder / name) != digest]
    if changed:
        raise InputError(
            f"generate/{changed[0]} has changed since it was judged: delete the generate folder of this run to make and judge it anew"
        )
    images = ImageSet.load(folder)
    if not all(PLAIN_ID.match(str(name)) for name in images.rows["id"]) or images.rows["id"].duplicated().any():
        raise InputError("generate/rows.parquet: ids must be distinct and of letters, digits, - and _ (at most 56): they become file names")
    return images


def _write_cohort(ctx: Context, generated: ImageSet) -> None:
    """The images as PNG, DICOM and one MedMNIST-like archive, with their rows."""
    folders, rows = class_folders(generated.classes), generated.rows
    labels = [generated.classes[index] for index in generated.labels]
    cohort = str(ctx.records["generate"]["digest"])
    for folder in ("dicom", *(f"images/{name}" for name in folders.values())):
        (ctx.out / folder).mkdir(parents=True, exist_ok=True)
    files = [f"images/{folders[label]}/{image_id}.png" for label, image_id in zip(labels, rows["id"], strict=True)]
    with ctx.reporter.progress("writing the release", len(generated)) as done:
        for index, (image_id, label, file) in enumerate(zip(rows["id"], labels, files, strict=True)):
            image = generated.images[index]
            picture(image).save(ctx.out / file)
            write_secondary_capture(ctx.out / "dicom" / f"{image_id}.dcm", image, image_id=image_id, label=label, cohort=cohort)
            done(index + 1)
    save_medmnist(ctx.out / "cohort.npz", generated)
    columns = ["id", *(name for name in rows.columns if str(name).startswith(FINDING) or name in ("seed", "guidance"))]
    table = rows[columns].copy()
    table.insert(1, "label", labels)
    table["file"] = files
    table.to_csv(ctx.out / "rows.csv", index=False, lineterminator="\n")


def picture(image: NDArray[np.uint8]) -> Image.Image:
    """A ``uint8 [C, H, W]`` image, C = 1 or 3, as a PIL picture (mode L or RGB)."""
    return Image.fromarray(image[0] if image.shape[0] == 1 else np.moveaxis(image, 0, -1))


def save_medmnist(path: Path, images: ImageSet) -> None:
    """Write MedMNIST's layout: ``train_images`` uint8 [n, H, W] or [n, H, W, 3], ``train_labels`` [n, 1]; val and test are there and empty.

    Labels are class indices in the order of the finding columns.
    """
    pixels = images.images[:, 0] if images.images.shape[1] == 1 else np.moveaxis(images.images, 1, -1)
    labels = images.labels.astype(np.uint8 if len(images.classes) <= 256 else np.uint16)[:, None]
    arrays: dict[str, NDArray[Any]] = {"train_images": pixels, "val_images": pixels[:0], "test_images": pixels[:0]}
    arrays |= {"train_labels": labels, "val_labels": labels[:0], "test_labels": labels[:0]}
    with path.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def _samples(images: ImageSet) -> dict[str, list[bytes]]:
    """The first images of each class as PNG bytes: unselected, so that the report shows the typical and not the best."""
    found: dict[str, list[bytes]] = {}
    for index, name in enumerate(images.classes):
        found[name] = []
        for row in np.flatnonzero(images.labels == index)[:SAMPLES]:
            buffer = io.BytesIO()
            picture(images.images[row]).save(buffer, format="PNG")
            found[name].append(buffer.getvalue())
    return found


def _licence(results: Results) -> str:
    release, source = results.config.release, results.source
    lines = [release.title, "", f"Licence of these synthetic images (SPDX identifier): {release.licence}", f"Contact: {release.contact}"]
    terms = [f"{key.capitalize()}: {source[key]}" for key in ("licence", "citation") if source[key]]
    if terms:
        lines += ["", "The images were generated from a model of a source cohort with its own terms:", *terms]
    return "\n".join(lines) + "\n"


def _seal(out: Path) -> None:
    """Make the release readable by all, and write its checksums last."""
    paths = sorted(path for path in out.rglob("*") if path.name != PARTIAL)
    for path in (out, *paths):
        path.chmod(0o755 if path.is_dir() else 0o644)
    lines = [f"{file_digest(path)}  {path.relative_to(out).as_posix()}" for path in paths if path.is_file()]
    (out / CHECKSUMS).write_text("\n".join(lines) + "\n", encoding="utf-8")
    (out / CHECKSUMS).chmod(0o644)
