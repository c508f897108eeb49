"""Reading a configuration: one commented YAML file, or one that travels with the package, with overrides.

Unknown keys, duplicate keys and values of the wrong type are errors, reported together in one line. YAML is read by the
1.2 rules for booleans: only ``true`` and ``false`` are booleans, so that a class called ``no`` or ``on`` stays a string. Numbers are
decimal: ``0x10``, ``010``, ``1:30`` and ``1_000``, which YAML 1.1 takes for 16, 8, 90 and 1000, are texts, and no value of a number.
"""

from __future__ import annotations

import codecs
import difflib
import json
import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from pipeline.config.describe import nearest, sections
from pipeline.config.run import Config
from pipeline.config.section import NAMELESS, brief
from pipeline.errors import InputError, system_refusals

LARGEST = 1 << 18
"""Bytes of a file; PyYAML takes seconds for as many."""
DEEPEST = 16
"""Mappings and lists inside each other; a configuration needs four."""
TOLD = 10
"""Problems told at once."""
_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16, whose mark it begins with
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


class _Loader(yaml.SafeLoader):
    """YAML without surprises: duplicate keys, aliases and deep nests are errors, and only true and false are booleans."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        line = self.peek_event().start_mark.line + 1  # type: ignore[no-untyped-call]
        if self.check_event(yaml.AliasEvent):  # a few of them can stand for more than any memory holds
            raise InputError(f"line {line}: aliases (*name) are not read: write the value out")
        if self.depth == DEEPEST:
            raise InputError(f"line {line}: more than {DEEPEST} mappings or lists inside each other")
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (InputError, yaml.YAMLError, RecursionError):
            raise
        except Exception:  # PyYAML's own, such as for a date of the 13th month or a number of 10 000 digits
            raise InputError(f"line {node.start_mark.line + 1}: {brief(node.value)} is not a value") from None

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            name = self.construct_object(key, deep=True)
            if not isinstance(name, str | int | float):
                raise InputError(f"line {key.start_mark.line + 1}: a key must be a name")
            if name in seen:
                raise InputError(f"the key {brief(name)} appears twice (line {key.start_mark.line + 1}): keep one of them")
            seen.add(name)
        return super().construct_mapping(node, deep)


_TAG = "tag:yaml.org,2002:"
_OWN = {f"{_TAG}{kind}" for kind in ("bool", "int", "float", "timestamp")}
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in _OWN]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_WHOLE = "[-+]?(?:0|[1-9][0-9]*)"
for kind, pattern, first in (
    ("bool", "true|false", "tf"),
    ("int", _WHOLE, "-+0123456789"),
    ("float", rf"{_WHOLE}(?:\.[0-9]*)?(?:[eE][-+]?[0-9]+)?|[-+]?\.[0-9]+(?:[eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("float", r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)", "-+."),  # numbers, to be refused as such
):
    _Loader.add_implicit_resolver(_TAG + kind, re.compile(f"^(?:{pattern})$"), list(first))


def shipped() -> list[str]:
    """Names of the configurations that travel with the package."""
    return sorted(entry.name.removesuffix(".yaml") for entry in resources.files("configs").iterdir() if entry.name.endswith(".yaml"))


def load_config(config: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a configuration: a path to a YAML file, or the name of a shipped one.

    Args:
        config: a file, or a name of :func:`shipped`.
        overrides: ``section.key=value`` strings as ``--set`` gives them; the value is read as YAML.

    Raises:
        InputError: no such configuration, a key or value that the models do not allow (all of them in one line).
    """
    return config_of(_read(config), overrides, str(config))


def config_of(data: dict[str, Any], overrides: Sequence[str] = (), where: str = "the configuration") -> Config:
    """A configuration from its sections as plain mappings; ``overrides`` and errors as for :func:`load_config`, which names ``where``."""
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals or not key.strip():
            raise InputError(f"--set {brief(override)} is not KEY=VALUE: write it as --set train.batch=64")
        *parents, leaf = key.split(".")
        section = data
        for parent in parents:
            section = section.setdefault(parent, {})
            if not isinstance(section, dict):
                raise InputError(f"--set {brief(override)}: {brief(parent)} is not a section")
        section[leaf] = parse(value, f"--set {brief(override)}")
    try:
        return Config.model_validate(data)
    except ValidationError as error:
        raise InputError(f"{where}: {one_line(error)}") from None


def read_yaml(path: Path) -> Any:
    """What a YAML file holds, read as a configuration is. Raises InputError where it is missing or no such YAML."""
    with system_refusals(path):
        return parse(_text(path), str(path))


