"""The key of the pseudonyms: one for all cohorts of a folder, since patients are compared by their pseudonyms."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from pipeline import artifacts, secret
from pipeline.cohorts import folder
from pipeline.errors import InputError

NAME = "pseudonym.key"


def project_key(run: Path) -> bytes:
    """The key of the pseudonyms: SYNTHCOHORT_KEY, or the file SYNTHCOHORT_KEY_FILE, or a file in the folder of the cohorts.

    A key file that is absent is made, with mode 0600. One that an earlier version made in the run folder becomes that of the cohorts. The
    key is in no configuration, log or record.

    Raises:
        InputError: the key cannot be read or is too short, or is not the one under which the cohorts or this run were made.
    """
    if (value := secret.from_environment("SYNTHCOHORT_KEY")) is not None:
        key = value
    elif given := os.environ.get("SYNTHCOHORT_KEY_FILE"):
        key = _given(Path(given).expanduser())
    else:
        key = _of_the_cohorts(run)
    made = _key_of(run)
    if made is not None and made != artifacts.key_mark(key):
        raise InputError(
            f"{run.name} was ingested under another key of the pseudonyms: give that key (SYNTHCOHORT_KEY, or as SYNTHCOHORT_COHORTS the "
            f"folder that holds it), or remove the ingest folder of this run to ingest it anew"
        )
    return key


def _of_the_cohorts(run: Path) -> bytes:
    home, own = folder.folder() / NAME, run / NAME
    with folder.held(), folder.usable():
        if not os.path.lexists(home):
            if not own.is_file() and (folder.files() or _key_of(run) is not None):
                raise InputError(
                    f"{home} is missing, and pseudonyms were made under it: restore it from a backup, give the key as SYNTHCOHORT_KEY, or "
                    f"the folder that holds it as SYNTHCOHORT_COHORTS"
                )
            artifacts.write_bytes(home, secret.from_file(own) if own.is_file() else _new())
        key = secret.from_file(home)
        if own.is_file():
            if secret.from_file(own) != key:
                raise InputError(
                    f"{run.name} has a key of its own ({NAME}), and {home.parent} another: give a folder for this run alone as "
                    f"SYNTHCOHORT_COHORTS, or remove {NAME} and the ingest folder of this run to ingest it anew"
                )
            own.unlink()
    return key


def _given(path: Path) -> bytes:
    if not os.path.lexists(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            artifacts.write_bytes(path, _new())
        except OSError as error:
            raise InputError(f"SYNTHCOHORT_KEY_FILE {path.name} cannot be made ({error.strerror}): give a file that can") from None
    return secret.from_file(path)


def _new() -> bytes:
    return secrets.token_hex(32).encode()


def _key_of(run: Path) -> str | None:
    """Mark of the key that a run was ingested under; None where it was not, or by a version that did not note it."""
    facts = artifacts.read_json(run / "ingest" / "cohort.json")
    made = facts.get("key_mark") if isinstance(facts, dict) else None
    return made if isinstance(made, str) else None
