"""Further images of a finished run's model, without the patients' data: what ``synthcohort generate`` does.

The verdict on the weights decides what they are. Cleared weights may be shared, and so may what is made from them. Of any others, each
further image is as unaudited as the first ones were: patient data until it is judged, marked as such, and no DICOM that a PACS would take.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline import artifacts, folders, ranks, runtime
from pipeline.conditions import Conditions
from pipeline.config import Asked, GenerateConfig
from pipeline.errors import InputError
from pipeline.generate import collected, make_parts
from pipeline.progress import Reporter
from pipeline.release import contents
from pipeline.release.cards import software_version
from pipeline.release.dicom_export import dicom_bytes
from pipeline.release.formats import pixel_digest, png_bytes, write_archive
from pipeline.release.rows import Table, further_cells, without_reports
from pipeline.release.verdict import Verdict, weights_verdict
from pipeline.show import run_near
from pipeline.wanted import Wanted, planned

FACTS, WARNING = "generated.json", "UNAUDITED-PATIENT-DATA.txt"
UNAUDITED = (contents.PICTURE_TEXT[0], b"unaudited synthetic image: patient data until it is judged, not for diagnosis")
STAYS = (
    "These images are synthetic and nobody has judged them, and the weights that made them are not cleared: they can show a patient. Treat "
    "them as patient data. To release more images, raise generate.per_class of the run: they pass through its audit.\n"
)


@dataclass(frozen=True)
class Model:
    """A run's model, as it is on the disk.

    Attributes:
        folder: its train folder.
        record: the record of that.
        conditions: what it can be asked for.
        section: how the run sampled it; the defaults where it never did.
        verdict: on these weights, by the run's own release.
    """

    folder: Path
    record: Mapping[str, Any]
    conditions: Conditions
    section: GenerateConfig
    verdict: Verdict


def find_model(run: Path) -> Model:
    """The model of a run folder, of which ``train`` must be there, and ``release`` for weights to be cleared.

    Raises:
        InputError: there is no trained model, it is damaged, or sampling it needs another run's.
    """
    folder = run / "train"
    record = artifacts.load_record(folder)
    if record is None:
        raise InputError(
            f"{run.name} holds no trained model: give the folder of a run whose train stage is finished, such as {run_near(run)}"
        )
    artifacts.Checked().consume(folder, record)
    model = artifacts.read_object(folder / "model.json")
    return Model(folder, record, Conditions.of_model(model), _section(run), weights_verdict(run, record))


def _section(run: Path) -> GenerateConfig:
    """How the run sampled its model, by the record of that."""
    record = artifacts.load_record(run / "generate")
    left = artifacts.read_json(run / folders.PURGED)
    identity = record["identity"] if record is not None else left["generate"] if isinstance(left, dict) else None
    if identity is None:
        return GenerateConfig(per_class=1)
    if "other_weights" in identity["inputs"]:
        raise InputError(f"{run.name} leads its images away from another run's model (generate.autoguidance): use generate.per_class of it")
    return GenerateConfig.model_validate(identity["config"])


def generate(run: Path, plan: Sequence[Asked], seed: int, out: Path, reporter: Reporter) -> tuple[Model, int]:
    """Generate images of a run's model into a folder: ``images/``, ``rows.csv``, ``rows.parquet``, ``cohort.npz`` and ``generated.json``.

    Image k of an entry is a function of the model, ``seed``, what the entry asks for and k alone, up to rounding, which other batches
    change (figures: :class:`pipeline.generate.Sampling`): to ask for more of it gives the same ones first, and no seed gives an image of
    the run's own set. Cleared weights also give ``dicom/``; of others, the folder is 0700, says so in a file, and so does each picture. An
    interrupted call goes on where it stopped.

    Args:
        run: the run folder.
        plan: what is asked for; of no entry twice.
        seed: of the drawing, not negative.
        out: a folder outside the run's that is not there, or is empty.
        reporter: where progress is shown.

    Returns:
        The model that made them, and how many.

    Raises:
        InputError: as :func:`find_model` and :func:`pipeline.wanted.planned`, or ``out`` holds something else or lies in the run folder.
    """
    model = find_model(run)
    names = model.conditions.classes
    plan = sorted(plan, key=lambda entry: [names.index(name) if name in names else -1 for name in entry.findings])
    asked = planned(plan, model.conditions, [one for entry in plan for one in _seeds(seed, entry)], "generate")
    wanted = [entry.model_dump(mode="json", exclude_defaults=True) for entry in plan]
    cleared = model.verdict == "pass"
    request = {
        "stage": "generate",
        "weights": model.record["digest"],
        "config": model.section.model_dump(mode="json", exclude={"plan", "per_class"}),
        "plan": wanted,
        "seed": seed,
    }
    mark = artifacts.read_json(out / artifacts.PARTIAL)
    resumes = isinstance(mark, dict) and mark.get("fingerprint") == artifacts.fingerprint(request)
    folders.claim_alone(out, {f"the run folder {run.name}": run}, ours=resumes)
    out = out.resolve()  # a link stays, and what it leads to is replaced
    folders.open_stage(out, request, resumable=True, private=not cleared)
    parts = out / "partial"
    parts.mkdir(exist_ok=True)
    with reporter.progress("generating images", len(asked)) as advance:
        ranks.together(make_parts, model.section, model.folder, parts, asked, report=advance)
    images = collected(parts, model.section, len(asked))
    facts = _write(out, model, images, asked, run / "ingest", reporter)
    shutil.rmtree(parts)
    if cleared:  # a prompt may repeat a report; those that may be told stand in the rows
        request["plan"] = [{key: value for key, value in entry.items() if key not in ("text", "without_text")} for entry in wanted]
    artifacts.write_json(out / FACTS, facts | {"plan": request["plan"], "seed": seed})
    artifacts.publish(out, request, contains_patient_data=not cleared)
    return model, len(asked)


def _seeds(seed: int, entry: Asked) -> list[int]:
    """Seeds of an entry's images: those of a class alone are named by it, others by all that they ask for."""
    kind = entry.model_dump(mode="json", exclude={"count", "extrapolate"}, exclude_defaults=True)
    name = entry.findings[0] if kind == {"findings": list(entry.findings)} and len(entry.findings) == 1 else artifacts.fingerprint(kind)
    return [runtime.derive_seed(seed, "further", name, k) for k in range(entry.count)]


