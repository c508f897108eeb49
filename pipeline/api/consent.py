"""A patient's consent: where the images of one are, and removing a run's patient data."""

from __future__ import annotations

from pathlib import Path

from pipeline.consent import Place, Removal
from pipeline.consent import where as where_are
from pipeline.errors import system_refusals

__all__ = ["Place", "Removal", "purge", "where"]


def where(patient: str, *, runs: str | Path = "runs", issuer: str = "") -> list[Place]:
    """The runs and releases that a patient's images were in, and the runs that cannot tell; the arguments are those of
    :func:`pipeline.consent.where`.

    Raises:
        InputError: the id has no letter or digit, there is no folder of runs, or no key to make its pseudonym with.
    """
    with system_refusals(Path(runs)):
        return where_are(patient, Path(runs), issuer)


def purge(run: str | Path, *, yes: bool = False) -> Removal:
    """Remove a run's patient data, and keep its release, and its weights where they passed.

    Args:
        run: the run folder.
        yes: whether to remove them; otherwise it is only said what would be removed.

    Raises:
        InputError: the folder is no run's, or holds what no run wrote.
    """
    from pipeline import consent
    from pipeline.show import refuse_missing

    run = Path(run)
    with system_refusals(run):
        refuse_missing(run)
        return consent.purge(run) if yes else consent.removal(run)
