"""The release stage: obeys the gate.

On the verdict ``pass`` it re-hashes what was judged and writes the release; otherwise nothing leaves but the verdict and a report
without any raster image.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.artifacts import PARTIAL, RECORD, file_digest, keyed, read_json, write_json
from pipeline.cohorts.key import project_key
from pipeline.cohorts.ledger import settled
from pipeline.context import Context
from pipeline.errors import InputError
from pipeline.images import ImageSet
from pipeline.release import contents
from pipeline.release.cards import DataCard, data_card, licence_text, render_card, render_model_card, software_version
from pipeline.release.contents import JUDGED_STAGES
from pipeline.release.descriptions import croissant, medmnist_entry
from pipeline.release.dicom_export import released_bytes
from pipeline.release.formats import pixel_digest, png_bytes, write_archive
from pipeline.release.report import render_report
from pipeline.release.results import Results
from pipeline.release.rows import Table, further_cells, further_columns, without_reports
from pipeline.release.verify import verify


def run(ctx: Context) -> dict[str, Any]:
    """Judge, then write the release that the verdict allows.

    Returns:
        ``verdict`` and ``weights`` (pass, fail or inconclusive), ``images`` released, and ``attempt`` (none for a replication).

    Raises:
        InputError: the generated images are not those that were judged, the configuration would loosen the gate, or its texts and class
            names are none that a release may hold.
    """
    generated = _judged_images(ctx)
    told = _told(ctx, generated)
    table = Table(_release_id(ctx), generated.classes, tuple(told), ctx.config.ingest.multi_label)
    labels, further = labels_of(generated, table.several), further_cells(told, len(generated))
    rows = table.header + b"".join(map(table.line, range(len(labels)), labels, further))
    verdict = _verdict(ctx, generated, table.release, rows)
    made = Counter(map(tuple, generated.findings.tolist()))
    results = Results.load(ctx.config, ctx.folder, verdict, ctx.records, made)
    passed = verdict["images"]["verdict"] == "pass"
    if passed:
        (ctx.out / contents.ROWS).write_bytes(rows)
        (ctx.out / contents.ROWS_TYPED).write_bytes(table.typed(labels, further))
        _write_images(ctx, generated, labels, table, verdict)
        _write_texts(ctx.out, data_card(results, class_counts(generated), len(generated)), table, further, generated.images.shape[1])
    samples = _samples(generated) if passed else {}
    (ctx.out / contents.REPORT).write_text(render_report(results, samples), encoding="utf-8")
    write_json(ctx.out / contents.GATE, verdict)
    if passed or ctx.config.release.sign is not None:
        seal(ctx.out, ctx.config.release.sign)
    problems = verify(ctx.out, beside=frozenset({PARTIAL}))
    if problems:
        raise InputError(f"the release would not be verified: {problems[0]}: change the texts or the class names that it quotes")
    released = len(generated) if passed else 0
    return {
        "verdict": verdict["images"]["verdict"],
        "weights": verdict["weights"]["verdict"],
        "images": released,
        "attempt": verdict["attempt"],
    }


def _verdict(ctx: Context, generated: ImageSet, release: str, rows: bytes) -> dict[str, Any]:
    """The content of ``gate.json``."""
    standing, decided = settled(ctx, read_json(ctx.folder("audit") / "audit.json"))
    digests = {
        **{name: contents.judged_digest(release, name, ctx.records.get(of, {}).get("files", {})) for name, of in JUDGED_STAGES.items()},
        "pixels": pixel_digest(generated.images),
        "rows": contents.bytes_digest(rows),
    }
    return {
        **decided,
        "replication": ctx.config.ingest.replication,
        "release": release,
        "software": software_version(),
        "digests": digests,
        "attempt": standing.attempt,
    }


def _release_id(ctx: Context) -> str:
    """An id that no outsider can trace to the cohort, and that a release which is done again gets again."""
    return keyed(project_key(ctx.run), "release", str(ctx.records["generate"]["digest"]))[:8]


def class_counts(images: ImageSet) -> dict[str, int]:
    """Images of each class, or that have each finding, by name."""
    return {name: int((images.findings[:, index] == 1).sum()) for index, name in enumerate(images.classes)}


def labels_of(images: ImageSet, several: bool) -> list[contents.Label]:
    """What each image was made for."""
    return list(map(tuple, images.findings.tolist())) if several else images.labels.tolist()


def _told(ctx: Context, images: ImageSet) -> dict[str, Any]:
    """What ``rows.csv`` says of the images after their findings: the attributes that were asked for, seeds and the like."""
    columns = {name: images.rows[name].tolist() for name in further_columns(map(str, images.rows.columns))}
    return without_reports(columns, ctx.folder("ingest"))


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
    return ImageSet.load(folder)


def _write_images(ctx: Context, generated: ImageSet, labels: list[contents.Label], table: Table, verdict: dict[str, Any]) -> None:
    """The images as PNG, DICOM and one MedMNIST-like archive."""
    for folder in table.folders():
        (ctx.out / folder).mkdir(parents=True, exist_ok=True)
    with ctx.reporter.progress("writing the release", len(generated)) as done:
        for number, label in enumerate(labels):
            image = np.asarray(generated.images[number])
            (ctx.out / table.picture(number, label)).write_bytes(png_bytes(image))
            (ctx.out / table.dicom(number)).write_bytes(released_bytes(image, number, label, table, verdict))
            done(number + 1)
    write_archive(ctx.out / contents.ARCHIVE, generated.images, np.array(labels), len(generated.classes))


def _write_texts(out: Path, card: DataCard, table: Table, further: list[tuple[str, ...]], channels: int) -> None:
    """The cards, and what follows from them and from what is written already."""
    digests = {name: file_digest(out / name) for name in (contents.ROWS, contents.ROWS_TYPED, contents.ARCHIVE)}
    for name, value in (
        (contents.CARD, card.model_dump(mode="json")),
        (contents.MEDMNIST, medmnist_entry(card, table, channels)),
        (contents.CROISSANT, croissant(card, table, digests, table.kinds(further))),
    ):
        write_json(out / name, value)
    texts = {contents.CARD_TEXT: render_card(card), contents.LICENCE: licence_text(card)}
    for name, text in (texts | ({contents.MODEL_CARD: render_model_card(card)} if card.model else {})).items():
        (out / name).write_text(text, encoding="utf-8")


def _samples(images: ImageSet) -> dict[str, list[bytes]]:
    """The first images of each class as PNG files: unselected, so that the report shows the typical and not the best."""
    return {
        name: [png_bytes(np.asarray(images.images[row])) for row in np.flatnonzero(images.findings[:, index] == 1)[: contents.SAMPLES]]
        for index, name in enumerate(images.classes)
    }


def seal(out: Path, key: Path | None = None) -> None:
    """Make the release readable by all, and write its checksums last, signed where a key is given."""
    paths = sorted(path for path in out.rglob("*") if path.name not in (PARTIAL, RECORD, contents.CHECKSUMS, contents.SIGNATURE))
    for path in (out, *paths):
        path.chmod(0o755 if path.is_dir() else 0o644)
    digests = {path.relative_to(out).as_posix(): file_digest(path) for path in paths if path.is_file()}
    (out / contents.CHECKSUMS).write_bytes(contents.checksums(digests))
    (out / contents.CHECKSUMS).chmod(0o644)
    if key is not None:
        from pipeline.release.sign import private_key, sign

        sign(out, private_key(key))
        (out / contents.SIGNATURE).chmod(0o644)
