"""What other programs open a release with: an entry for ``medmnist``, and a Croissant description for loaders and catalogues.

Both follow from card, rows and digests alone, so that ``verify`` makes them again and compares bytes. Neither has a date or an address: a
release is a function of its content, and whoever publishes it adds where and when.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from pipeline.images import FINDING
from pipeline.release import contents
from pipeline.release.cards import DataCard
from pipeline.release.rows import Table

CROISSANT = "http://mlcommons.org/croissant/"
PNG, DCM = "png-files", "dicom-files"
TERMS = (
    *("arrayShape", "citeAs", "column", "containedIn", "equivalentProperty", "extract", "field", "fileObject", "fileProperty", "fileSet"),
    *("format", "includes", "isArray", "isLiveDataset", "jsonPath", "key", "md5", "parentField", "path", "recordSet", "references"),
    *("regex", "repeated", "replace", "samplingRate", "separator", "source", "subField", "transform"),
)
"""Terms of Croissant's own vocabulary that its context maps to it."""


def medmnist_entry(card: DataCard, table: Table, channels: int) -> dict[str, Any]:
    """``medmnist.json``: what ``medmnist.INFO`` must hold for a class of ``medmnist`` to open ``cohort.npz``; the card has the lines.

    Args:
        card: of the release.
        table: of its rows.
        channels: of its images, 1 or 3.
    """
    entry = {
        "python_class": "Cohort",
        "description": f"{card.title}, release {table.release}: {card.summary} Not for diagnosis.",
        "task": "multi-label, binary-class" if table.several else "binary-class" if len(table.classes) == 2 else "multi-class",
        "label": {str(index): name for index, name in enumerate(table.classes)},
        "n_channels": channels,
        "n_samples": {"train": card.images, "val": 0, "test": 0},
        "license": card.licence,
    }
    return {contents.ARCHIVE.removesuffix(".npz"): entry}


def croissant(card: DataCard, table: Table, digests: Mapping[str, str], kinds: Mapping[str, Any]) -> dict[str, Any]:
    """``croissant.json``: the release in Croissant 1.1 (MLCommons, 2026), with its vocabulary for responsible use.

    Args:
        card: of the release.
        table: of its rows.
        digests: SHA-256 of :data:`ROWS`, :data:`ROWS_TYPED` and :data:`ARCHIVE` by name.
        kinds: types of the table's further columns (:meth:`Table.kinds`).
    """
    files = {contents.ROWS: "text/csv", contents.ROWS_TYPED: "application/x-parquet", contents.ARCHIVE: "application/zip"}
    sets = {
        PNG: ("image/png", f"{contents.PICTURES}/{'' if table.several else '*/'}*.png"),
        DCM: ("application/dicom", f"{contents.DICOM}/*.dcm"),
    }
    return {
        "@context": _context(),
        "@type": "sc:Dataset",
        "conformsTo": [f"{CROISSANT}1.1", f"{CROISSANT}RAI/1.0"],
        "name": card.title,
        "description": f"{card.summary} Release {table.release}, privacy verdict {card.privacy_verdict} by {card.unit}. Not for diagnosis.",
        "license": card.licence,
        "version": "1.0.0",
        "citeAs": f"{card.title}: synthetic images, release {table.release}. {card.contact}.",
        "creator": {"@type": "sc:Organization", "name": card.contact},
        "keywords": ["synthetic", "medical images", *([card.source.modality] if card.source.modality else [])],
        "isLiveDataset": False,
        "rai:dataCollection": " ".join(card.how_made),
        "rai:dataUseCases": [*card.intended_uses, *(f"Out of scope: {use}" for use in card.out_of_scope)],
        "rai:dataLimitations": card.limitations,
        "rai:personalSensitiveInformation": card.reasons,
        "distribution": [
            *(
                {"@type": "cr:FileObject", "@id": name, "name": name, "contentUrl": name, "encodingFormat": kind, "sha256": digests[name]}
                for name, kind in files.items()
            ),
            *(
                {"@type": "cr:FileSet", "@id": name, "name": name, "encodingFormat": kind, "includes": pattern}
                for name, (kind, pattern) in sets.items()
            ),
        ],
        "recordSet": [_classes(table), _images(table, kinds)],
    }


def _context() -> dict[str, Any]:
    """The context that the specification gives, in which a reader of JSON-LD needs no network."""
    return {
        "@language": "en",
        "@vocab": "https://schema.org/",
        "cr": CROISSANT,
        "rai": f"{CROISSANT}RAI/",
        "dct": "http://purl.org/dc/terms/",
        "sc": "https://schema.org/",
        "conformsTo": "dct:conformsTo",
        "name": {"@container": "@language"},
        "description": {"@container": "@language"},
        "data": {"@id": "cr:data", "@type": "@json"},
        "examples": {"@id": "cr:examples", "@type": "@json"},
        "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
        **{term: f"cr:{term}" for term in TERMS},
    }


def _classes(table: Table) -> dict[str, Any]:
    """The classes, as an enumeration."""
    return {
        "@type": "cr:RecordSet",
        "@id": "classes",
        "name": "classes",
        "dataType": "sc:Enumeration",
        "key": {"@id": "classes/name"},
        "field": [{"@type": "cr:Field", "@id": "classes/name", "name": "name", "dataType": "sc:Text"}],
        "data": [{"classes/name": name} for name in table.classes],
    }


def _images(table: Table, kinds: Mapping[str, Any]) -> dict[str, Any]:
    """A record an image: the columns of its row, and its pixels."""
    names = {np.int8: "sc:Integer", np.int64: "sc:Integer", np.float32: "sc:Float", str: "sc:Text"}
    findings = {FINDING + name: "sc:Integer" for name in table.classes}
    # The file comes before the label, and by its name: mlcroissant 1.1 joins a record by the first field that refers elsewhere, as text.
    label = {} if table.several else {"label": "sc:Text"}
    columns = {"id": "sc:Text", "file": "sc:Text", **label, **findings, **{name: names[kinds[name]] for name in table.further}}
    source = {"fileObject": {"@id": contents.ROWS_TYPED}}
    fields = {name: _field(name, kind, source | {"extract": {"column": name}}) for name, kind in columns.items()}
    if not table.several:
        fields["label"]["references"] = {"field": {"@id": "classes/name"}}
    fields["file"]["source"] |= {"transform": {"regex": "^.*/([^/]+)$"}}
    fields["file"]["references"] = {"fileSet": {"@id": PNG}, "extract": {"fileProperty": "filename"}}
    pixels = _field("image", "sc:ImageObject", {"fileSet": {"@id": PNG}, "extract": {"fileProperty": "content"}})
    return {
        "@type": "cr:RecordSet",
        "@id": "images",
        "name": "images",
        "description": "Every image with the finding that it was generated for.",
        "key": {"@id": "images/id"},
        "field": [*fields.values(), pixels],
    }


def _field(name: str, kind: str, source: dict[str, Any]) -> dict[str, Any]:
    return {"@type": "cr:Field", "@id": f"images/{name}", "name": name, "dataType": kind, "source": source}
