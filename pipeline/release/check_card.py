"""The card of a release against its model, its verdict and its rows, and the files that follow from it, made again and compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from pipeline.provenance import PACKAGES
from pipeline.release import contents
from pipeline.release.bounded import guarded, json_value, same
from pipeline.release.cards import DataCard, dataset_card, facts, licence_text, render_card, render_model_card, weights_facts
from pipeline.release.descriptions import croissant, medmnist_entry
from pipeline.release.rows import Rows


def check_card(path: Path, gate: Mapping[str, Any], rows: Rows, shape: tuple[int, ...], archive: str) -> Iterator[str]:
    """What is wrong with ``data_card.json`` and with the texts and descriptions that follow from it, one line each.

    Args:
        path: the release's folder.
        gate: of ``gate.json``, found to be sound.
        rows: of ``rows.csv``, found to be sound.
        shape: ``n, C, H, W`` of its images.
        archive: SHA-256 of ``cohort.npz``, found to be sound; empty where it was not.
    """
    value = json_value(path / contents.CARD)
    try:
        card = DataCard.model_validate(value)
    except ValidationError as error:
        listed = error.errors(include_input=False, include_url=False)[:20]
        yield from (f"{contents.CARD}: {'.'.join(map(str, item['loc']))[:80]}: {item['msg']}" for item in listed)
        return
    has = np.array([rows.table.findings(label) for label in rows.labels]).reshape(-1, len(rows.table.classes))
    counts = {name: int((has[:, index] == 1).sum()) for index, name in enumerate(rows.table.classes)}
    asked = facts(gate, counts, shape[0], shape[2])
    yield from (f"{contents.CARD} says of {name} what verdict and images do not" for name in asked if getattr(card, name) != asked[name])
    yield from _model(card, gate)
    if contents.json_bytes(card.model_dump(mode="json")) != contents.json_bytes(value):
        yield f"{contents.CARD} has values of another type than a card's"
    if card.source.description != (dataset_card(card.source.name) or ""):
        yield f"{contents.CARD} has another description of its source than ours"
    if not card.software.keys() <= {"python", *PACKAGES} or not all(map(contents.SOFTWARE.fullmatch, card.software.values())):
        yield f"{contents.CARD} names software that no run has"
    quoted = card.model_dump(exclude={"digests": True, "source": {"description"}, "model": {"digest"}})
    if any("\n" in line for line in _strings(quoted)) or contents.no_language(_strings(quoted)):
        yield f"{contents.CARD} holds a text that is no language: line breaks or encoded data"
    for name, made in _made_of(card, rows, shape[1], archive).items():
        yield from guarded(name, same, path / name, made, contents.CARD)


def _model(card: DataCard, gate: Mapping[str, Any]) -> Iterator[str]:
    """What the card says of the weights, against the verdict."""
    if (card.model is None) != (gate["digests"]["weights"] is None):
        yield f"{contents.CARD} describes a model where none was judged, or none where one was"
    elif card.model is not None:
        yield from (
            f"{contents.CARD} says of the model, in {name}, what does not follow from the verdict"
            for name, value in weights_facts(gate).items()
            if getattr(card.model, name) != value
        )


def _made_of(card: DataCard, rows: Rows, channels: int, archive: str) -> dict[str, bytes]:
    """The files that follow from the card, and from rows and images that were checked."""
    typed = contents.bytes_digest(rows.table.typed(rows.labels, rows.further))
    digests = {contents.ROWS: rows.digest, contents.ROWS_TYPED: typed, contents.ARCHIVE: archive}
    made = {
        contents.CARD_TEXT: render_card(card).encode(),
        contents.LICENCE: licence_text(card).encode(),
        contents.MEDMNIST: contents.json_bytes(medmnist_entry(card, rows.table, channels)),
        contents.CROISSANT: contents.json_bytes(croissant(card, rows.table, digests, rows.table.kinds(rows.further))),
    }
    return made | ({contents.MODEL_CARD: render_model_card(card).encode()} if card.model else {})


def _strings(tree: Any) -> Iterator[str]:
    if isinstance(tree, str):
        yield tree
    elif isinstance(tree, Mapping):
        yield from (text for pair in tree.items() for part in pair for text in _strings(part))
    elif isinstance(tree, list | tuple):
        yield from (text for part in tree for text in _strings(part))
