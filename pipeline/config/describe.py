"""Every setting as the models have it: its key, what it means, its default, range and unit. Nothing is said of a setting anywhere else."""

from __future__ import annotations

import difflib
import functools
import json
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.config.run import Config

WIDTH = 100
"""Letters of a line of the Markdown page."""
NEAREST = 2
"""Names that are offered for one that does not exist."""


@dataclass(frozen=True)
class Setting:
    """One key of a configuration.

    Attributes:
        key: as ``--set`` takes it, such as ``train.batch``.
        meaning: its docstring, in one line.
        default: as a configuration would write it; None where the key must be given.
        allowed: the values that it may have, with their unit.
    """

    key: str
    meaning: str
    default: str | None
    allowed: str

    @property
    def section(self) -> str:
        """The section that it stands in; an empty string for what belongs to the whole run."""
        return self.key.partition(".")[0] if "." in self.key else ""


@functools.cache
def settings() -> tuple[Setting, ...]:
    """Every setting, section by section in the order of a run."""
    schema = Config.model_json_schema()
    return tuple(_settings(schema, schema["$defs"], ""))


@functools.cache
def sections() -> dict[str, str]:
    """What each section is for, by its name."""
    schema = Config.model_json_schema()
    found = {name: _section(field, schema["$defs"]) for name, field in schema["properties"].items()}
    return {name: _plain(section["description"]) for name, section in found.items() if section is not None}


def changed(config: Config) -> dict[str, str]:
    """The settings of a configuration that differ from their defaults, by key, as a configuration writes them.

    Those without a default, and paths, are not among them.
    """
    found = {}
    for setting in settings():
        *above, name = setting.key.split(".")
        section: Any = config
        for part in above:
            section = getattr(section, part, None)
        if section is None or setting.default is None or "path" in setting.allowed.split():
            continue
        value = _written(section.model_dump(mode="json", include={name})[name])
        if value != setting.default:
            found[setting.key] = value
    return found


def nearest(key: str) -> str:
    """What was meant by a key that does not exist, as a question; an empty string where no name is like it."""
    known = [*sections(), *(setting.key for setting in settings())]
    section, _, leaf = key.rpartition(".")
    beside = {name.rpartition(".")[2]: name for name in known if name.rpartition(".")[0] == section}
    elsewhere = [name for name in known if "." in name and name.rpartition(".")[2] == leaf]  # the right name in the wrong section
    found = [*elsewhere, *(beside[name] for name in difflib.get_close_matches(leaf, beside, NEAREST))][:NEAREST]
    return f"did you mean {' or '.join(found)}?" if found else ""


def markdown() -> str:
    """The page ``SETTINGS.md``."""
    lines = [
        "# Settings",
        "",
        "Every key of a configuration, as `synthcohort settings` prints it and `--set KEY=VALUE` takes it.",
        "This page is made by `synthcohort settings --markdown > SETTINGS.md`.",
    ]
    fill = functools.partial(textwrap.fill, width=WIDTH, break_long_words=False, break_on_hyphens=False)
    for name in ("", *sections()):
        lines += ["", f"## {name or 'The whole run'}", *([fill(sections()[name])] if name else []), ""]
        for setting in settings():
            if setting.section == name:
                default = "needed" if setting.default is None else f"default `{setting.default}`"
                text = f"- **`{setting.key}`** ({default}; {setting.allowed}): {setting.meaning}"
                lines += [fill(text, subsequent_indent="  ")]
    return "\n".join(lines) + "\n"


def _settings(section: Mapping[str, Any], models: Mapping[str, Any], above: str) -> Iterator[Setting]:
    later = []
    for name, field in section["properties"].items():
        inner = _section(field, models)
        if inner is not None:
            later.append((inner, f"{above}{name}."))
            continue
        required = name in section.get("required", ())
        default = None if required else _written(field.get("default", {}))
        yield Setting(above + name, _plain(field.get("description", "")), default, _allowed(field, models))
    for inner, prefix in later:
        yield from _settings(inner, models, prefix)


def _section(field: Mapping[str, Any], models: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The section that a field holds; None where it is a setting."""
    named = [part["$ref"] for part in (field, *field.get("anyOf", ())) if "$ref" in part]
    return models[named[0].rpartition("/")[2]] if named else None


def _allowed(field: Mapping[str, Any], models: Mapping[str, Any]) -> str:
    """The values of a JSON schema in words."""
    parts = field.get("anyOf", field.get("oneOf"))
    if parts is not None:
        words = [_allowed(part, models) for part in parts if part.get("type") != "null"]
        return " or ".join([*words, *(["null"] if len(words) < len(parts) else [])])
    if "$ref" in field:
        return f"{{{', '.join(models[field['$ref'].rpartition('/')[2]]['properties'])}}}"
    if "enum" in field or "const" in field:
        return _either([_written(value) for value in field.get("enum", [field.get("const")])])
    kind = field.get("type")
    if kind in ("integer", "number"):
        return _numbers(field, "whole number" if kind == "integer" else "number")
    if kind == "boolean":
        return "true or false"
    if kind == "array":
        return _list(field, models)
    if kind == "object":
        [values] = [field["additionalProperties"]] if "additionalProperties" in field else list(field["patternProperties"].values())
        return f"{{name: value}}, each {_allowed(values, models)}"
    if field.get("format") == "path":
        return "path"
    limit = f" of up to {field['maxLength']} letters" if "maxLength" in field else ""
    return f"text{limit}{f' like `{pattern}`' if (pattern := field.get('pattern')) else ''}"


def _numbers(field: Mapping[str, Any], kind: str) -> str:
    """A range: ``1 to 64 images``, ``number above 0 and under 1``."""
    unit = f" {field['unit']}" if "unit" in field else ""
    if "minimum" in field and "maximum" in field:
        return f"{_spaced(field['minimum'])} to {_spaced(field['maximum'])}{unit}"
    words = {"minimum": "from", "exclusiveMinimum": "above", "exclusiveMaximum": "and under"}
    bounds = "".join(f" {word} {_spaced(field[name])}" for name, word in words.items() if name in field)
    return f"{kind}{bounds}{',' if bounds else ''}{unit}" if unit else f"{kind}{bounds}"


def _spaced(number: float) -> str:
    """A number with its thousands apart."""
    return (f"{int(number):,}" if number == int(number) else f"{number:g}").replace(",", " ")


def _list(field: Mapping[str, Any], models: Mapping[str, Any]) -> str:
    if "prefixItems" in field:
        items = [_allowed(item, models) for item in field["prefixItems"]]
        return f"[...] of {len(items)} values, each {_either(list(dict.fromkeys(items)))}"
    most = f"up to {field['maxItems']} values" if "maxItems" in field else "values"
    return f"[...] of {most}, each {_allowed(field['items'], models)}"


def _either(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def _written(value: Any) -> str:
    """A value as a configuration writes it."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _plain(text: str) -> str:
    return " ".join(text.replace("``", "`").split())
