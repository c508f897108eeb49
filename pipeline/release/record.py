"""The record that the stage leaves in a release's folder, as a closed form: whatever stands in it is bound to the release, or typed."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal

from markupsafe import escape
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from pipeline.artifacts import SEAL, fingerprint
from pipeline.provenance import MACHINES, OTHER, PACKAGES
from pipeline.release.bounded import Damage
from pipeline.release.contents import DIGEST, SOFTWARE


def _time(text: str) -> str:
    """Raise ValueError for a time of the 13th month and the like."""
    datetime.strptime(text, "%Y-%m-%dT%H:%M:%S%z")
    return text


def _tenths(seconds: float) -> float:
    if round(seconds, 1) != seconds:
        raise ValueError("it has more digits than a stage's seconds")
    return seconds


Digest = Annotated[str, Field(pattern=f"^{DIGEST.pattern}$")]
Version = Annotated[str, Field(pattern=f"^(?:{SOFTWARE.pattern})$")]
Time = Annotated[str, Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}[+-][0-9]{4}$"), AfterValidator(_time)]
Text = Annotated[str, Field(max_length=1000)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class _Settings(_Part):
    title: Text
    licence: Text
    contact: Text
    max_copy_rate: float | None = None


class _Inputs(_Part):
    all: Digest


class _Identity(_Part):
    stage: Literal["release"]
    version: int = Field(ge=1, le=10_000)
    seed: int = Field(ge=0, lt=1 << 64)
    config: _Settings
    inputs: _Inputs


class _Hardware(_Part):
    machine: str = Field(pattern=f"^(?:{'|'.join((*MACHINES, OTHER))})$")
    cpus: int | None = Field(ge=1, le=100_000)


class _Record(_Part):
    fingerprint: Digest
    identity: _Identity
    digest: Digest
    files: dict[str, Digest]
    sizes: dict[str, int]
    packages: dict[str, Version]
    hardware: _Hardware
    summary: dict[str, str | int]
    seconds: Annotated[float, Field(ge=0, le=1e9), AfterValidator(_tenths)]
    finished: Time
    contains_patient_data: Literal[False]
    seal: Digest


def check_record(value: Any, gate: Mapping[str, Any], digests: Mapping[str, str], sizes: Mapping[str, int], page: str) -> None:
    """Raise Damage unless a record is that of this release.

    Args:
        value: the content of ``record.json``.
        gate: of ``gate.json``, found to be sound.
        digests, sizes: of all other files of the release.
        page: its report, which quotes the texts of its settings.
    """
    try:
        record = _Record.model_validate(value)
    except ValidationError as error:
        item = error.errors(include_input=False, include_url=False)[0]
        raise Damage(f"is none of a release's stage: {'.'.join(map(str, item['loc']))[:80]}: {item['msg']}") from None
    verdict = gate["images"]["verdict"]
    summary = {"verdict": verdict, "weights": gate["weights"]["verdict"], "attempt": gate["attempt"]}
    copies = next(check for check in gate["checks"] if check["name"] == "copies")
    settings = record.identity.config
    bound = {
        "identity": record.fingerprint == fingerprint(value["identity"]),
        "seal": record.seal == fingerprint({name: entry for name, entry in value.items() if name != SEAL}),
        "files": value["files"] == digests and value["sizes"] == sizes and record.digest == fingerprint(value["files"]),
        "summary": record.summary == summary | {"images": copies["images"] if verdict == "pass" else 0},
        "packages": set(record.packages) <= {"python", *PACKAGES},
        "seed and bound": f"(seed {record.identity.seed})" in page and settings.max_copy_rate in (None, copies["threshold"]),
        "texts": all(escape(text) in page for text in (settings.title, settings.licence, settings.contact)),
    }
    wrong = [name for name, holds in bound.items() if not holds]
    if wrong:
        raise Damage(f"is not the record of this release: its {wrong[0]} differ")