def _write(out: Path, model: Model, images: NDArray[np.uint8], asked: Wanted, ingest: Path, reporter: Reporter) -> dict[str, Any]:
    """Write the images in every format that the verdict allows; what ``generated.json`` says of them.

    The run's ``ingest`` folder tells which prompts stay, where the set may be shared.
    """
    pixels, version, cleared = pixel_digest(images), software_version(), model.verdict == "pass"
    # By the pixels, so that subjects of two sets never meet in a PACS; the set itself tells them.
    guidance = np.full(len(asked), model.section.guidance_scale, np.float32)
    told = asked.columns | {"seed": np.array(asked.seeds, np.int64), "guidance": guidance}
    told = without_reports(told, ingest) if cleared else told
    table = Table(pixels[:8], model.conditions.classes, tuple(told), several=model.conditions.several)
    labels: list[contents.Label] = list(map(tuple, asked.findings.tolist())) if table.several else asked.findings.argmax(axis=1).tolist()
    further = further_cells(told, len(labels))
    places = {(out / table.picture(0, label)).parent for label in labels} | ({out / contents.DICOM} if cleared else set())
    for folder in places:
        folder.mkdir(parents=True, exist_ok=True)
    with reporter.progress("writing images", len(labels)) as done:
        for number, (image, label) in enumerate(zip(images, labels)):
            text = contents.PICTURE_TEXT if cleared else UNAUDITED
            (out / table.picture(number, label)).write_bytes(png_bytes(image, text))
            if cleared:
                subject, name = contents.subject(table.release, number), table.named(label)
                made = dicom_bytes(image, image_id=subject, label=name, cohort=pixels, version=version)
                (out / table.dicom(number)).write_bytes(made)
            done(number + 1)
    (out / contents.ROWS).write_bytes(table.header + b"".join(map(table.line, range(len(labels)), labels, further)))
    (out / contents.ROWS_TYPED).write_bytes(table.typed(labels, further))
    write_archive(out / contents.ARCHIVE, images, np.array(labels), len(model.conditions.classes))
    if not cleared:
        (out / WARNING).write_text(STAYS, encoding="utf-8")
    sampling = model.section.model_dump(mode="json", exclude={"import_from", "autoguidance", "per_class", "plan"})
    return {
        "synthetic": True,
        "for_diagnosis": False,
        "audited": False,
        "weights": model.verdict,
        "contains_patient_data": not cleared,
        "images": len(labels),
        "sampling": sampling,
        "software": version,
    }
