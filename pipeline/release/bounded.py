"""Reading files that anybody may have made: within bounds of size and depth, with one kind of error, and each error as a finding."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from pipeline.errors import InputError
from pipeline.release.contents import TEXT_BYTES, json_bytes


class Damage(ValueError):
    """What is wrong with a file of a release, in words that go on after its name."""


def guarded(name: str, check: Callable[..., Iterable[str] | None], *given: Any) -> Iterator[str]:
    """The problems that a check of what is given finds in a file; whatever it raises is one."""
    try:
        yield from check(*given) or ()
    except Damage as error:
        yield f"{name} {error}"
    except InputError as error:
        yield f"{name}: {error}"
    except FileNotFoundError:
        yield f"{name} is missing"
    except Exception as error:  # a file that nobody foresaw must not end the verification
        yield f"{name} cannot be read ({type(error).__name__})"


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


def differs(path: Path, made: bytes) -> bytes | None:
    """A file's bytes, no more than one beyond what was made again, where they differ from that; None where they do not."""
    with path.open("rb") as file:
        found = file.read(len(made) + 1)
    return found if found != made else None


def same(path: Path, made: bytes, of: str) -> None:
    """Raise Damage unless a file holds what was made again from what another one says."""
    if differs(path, made) is not None:
        raise Damage(f"does not say what {of} says")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Damage("has a key twice")
    return found


def _finite(name: str) -> float:
    raise Damage(f"has the number {name}, which is none")
