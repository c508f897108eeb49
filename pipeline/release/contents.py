"""The closed list of what a release may hold, read by whoever writes one and by ``verify``: what is not named here is not released.

A release of any other verdict than ``pass`` holds its verdict and a report. A passed one holds its images as PNG, DICOM and one archive,
their rows twice, what other programs need to open them, cards of the images and of the model that made them, the licence, and the checksums
of all of it. A signature is optional, and signs the checksums.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any

from pipeline.artifacts import fingerprint
from pipeline.provenance import VERSION

GATE, REPORT, ROWS, ARCHIVE = "gate.json", "report.html", "rows.csv", "cohort.npz"
ROWS_TYPED, MEDMNIST, CROISSANT = "rows.parquet", "medmnist.json", "croissant.json"
CARD, CARD_TEXT, MODEL_CARD, LICENCE = "data_card.json", "data_card.md", "model_card.md", "LICENSE.txt"
CHECKSUMS, SIGNATURE = "SHA256SUMS", "SHA256SUMS.sig"
SIGNATURE_BYTES = 64
PICTURES, DICOM = "images", "dicom"
REFUSED = frozenset({GATE, REPORT})
PASSED = REFUSED | {ROWS, ROWS_TYPED, ARCHIVE, MEDMNIST, CROISSANT, CARD, CARD_TEXT, LICENCE, CHECKSUMS}
"""And :data:`MODEL_CARD`, where the model is known: see :func:`passed_files`."""
PICTURE_TEXT = (b"Disclaimer", b"synthetic, not for diagnosis")
"""Keyword and text of the one text chunk of every PNG file (tEXt, ISO/IEC 15948, section 11.3.4.3)."""

GATE_KEYS = (
    *("verdict", "unit", "images", "weights", "needed", "gate_version"),
    *("checks", "replication", "release", "software", "digests", "attempt"),
)
DIGEST_KEYS = ("images", "weights", "pixels", "rows")
JUDGED_FILES = {
    "images": re.compile(r"images-[0-9]{5}\.npy|rows\.parquet"),
    "weights": re.compile(r"[a-z]+\.safetensors|ema/[0-9]{8}\.safetensors"),
}
"""Names of the run's files that ``gate.json`` binds, by one digest a subject: see :func:`judged_digest`."""
JUDGED_STAGES = {"images": "generate", "weights": "train"}
RELEASE_ID = re.compile(r"[0-9a-f]{8}")
DIGEST = re.compile(r"[0-9a-f]{64}")
SOFTWARE = re.compile(rf"unknown|{VERSION.pattern}")
TEXT_BYTES = 1 << 20
"""Largest JSON, Markdown or licence text, and the report without its pictures: some twenty times what they take."""
FILE_BYTES = 500
"""More than a file of the release takes in its record."""
LINE_BYTES = 1 << 20
SAMPLES = 12
"""Pictures of each class in the report of a passed release, at the most."""
WORD = 66
"""Longest word of a text: longer ones are no language, but data."""
ODD_WORDS = 40
"""Distinct words of letters and digits mixed, as in encoded data, that a file may hold: names of data sets and classes can look so."""
_ODD = re.compile(r"(?=.*[0-9])(?=.*[A-Za-z])[A-Za-z0-9+/=_-]{8,}")


def subject(release: str, number: int) -> str:
    """Id of image ``number`` of a release: of its row, its files, and its synthetic patient (VR LO, PS3.5 section 6.2).

    Args:
        release: 8 hexadecimal digits that no other release shares, so that subjects of two never meet in a PACS.
        number: place of the image among the rows, from 0.
    """
    return f"SYN-{release}-{number:06d}"


def passed_files(gate: Mapping[str, Any]) -> frozenset[str]:
    """The files at the top of a passed release; a foreign set, whose verdict is bound to no weights, has no card of a model."""
    return PASSED | ({MODEL_CARD} if gate["digests"]["weights"] is not None else frozenset())