def _text(path: Path) -> str:
    with path.open("rb") as file:
        return _decoded(file.read(LARGEST + 1), path)


def written(text: str) -> str:
    """A text as YAML, which :func:`load_config` reads as the same text: without quotes where it can be."""
    plain = text.isprintable() and not set(text) & set("\"'#:,[]{}&*!|>%@`")
    try:
        plain = plain and yaml.load(f"[{text}]", _Loader) == [text]
    except (yaml.YAMLError, InputError):
        plain = False
    return text if plain else json.dumps(text, ensure_ascii=not text.isprintable())


def _read(config: str | Path) -> dict[str, Any]:
    path = Path(config)
    with system_refusals(path):
        if path.is_file():
            text = _text(path)
        elif str(config) in shipped():
            text = (resources.files("configs") / f"{config}.yaml").read_text(encoding="utf-8")
        elif path.is_dir():
            raise InputError(f"{config} is a folder: synthcohort init {config} --write FILE.yaml writes a configuration for it")
        else:
            beside = [str(file) for file in sorted(path.parent.glob("*.y*ml"))]
            alike = [file for file in beside if file.lower().rpartition(".")[0] in (str(config).lower(), str(path.with_suffix("")).lower())]
            close = [*alike, *difflib.get_close_matches(str(config), shipped(), 1)]
            meant = f"did you mean {close[0]}? " if close else ""
            names = ", ".join(shipped())
            raise InputError(f"no configuration {brief(str(config))}, and no such folder: {meant}give a YAML file, or one of {names}")
    data = parse(text, str(config))
    if not isinstance(data, dict):
        raise InputError(f"{config}: not a mapping of sections, as a configuration is: synthcohort init FOLDER --write FILE.yaml makes one")
    return data


def _decoded(content: bytes, path: Path) -> str:
    """The text of a file in UTF-8, or in UTF-16 or UTF-32 with a byte order mark."""
    if len(content) > LARGEST:
        raise InputError(f"{path}: larger than {LARGEST >> 10} KiB, which no configuration is: give the YAML file")
    encoding = next((name for mark, name in _MARKS.items() if content.startswith(mark)), "utf-8")
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        if b"\0" in content:
            raise InputError(f"{path}: no text, and so no configuration: give the YAML file") from None
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}: not {encoding.upper().removesuffix('-SIG')} at line {line}: save it as UTF-8") from None


def parse(text: str, where: str) -> Any:
    """What a YAML text holds. Raises InputError, naming ``where``, for what is no YAML or would surprise."""
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" at line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "it cannot be read"
        raise InputError(f"{where}: not valid YAML{line}: {problem}") from None
    except RecursionError:
        raise InputError(f"{where}: more than {DEEPEST} mappings or lists inside each other") from None
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


_QUOTES = "'\""
_SHAPES = {
    "tuple_type": "list: write {key}='[{value}, ...]'",
    "dict_type": "mapping: write {key}='{{NAME: {value}}}'",
    "model_type": "section: write {key}.KEY=VALUE; synthcohort settings {key} lists its keys",
}
"""What is said where one value stands for a list, a mapping or a section, by pydantic's name of the error."""


def one_line(error: ValidationError) -> str:
    """What is wrong with settings, all of it in one line."""
    items = [item for item in error.errors() if item["type"] != "too_short" or not item["input"]]  # else told item by item
    problems, unlike = [], set[str]()
    for item in items[:TOLD]:
        key = ".".join(str(part) for part in item["loc"] if part != NAMELESS)
        where = brief(key)[1:-1]
        if item["type"] == "extra_forbidden":
            meant = nearest(key)
            unlike |= {key.partition(".")[0]} if not meant else set()
            problems.append(f"unknown key {where}{f': {meant}' if meant else ''}")
        elif item["type"] in _SHAPES and not isinstance(item["input"], dict | list):
            problems.append(f"{where} is a {_SHAPES[item['type']].format(value=brief(item['input']).strip(_QUOTES), key=where)}")
        elif item["type"] == "missing":
            problems.append(f"{where} is missing")
        elif item["type"] == "value_error":
            problems.append(str(item["ctx"]["error"]))
        else:
            problems.append(f"{where}: {item['msg'][0].lower()}{item['msg'][1:]}, got {brief(item['input'])}")
    further = len(items) - len(problems)
    where = f" {unlike.pop()}" if len(unlike) == 1 and unlike <= sections().keys() else ""
    listed = f"; synthcohort settings{where} lists what there is" if unlike or where else ""
    return "; ".join(problems) + (f"; and {further} more" if further else "") + listed
