"""What the parts of a configuration have in common: closed sections, and bounds within which every setting makes sense.

The bounds are far from what anybody needs, and near enough that a slip of the keyboard is told when the configuration is read, not after
hours, or by a program that runs out of memory.
"""

from __future__ import annotations

import re
import reprlib
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError

LETTERS = 1024
"""Letters of any text: a path on Linux may have 4 096 bytes, of up to four a letter."""
ENTRIES = 1000
"""Entries of any list or mapping."""


def _known_home(path: Path) -> Path:
    try:
        path.expanduser()
    except RuntimeError:
        raise PydanticCustomError("home", "no such user's home folder: write the folder out") from None
    return path


def _in_small_letters(value: Any) -> Any:
    if isinstance(value, str) and value != AUTO and value.strip().lower() == AUTO:
        raise PydanticCustomError("auto", "write auto, in small letters and without blanks")
    return value


def unit(name: str) -> Any:
    """What a number counts or measures, for an annotation: ``Annotated[float, Field(gt=0), unit("mm")]``."""
    return Field(json_schema_extra={"unit": name})


# Texts that look like a number, or that Python would take for one: 0x10, 010, 1:30, 1_000, nan.
_NUMBER = re.compile(r"\s*[-+]?\.?(?:\d|inf|nan)", re.IGNORECASE)

Fraction = Annotated[float, Field(gt=0, lt=1), unit("as a share")]
MOST_IMAGES = 10**9
"""The longest training: three hours of the smallest network on the quickest GPU, and a month of an ordinary one."""
Images = Annotated[int, Field(ge=1, le=MOST_IMAGES), unit("images")]
# Larger ones do not fit anywhere at the least side, 16 pixels, and leave no steps to train.
Batch = Annotated[int, Field(ge=1, le=65_536), unit("images")]
Location = Annotated[Path, AfterValidator(_known_home)]
T = TypeVar("T")
AUTO: Literal["auto"] = "auto"
NAMELESS = ""
# A setting that may be left to the cohort (:mod:`pipeline.fit_recipe`); whatever is not `auto` is told what the setting itself is told.
Fitted = Annotated[
    Annotated[T, Tag(NAMELESS)] | Annotated[Literal["auto"], Tag(AUTO)],
    Discriminator(lambda value: AUTO if value == AUTO else NAMELESS),
    BeforeValidator(_in_small_letters),
]
# As the data card and a label in DICOM's LO (PS3.5 section 6.2) can show it.
Line = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]
# DICOM's Code String (PS3.5 section 6.2).
Code = Annotated[str, StringConstraints(pattern=r"^[A-Z0-9_][A-Z0-9_ ]{0,15}$")]


class Section(BaseModel):
    """One part of a configuration: frozen, closed to unknown keys, and of finite numbers and plain text."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _plain(cls, value: Any, info: ValidationInfo) -> Any:
        annotation = cls.model_fields[str(info.field_name)].annotation
        if any(isinstance(kind, type) and issubclass(kind, Section) for kind in (annotation, *get_args(annotation))):
            return value  # it looks at its own settings
        why = not_plain(value)
        if isinstance(value, bool) and annotation is not bool:
            why = "true and false are no value of it"  # and not 1 and 0, as they are to Python
        if _numeric(annotation) and any(map(_NUMBER.match, _texts(value))):
            why = "a number is written in decimal digits and without quotes, such as 64 or 1e-4"
        if why is not None:
            raise PydanticCustomError("plain", "{why}", {"why": why})
        return value


def _numeric(annotation: Any) -> bool:
    """Whether a setting holds numbers."""
    return annotation in (int, float) or any(map(_numeric, get_args(annotation)))


def _texts(value: Any) -> Iterator[str]:
    """The texts in a value: itself, or those in its lists and in the values of its mappings."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list | tuple):
        yield from (text for part in (value.values() if isinstance(value, dict) else value) for text in _texts(part))


def not_plain(value: Any) -> str | None:
    """Why no setting can have such a value; None where one can."""
    if isinstance(value, str):
        if any(unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Zl", "Zp") for letter in value):
            return "it holds a line break or another control character"
        return f"it is longer than {LETTERS} letters" if len(value) > LETTERS else None
    if isinstance(value, int):
        return "it has more than 18 digits" if abs(value) >= 10**18 else None
    if isinstance(value, dict | list | tuple):
        if len(value) > ENTRIES:
            return f"it has more than {ENTRIES} entries"
        parts = [*value, *value.values()] if isinstance(value, dict) else value
        return next((why for part in parts if (why := not_plain(part)) is not None), None)
    return None


def brief(value: Any) -> str:
    """A value in an error: its beginning, in one line."""
    short = reprlib.Repr()
    short.maxstring = short.maxother = 60
    if isinstance(value, int) and abs(value) >= 10**18:
        return f"a number of about {value.bit_length() * 30103 // 100000 + 1} digits"
    if isinstance(value, dict | list | tuple) and not_plain(value) is not None:
        return f"a {'mapping' if isinstance(value, dict) else 'list'} of {len(value)}"
    return short.repr(value)
