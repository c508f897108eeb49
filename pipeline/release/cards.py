"""The cards of the images and of the model that made them: what a user of the release must know, from measured results.

One typed model gives JSON, its schema, and the Markdown of both.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from importlib import metadata, resources
from typing import Any, Literal

import jinja2
from pydantic import BaseModel, ConfigDict, Field

from pipeline.provenance import OTHER, plain_version
from pipeline.release.figures import evaluation_figures, sentences, stress_figures, train_figures
from pipeline.release.making import architecture, how_made, sampling, training
from pipeline.release.results import Results, counted, dig, interval, limitations, number, planted, planted_copies, standing
from pipeline.release.words import setting, title

Verdict = Literal["pass", "fail", "inconclusive", "not judged"]

INTENDED = [
    "Developing and debugging image-analysis software before, or without, access to patients' images.",
    "Adding images of rare findings to a real training set, with a test on real patients.",
    "Teaching, and sharing an example of the cohort's appearance with collaborators and reviewers.",
]
OUT_OF_SCOPE = [
    "Diagnosis, treatment or any decision about a person: no image shows a patient.",
    "Evidence of a device's clinical performance: report performance on real patients only.",
    "Estimating prevalence or any epidemiology: the classes were balanced on purpose.",
    "Attempts to recover or to identify the patients behind the source cohort.",
]


class Part(BaseModel):
    """A part of the card; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Check(Part):
    """One check of the privacy gate."""

    name: str
    meaning: str = ""
    value: float | None = None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    threshold: float | None = None
    verdict: Verdict


class Figure(Part):
    """One measured figure: its name, its value with the 95 % interval as text, and how many images it rests on, where it rests on any."""

    name: str
    value: str
    n: str = ""


class Model(Part):
    """The model that made the images (as of Mitchell et al. 2019), and the verdict on its weights."""

    architecture: str
    training: str
    sampling: str
    figures: list[Figure] = Field(description="what training showed of itself")
    verdict: Literal["pass", "fail", "inconclusive"]
    reasons: list[str]
    checks: list[Check]
    digest: str = Field(description="SHA-256 of the weights that were judged, with the release's id")


class Source(Part):
    """Where the source cohort comes from."""

    name: str
    title: str = ""
    modality: str = ""
    licence: str = ""
    citation: str = ""
    description: str = ""


class DataCard(Part):
    """Card of a synthetic cohort; ``data_cards/data_card.schema.json`` is this model's JSON schema."""

    schema_version: Literal[2] = 2
    title: str
    summary: str
    synthetic: Literal[True] = True
    licence: str
    contact: str
    images: int = Field(ge=1)
    size: int = Field(ge=1, description="side of the square images, in pixels")
    classes: dict[str, int] = Field(description="images of each class")
    unit: Literal["patient", "image"] = Field(description="what the privacy verdict protects")
    intended_uses: list[str] = Field(min_length=1)
    out_of_scope: list[str] = Field(min_length=1)
    how_made: list[str]
    model: Model | None = Field(description="none where the images were made elsewhere")
    deidentification: list[str]
    source: Source
    privacy_verdict: Literal["pass"]
    attempt: int = Field(ge=1, description="which attempt on this cohort was judged")
    gate_version: int = Field(ge=1, description="version of the gate's constants and rules")
    reasons: list[str]
    checks: list[Check]
    power: list[Figure] = Field(description="recall of planted copies, by the change made to them")
    standing: str = Field(description="what the figures can claim: whether the cohort was known before")
    evaluation: list[Figure]
    utility: list[str] = Field(description="what adding these images to the real ones changed, a sentence for each class")
    limitations: list[str] = Field(min_length=1)
    digests: dict[str, str] = Field(description="SHA-256 of what was judged: generated files with the release's id, pixels, rows.csv")
    software: dict[str, str]


def data_card(results: Results, classes: Mapping[str, int], images: int | None = None) -> DataCard:
    """The card of a passed release.

    Args:
        classes: how many released images each class has.
    """
    release = results.config.release
    return DataCard(
        **facts(results.gate, classes, sum(classes.values()) if images is None else images, results.config.ingest.size),
        title=release.title,
        licence=release.licence,
        contact=release.contact,
        how_made=how_made(results),
        model=model_part(results),
        deidentification=actions(results),
        source=Source(**results.source, description=dataset_card(results.source["name"]) or ""),
        power=_power(results),
        standing=standing(results),
        evaluation=key_figures(results),
        utility=sentences(results.evaluation, ["real+synthetic"]),
        limitations=limitations(results),
        software=dict(results.records["generate"].get("packages", {})),
    )


def model_part(results: Results) -> Model | None:
    """The part of the card that is about the model; None where the images were made elsewhere, so that no weights were judged."""
    if results.config.train is None or dig(results.gate, "digests.weights") is None:
        return None
    return Model(
        **weights_facts(results.gate),
        architecture=architecture(results),
        training=training(results),
        sampling=sampling(results),
        figures=[Figure(name=figure.name, value=figure.text, n=figure.n) for figure in train_figures(results.model)],
    )


