"""The record that the stage leaves in a release's folder, as a closed form: whatever stands in it is bound to the release, or typed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from markupsafe import escape
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.artifacts import PACKAGES, SEAL, fingerprint
from pipeline.release.bounded import Damage
from pipeline.release.contents import DIGEST, VERSION

Digest = Annotated[str, Field(pattern=f"^{DIGEST.pattern}$")]
Version = Annotated[str, Field(pattern=f"^{VERSION.pattern}$")]
Text = Annotated[str, Field(max_length=1000)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class _Settings(_Part):
    title: Text
    licence: Text
    contact: Text
    max_copy_rate: float | None = None


class _Identity(_Part):
    stage: Literal["release"]
    version: int = Field(ge=1, le=10_000)
    seed: int = Field(ge=0, lt=1 << 64)
    config: _Settings
    inputs: dict[Annotated[str, Field(pattern="^[a-z]{1,20}$")], Digest] = Field(max_length=20)


class _Hardware(_Part):
    machine: str = Field(pattern=r"^[A-Za-z0-9_.-]{0,40}$")
    cpus: int | None = Field(ge=1, le=100_000)
    gpu: str | None = Field(default=None, pattern=r"^[A-Za-z0-9 ()/_.-]{1,64}$")


class _Record(_Part):
    fingerprint: Digest
    identity: _Identity
    digest: Digest
    files: dict[str, Digest]
    sizes: dict[str, int]
    packages: dict[str, Version]
    hardware: _Hardware
    summary: dict[str, str | int]
    seconds: float = Field(ge=0, le=1e9)
    finished: str = Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}[+-][0-9]{4}$")
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
    released = next(check.get("images") for check in gate["checks"] if check["name"] == "copies") if verdict == "pass" else 0
    settings = record.identity.config
    bound = {
        "identity": record.fingerprint == fingerprint(value["identity"]),
        "seal": record.seal == fingerprint({name: entry for name, entry in value.items() if name != SEAL}),
        "files": value["files"] == digests and value["sizes"] == sizes and record.digest == fingerprint(value["files"]),
        "summary": record.summary == summary | {"images": released},
        "packages": set(record.packages) <= {"python", *PACKAGES},
        "texts": all(escape(text) in page for text in (settings.title, settings.licence, settings.contact)),
    }
    wrong = [name for name, holds in bound.items() if not holds]
    if wrong:
        raise Damage(f"is not the record of this release: its {wrong[0]} differ")
