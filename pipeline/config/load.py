"""Reading a configuration: one commented YAML file, or one that travels with the package, with overrides.

Unknown keys, duplicate keys and values of the wrong type are errors, reported together in one line. YAML is read by the
1.2 rules for booleans: only ``true`` and ``false`` are booleans, so that a class called ``no`` or ``on`` stays a string.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from pipeline.config.run import Config
from pipeline.errors import InputError


class _Loader(yaml.SafeLoader):
    """YAML without surprises: duplicate keys are errors, and only true and false are booleans."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise InputError(f"the key {key!r} appears twice (line {node.start_mark.line + 1}): keep one of them")
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|false)$"), ["t", "f"])


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
        if not equals:
            raise InputError(f"--set {override!r} is not KEY=VALUE: write it as --set train.batch=64")
        *parents, leaf = key.split(".")
        section = data
        for parent in parents:
            section = section.setdefault(parent, {})
            if not isinstance(section, dict):
                raise InputError(f"--set {override!r}: {parent} is not a section")
        section[leaf] = _parse(value, f"--set {override}")
    try:
        return Config.model_validate(data)
    except ValidationError as error:
        raise InputError(f"{where}: {_one_line(error)}") from None


def _read(config: str | Path) -> dict[str, Any]:
    path = Path(config)
    if path.is_file():
        text = path.read_text(encoding="utf-8")
    elif str(config) in shipped():
        text = (resources.files("configs") / f"{config}.yaml").read_text(encoding="utf-8")
    else:
        raise InputError(f"no configuration {str(config)!r}: give a YAML file, or one of {', '.join(shipped())}")
    data = _parse(text, str(config))
    if not isinstance(data, dict):
        raise InputError(f"{config}: not a mapping of sections; see the shipped configs for the layout")
    return data


def _parse(text: str, where: str) -> Any:
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" at line {mark.line + 1}" if mark else ""
        raise InputError(f"{where}: not valid YAML{line}: {getattr(error, 'problem', error)}") from None
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def _one_line(error: ValidationError) -> str:
    problems = []
    for item in error.errors():
        where = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            problems.append(f"unknown key {where}")
        elif item["type"] == "missing":
            problems.append(f"{where} is missing")
        elif item["type"] == "value_error":
            problems.append(str(item["ctx"]["error"]))
        else:
            problems.append(f"{where}: {item['msg'][0].lower()}{item['msg'][1:]}, got {item['input']!r}")
    return "; ".join(problems)