def class_folders(classes: Sequence[str]) -> dict[str, str]:
    """A folder name for each class: its own name where it is a plain one, made plain and distinct where it is not."""
    folders: dict[str, str] = {}
    # Some file systems do not tell upper from lower case.
    taken: set[str] = set()
    for index, name in enumerate(classes):
        plain = re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._")[:80] or "class"
        folder = plain
        while folder.lower() in taken:
            folder = f"{folder}_{index}"
        taken.add(folder.lower())
        folders[name] = folder
    return folders


Label = int | tuple[int, ...]
"""What an image was made for: its class's index, or of several findings 1, 0, or -1 (left open) for each."""


def array_shapes(images: Sequence[int], findings: int | None = None) -> dict[str, tuple[int, ...]]:
    """The arrays of ``cohort.npz`` in order, MedMNIST's layout: all images are in ``train``, of shape ``n,H,W`` or ``n,H,W,3``, uint8.

    Labels are ``[n, 1]``, class indices in the order of the finding columns, or of several findings ``[n, findings]``; val and test are
    there and empty.
    """
    splits = ("train", "val", "test")
    counts = {name: images[0] if name == "train" else 0 for name in splits}
    pictures = {f"{name}_images": (counts[name], *images[1:]) for name in splits}
    return pictures | {f"{name}_labels": (counts[name], findings or 1) for name in splits}


def label_type(classes: int, several: bool = False) -> str:
    """The numpy type of the labels in ``cohort.npz``: of several findings 1, 0, or -1 for what was left open."""
    if several:
        return "|i1"
    return "|u1" if classes <= 256 else "<u2"


def bytes_digest(data: bytes) -> str:
    """SHA-256 of a file's bytes."""
    return hashlib.sha256(data).hexdigest()


def judged_digest(release: str, subject: str, files: Mapping[str, str]) -> str | None:
    """What binds a verdict to the files that were judged: one digest, which nobody can trace to another release's.

    The release's id is hashed with them. Two releases of one model would otherwise state the same weights, and be known for one cohort's.

    Args:
        release: the id.
        subject: a key of :data:`JUDGED_FILES`, which chooses among the files.
        files: SHA-256 by name, as the stage's record has them.

    Returns:
        64 hexadecimal digits; None where there is no such file, as a foreign set comes without its weights.
    """
    judged = {name: digest for name, digest in files.items() if JUDGED_FILES[subject].fullmatch(name)}
    return fingerprint({"release": release, "files": judged}) if judged else None


def json_bytes(value: Any) -> bytes:
    """The one way in which a release writes JSON, so that nothing hides in spaces, escapes or repeated keys."""
    return (json.dumps(value, indent=1, allow_nan=False) + "\n").encode()


def checksums(digests: Mapping[str, str]) -> bytes:
    """``SHA256SUMS``, as ``sha256sum -c`` reads it, of digests by path."""
    return "".join(f"{digest}  {name}\n" for name, digest in sorted(digests.items())).encode()


def pixel_hash(shape: Sequence[int]) -> hashlib._Hash:
    """The hash that binds a verdict to pixels, whatever file holds them: SHA-256 of the shape ``n,C,H,W`` as text, then the bytes.

    It is returned after the shape; the images' bytes, in C order and in the order of the rows, are the caller's to add.
    """
    return hashlib.sha256(",".join(str(side) for side in shape).encode())


def suspicious(text: str) -> bool:
    """Whether a text holds what is no language: characters that are not printed, a long word, or three words in a row like encoded data."""
    if not text.replace("\n", " ").isprintable():
        return True
    words = text.split()
    encoded = [len(word) >= 24 and re.fullmatch(r"[A-Za-z0-9+/=_-]+", word) is not None for word in words]
    return any(len(word) > WORD for word in words) or any(all(encoded[i : i + 3]) for i in range(len(encoded) - 2))


def no_language(texts: Iterable[str], known: Set[str] = frozenset()) -> bool:
    """Whether the texts of one file hold data: one of them is :func:`suspicious`, or too many of their words mix letters and digits.

    Args:
        known: words that are not counted.
    """
    odd: set[str] = set()
    for text in texts:
        if suspicious(text):
            return True
        odd |= {word for word in text.split() if word not in known and _ODD.fullmatch(word)}
        if len(odd) > ODD_WORDS:
            return True
    return False
