"""Reading files that anybody may have made: within bounds of size and depth, and with one kind of error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipeline.release.contents import TEXT_BYTES, json_bytes


class Damage(ValueError):
    """What is wrong with a file of a release, in words that go on after its name."""


def content(path: Path, limit: int = TEXT_BYTES) -> bytes:
    """A file's bytes. Raises Damage where there are more than ``limit``."""
    with path.open("rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise Damage(f"is larger than the {limit:,} bytes that such a file can have")
    return data


def text(path: Path, limit: int = TEXT_BYTES) -> str:
    """A file's UTF-8 text. Raises Damage where it is none, or too long."""
    try:
        return content(path, limit).decode()
    except UnicodeDecodeError:
        raise Damage("is no UTF-8 text") from None


def json_value(path: Path, limit: int = TEXT_BYTES) -> Any:
    """The value of a JSON file of ``limit`` bytes at the most that is written as :func:`json_bytes` writes it.

    Raises:
        Damage: no JSON, too large, too deep, with a repeated key or a number that is none, or written in another way.
    """
    data = content(path, limit)
    try:
        value = json.loads(data, object_pairs_hook=_once, parse_constant=_finite)
        same = json_bytes(value) == data
    except (ValueError, RecursionError) as error:
        raise Damage(str(error) if isinstance(error, Damage) else "is damaged: it cannot be read as JSON") from None
    if not same:
        raise Damage("is not written as a release is: it has other spaces, escapes or numbers")
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Damage("has a key twice")
    return found


def _finite(name: str) -> float:
    raise Damage(f"has the number {name}, which is none")
