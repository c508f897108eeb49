"""Checking a release, as whoever receives it would."""

from __future__ import annotations

from pathlib import Path

from pipeline.api.foreign import is_run
from pipeline.errors import InputError, system_refusals


def verify(release: Path, *, run: Path | None = None, key: Path | None = None) -> list[str]:
    """Problems of a release, one line each; none means that it is whole and says what it must.

    Args:
        release: the folder, as released.
        run: the run that made it, to look for traces of the patients too.
        key: the Ed25519 public key (PEM) of whoever must have signed it.

    Raises:
        InputError: there is no such folder, no such key, or no such run with its patient data.
    """
    from pipeline.release import contents
    from pipeline.release.sign import public_key
    from pipeline.release.verify import verify as verify_release
    from pipeline.show import run_near

    with system_refusals(release):
        if not release.is_dir():
            raise InputError(f"no release folder {release.name}: give a folder such as {run_near(release)}/release")
        if is_run(release):
            made = (release / "release").is_dir()
            told = f"its release is checked by synthcohort verify {release / 'release'}" if made else "it has no release yet"
            raise InputError(f"{release} is a run folder: {told}")
        if not any((release / name).exists() for name in (contents.GATE, contents.REPORT, contents.CHECKSUMS)):
            raise InputError(f"{release} is no release folder: give one such as {run_near(release)}/release")
        if run is not None and (why := _no_witness(run)) is not None:
            raise InputError(f"--run: {why}")
        return verify_release(release, run, None if key is None else public_key(key))


def _no_witness(run: Path) -> str | None:
    """Why a folder is no run that a release can be compared with."""
    from pipeline import folders
    from pipeline.show import run_near

    if (run / folders.PURGED).is_file() and not (run / "ingest").is_dir():
        return f"the patient data of {run} were removed, so that no trace of them can be looked for: leave --run out"
    return None if is_run(run) else f"{run} is no run folder: give the one that made the release, such as {run_near(run)}"
