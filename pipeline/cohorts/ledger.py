"""The ledger of cohorts: which one a run's is, what is settled of it, and how often it was judged.

A run's cohort is found by its patients and images, and these by identifier and by their values: one pseudonym in common is enough, and a
run that has some in common with several joins them. What is settled changes in one rename while the folder is held, so that runs of one
cohort may work side by side, and one that is killed leaves the old state or the new one.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import artifacts
from pipeline.cohorts import folder
from pipeline.cohorts.cohort import SPLITS, Attempt, Cohort
from pipeline.cohorts.key import project_key
from pipeline.errors import InputError
from pipeline.release.contents import JUDGED_FILES
from privacy import gate, limits

if TYPE_CHECKING:
    from pipeline.config import Config
    from pipeline.context import Context

# Sources whose images have no identifier: they are known by what they show.
BY_CONTENT = ("pictures", "nifti")
# Where a run folder held them, by an earlier version.
OLD_SPLITS, OLD_ATTEMPTS = "splits.json", "attempts.json"


class Found:
    """The cohort of a run, while the folder is held.

    Attributes:
        cohort: what is settled of it.
    """

    def __init__(self, cohort: Cohort, key: bytes, files: list[Path], old: list[Path]) -> None:
        self.cohort, self._key, self._files, self._old = cohort, key, files, old

    def save(self, cohort: Cohort) -> None:
        """Settle it like this. Of several files, and what was in the run folder, one file remains."""
        path = self._files[0] if self._files else folder.new_file()
        with folder.usable():
            if cohort != self.cohort or len(self._files) != 1 or self._old:
                artifacts.write_bytes(path, cohort.to_json(self._key))
            for needless in (*self._files[1:], *self._old):
                needless.unlink(missing_ok=True)
        self.cohort, self._files, self._old = cohort, [path], []


@contextlib.contextmanager
def find(run: Path, patients: Iterable[str], images: Iterable[str]) -> Iterator[Found]:
    """The cohort to which any of these pseudonyms belongs; an empty one where there is none.

    Args:
        run: the run folder. Splits and attempts that an earlier version kept in it are the cohort's.
        patients: pseudonyms of patients.
        images: pseudonyms of images.

    Raises:
        InputError: the folder cannot be used, or one of its files is damaged or was made under another key.
    """
    key = project_key(run)
    people, pictures = set(patients), set(images)
    with folder.held():
        cohort = Cohort()
        files: list[Path] = []
        for path in folder.files():
            other = _load(path, key)
            if other.holds(people, pictures):
                cohort, files = cohort.joined(other), [*files, path]
        old = [path for path in (run / OLD_SPLITS, run / OLD_ATTEMPTS) if path.is_file()]
        yield Found(cohort.joined(_left_in(run, old, key)), key, files, old)


def knows_formerly(run: Path) -> bool:
    """Whether any cohort's images may be known by the former pseudonyms of their values alone, so that these have to be made too.

    Raises:
        InputError: as :func:`find`.
    """
    key = project_key(run)
    with folder.held():
        return any(one.former and bool(one.images or one.seen) for one in (_load(path, key) for path in folder.files()))


def restore(run: Path, *, stands: bool) -> None:
    """Settle what a finished ingest says, should the cohort's file have been lost.

    Args:
        run: the run folder.
        stands: whether its ingest is going to be used as it is: it must not contradict the cohort then. Otherwise the cohort is right.

    Raises:
        InputError: it contradicts the cohort.
    """
    own = _assigned(run / "ingest")
    if own is not None:
        with find(run, own.patients, own.images) as found:
            if stands:
                _check(found.cohort, own)
            found.save(found.cohort.with_splits(own.patients, own.images, former=own.former))


REDRAWN = {"audit": True, "shadows": True}
"""Sections whose settings draw the attacks and their power: under others of them, a set is tried again."""


@dataclasses.dataclass(frozen=True)
class Standing:
    """Where a generated set stands among those of its cohort.

    Attributes:
        attempt: its number, from 1; None for a replication, which is none.
        earlier_recall: the lowest recall that the copy search had, at least, on another set of the cohort that has passed; None without
            one. Which of them was judged first does not matter: all of them are out.
        earlier_attempt: the highest number of those sets; None without one.
    """

    attempt: int | None
    earlier_recall: float | None = None
    earlier_attempt: int | None = None


def count_attempt(ctx: Context, verdict: str = "", recall: float | None = None, *, since: Standing | None = None) -> Standing:
    """Which attempt on its cohort the generated set is.

    A set counts when it is judged, before anybody can see the result, and once under the same settings of the attacks: trying until it
    passes is visible, and so is drawing the power again. A foreign set counts on the cohort of what its generator saw, and settles no
    split.

    Args:
        ctx: of a stage that needs ingest and generate.
        verdict: pass, fail or inconclusive, where it is known.
        recall: of the copy search on it, its lower bound, where the verdict is pass.
        since: where the set stood when the verdict was reached, which is not settled where it stands elsewhere now: another set of the
            cohort has passed in the meantime.

    Raises:
        InputError: the ingest is damaged, or contradicts the cohort.
    """
    if ctx.config.ingest.replication:
        return Standing(None)
    own = _assigned(ctx.folder("ingest"), foreign=ctx.config.foreign)
    if own is None:
        raise InputError("ingest/rows.parquet or cohort.json is damaged: remove the ingest folder of this run to make it anew")
    # What is declared of a holdout draws nothing.
    drawn = ctx.config.model_dump(mode="json", include=REDRAWN, exclude={"audit": {"holdout_random"}})
    if ctx.config.foreign:
        # Its images do not follow from the seed, nor from who calibrates the search: another of either draws the power again.
        read = ctx.records["ingest"].get("files", {})
        real = {name: digest for name, digest in read.items() if JUDGED_FILES["images"].fullmatch(name)}
        drawn |= {"seed": ctx.config.seed, "real": real}
    generated = artifacts.fingerprint({"generated": str(ctx.records["generate"]["digest"]), "settings": drawn})
    with find(ctx.run, own.patients, own.images) as found:
        if ctx.config.foreign:
            names = {*own.patients, *own.images}
            cohort = dataclasses.replace(found.cohort, seen=found.cohort.seen | names).met(names)
        else:
            _check(found.cohort, own)
            cohort = found.cohort.with_splits(own.patients, own.images, former=own.former)
        cohort, number = cohort.attempted(generated)
        released = cohort.released(besides=generated)
        # An earlier version noted no recall: what its gate asked for is what is known.
        recalls = [limits.MIN_RECALL if one.recall is None else one.recall for one in released.values()]
        standing = Standing(number, min(recalls, default=None), max(released, default=None))
        found.save(cohort.attempted(generated, verdict, recall)[0] if since in (None, standing) else cohort)
    return standing


def decided(report: Any, config: Config, standing: Standing) -> dict[str, Any]:
    """What :func:`privacy.gate.decide` says of an audit's report, and the ``checks``, of a set that stands there among those of its cohort.

    Raises:
        InputError: the report is damaged.
    """
    try:
        checks = gate.checks(
            report,
            config.release.max_copy_rate,
            attempt=standing.attempt or 1,
            earlier_recall=standing.earlier_recall,
            earlier_attempt=standing.earlier_attempt,
        )
        return gate.decide(checks, attempt=standing.attempt, replication=config.ingest.replication) | {"checks": checks}
    except (KeyError, TypeError, ValueError, AttributeError):
        raise InputError("audit/audit.json is missing or damaged: delete the audit folder of this run to measure it again") from None


def settled(ctx: Context, report: Any) -> tuple[Standing, dict[str, Any]]:
    """Where a generated set stands, and what is :func:`decided` of it there, once the cohort's ledger holds its verdict.

    Args:
        ctx: as for :func:`count_attempt`.
        report: of its audit.

    Raises:
        InputError: as :func:`count_attempt` and :func:`decided`.
    """
    standing = count_attempt(ctx)
    while True:
        found = decided(report, ctx.config, standing)
        recall = next(check["recall"] for check in found["checks"] if check["name"] == "copies") if found["verdict"] == "pass" else None
        now = count_attempt(ctx, found["verdict"], recall, since=standing)
        if now == standing:
            return standing, found
        standing = now


def _check(cohort: Cohort, own: Cohort) -> None:
    if cohort.contradicts(own.patients, own.images):
        raise InputError(
            f"this run's splits are not those of its cohort in {folder.folder()}: remove the ingest folder of this run to take the "
            f"cohort's, or give the folder that knows this run's as SYNTHCOHORT_COHORTS"
        )


def _assigned(ingest: Path, *, foreign: bool = False) -> Cohort | None:
    """Split of every patient and of every image of a finished ingest; None where it cannot be read, or settles nothing.

    ``foreign``: of those whom a foreign generator saw, which settles nothing otherwise.
    """
    facts: Any = artifacts.read_json(ingest / "cohort.json")
    if not isinstance(facts, dict) or facts.get("replication") or bool(facts.get("foreign")) != foreign:
        return None
    try:
        import pyarrow.parquet

        table = pyarrow.parquet.ParquetFile(ingest / "rows.parquet")
        # Earlier versions kept pseudonyms of values under another name, and before that none.
        by_values = [name for name in ("values", "pixels") if name in table.schema_arrow.names]
        rows = table.read(["id", "patient", "split", *by_values]).to_pydict()
        names = ["id", *by_values] if facts["source"]["kind"] not in BY_CONTENT else by_values
    except (OSError, ValueError, KeyError, TypeError):
        return None
    wanted = [place for place, split in enumerate(rows["split"]) if not foreign or split == "train"]
    patients = {rows["patient"][place]: rows["split"][place] for place in wanted}
    images = {rows[name][place]: rows["split"][place] for name in names for place in wanted}
    # An earlier version made other pseudonyms of patients, and of images without an identifier.
    if "key_mark" not in facts:
        return Cohort(images=images, former=True) if images else None
    former = "values" not in by_values
    return Cohort(patients, images, former=former) if facts.get("unit") == "patient" else Cohort(images=patients | images, former=former)


def _load(path: Path, key: bytes) -> Cohort:
    try:
        cohort = Cohort.from_json(path.read_bytes(), key)
    except (OSError, ValueError):
        raise InputError(
            f"{path.name} in {path.parent} is damaged: restore it from a backup; if it is moved away, what no run folder knows of its "
            f"splits is drawn anew, and its attempts are forgotten"
        ) from None
    if cohort is None:
        raise InputError(
            f"{path.name} in {path.parent} was made under another key of the pseudonyms: give that key, or another folder as "
            f"SYNTHCOHORT_COHORTS for the cohorts under this one"
        )
    return cohort


def _left_in(run: Path, files: Iterable[Path], key: bytes) -> Cohort:
    """What an earlier version kept in the run folder. Raises InputError where it is damaged, or was made under another key."""
    cohort = Cohort()
    for path in files:
        value = artifacts.read_json(path)
        try:
            if path.name == OLD_ATTEMPTS:
                entries = [Attempt(entry["digest"], entry["verdict"], entry["date"]) for judged in value.values() for entry in judged]
                cohort = cohort.joined(Cohort(attempts=tuple(entries)))
                continue
            marks = [artifacts.keyed(key, "ledger", *spelling)[:16] for spelling in ((), ("canonical",))]
            same, patients = value["key"] in marks, dict(value["patients"])
        except (AttributeError, KeyError, TypeError, ValueError):
            same, patients = False, {}
        if not same or not {*patients.values()} <= {*SPLITS}:
            raise InputError(f"{path.name} in {run.name} is damaged, or was made under another key: restore it from a backup")
        cohort = cohort.joined(Cohort(patients))
    return cohort