def weights_facts(gate: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of :class:`Model` that follow from the verdict alone, as ``verify`` asks for them."""
    return {
        "verdict": gate["weights"]["verdict"],
        "reasons": gate["weights"]["reasons"],
        "checks": _checks(gate, "weights"),
        "digest": gate["digests"]["weights"],
    }


def _checks(gate: Mapping[str, Any], subject: str) -> list[Check]:
    return [Check(**{key: check[key] for key in Check.model_fields}) for check in gate["checks"] if check["subject"] == subject]


def facts(gate: Mapping[str, Any], classes: Mapping[str, int], images: int, size: int) -> dict[str, Any]:
    """The card's fields that follow from the verdict and the images alone, as ``verify`` asks for them.

    Args:
        classes: how many released images each class has, or have each finding.
        images: how many there are.
        size: side of the images, in pixels.
    """
    return {
        "summary": f"{counted(images, 'synthetic image')} of {counted(len(classes), 'class', 'classes')}, {counted(size, 'pixel')} square. "
        "None shows a patient.",
        "images": images,
        "size": size,
        "classes": dict(classes),
        "unit": gate["unit"],
        "intended_uses": INTENDED,
        "out_of_scope": OUT_OF_SCOPE,
        "privacy_verdict": gate["images"]["verdict"],
        "attempt": gate["attempt"],
        "gate_version": gate["gate_version"],
        "reasons": gate["images"]["reasons"],
        "checks": _checks(gate, "images"),
        "digests": {name: gate["digests"][name] for name in ("images", "pixels", "rows")},
    }


def licence_text(card: DataCard) -> str:
    """``LICENSE.txt``: the terms of the images, and those of their source cohort."""
    lines = [card.title, "", f"Licence of these synthetic images (SPDX identifier): {card.licence}", f"Contact: {card.contact}"]
    terms = [f"{key.capitalize()}: {text}" for key in ("licence", "citation") if (text := getattr(card.source, key))]
    if terms:
        lines += ["", "The images were generated from a model of a source cohort with its own terms:", *terms]
    return "\n".join(lines) + "\n"


def render_card(card: DataCard) -> str:
    """The card as Markdown; what it quotes is kept on one line each and cannot break out of the page's structure."""
    return _markdown("data_card.md.j2").render(card=card.model_dump(mode="json"))


def render_model_card(card: DataCard) -> str:
    """The card of the model as Markdown, as :func:`render_card`; the images must not have been made elsewhere."""
    return _markdown("model_card.md.j2").render(card=card.model_dump(mode="json"))


@functools.cache
def _markdown(name: str) -> jinja2.Template:
    environment = jinja2.Environment(autoescape=False, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    environment.filters |= {"line": _line, "number": number, "interval": interval, "title": title}
    return environment.from_string(template(name))


@functools.cache
def html_template(name: str) -> jinja2.Template:
    """A page of the package ``data_cards``: what it quotes is escaped, and what is missing is left out."""
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(template), autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.ChainableUndefined
    )
    environment.filters |= {"number": number, "interval": interval, "title": title, "setting": setting}
    return environment.get_template(name)


def template(name: str) -> str:
    """A text that travels in the package ``data_cards``."""
    return (resources.files("data_cards") / name).read_text(encoding="utf-8")


def dataset_card(name: str) -> str | None:
    """The shipped card of a named source data set, as Markdown without its title; None where there is none."""
    path = resources.files("data_cards") / f"{name}.md"
    if not re.fullmatch(r"[a-z0-9_]+", name) or not path.is_file():
        return None
    return path.read_text(encoding="utf-8").partition("\n")[2].strip()


def actions(results: Results) -> list[str]:
    """What de-identification did, as ingest recorded it; its method alone where there was nothing to do."""
    record = results.deidentification
    found = [str(action) for action in record.get("actions") or [record.get("method")] if action]
    kept = record.get("kept")
    return [*found, f"Columns kept of every image: {', '.join(map(str, kept))}."] if isinstance(kept, list) and kept else found


def _power(results: Results) -> list[Figure]:
    """The recall of planted copies: of the kinds that the verdict rests on, then of those that it does not certify."""
    sides = zip(planted_copies(results.audit), ("", " (not certified)"), strict=True)
    return [
        Figure(name=f"{planted(row)}{note}", value=interval(row["recall"]), n=number(row["recall"].get("n")))
        for rows, note in sides
        for row in rows
    ]


def key_figures(results: Results) -> list[Figure]:
    """The evaluation and the stress test in a few lines; what was not measured is left out."""
    found = (*evaluation_figures(results.evaluation), *stress_figures(results.stress))
    return [Figure(name=f"{figure.name[0].upper()}{figure.name[1:]}", value=figure.text, n=figure.n) for figure in found]


def software_version() -> str:
    """The version of this package, or ``unknown`` from a tree that is not installed."""
    try:
        return plain_version(metadata.version("synthcohort"))
    except metadata.PackageNotFoundError:
        return OTHER


def _line(text: Any) -> str:
    """One line of Markdown text: no line breaks, and table, tag and link characters escaped."""
    return re.sub(r"([|<>\[\]`])", r"\\\1", " ".join(str(text).split()))
