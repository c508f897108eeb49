"""What can be known of a stress test, and be wrong in it, before an image or a model is looked at: contracts and rules."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from evaluation.shifts import KNOWN
from pipeline.config.stress import StressConfig
from pipeline.errors import InputError
from pipeline.models import acceptance
from pipeline.models.contract import Declared, declared, kind_of, sidecar, spelled, wrong_classes
from pipeline.models.own_classifier import declared_by

Told = list[tuple[Declared, str]]


def known_before(
    models: Sequence[str], contracts: Sequence[Path | None], rules: Path | None, modality: str | None
) -> tuple[Told, str | None, list[str], tuple[str, ...]]:
    """Contracts, modality and rules, as far as they are said.

    Args:
        models: one, or two that are compared.
        contracts: the file in which each is declared; the sidecar where it is None.
        rules: their file.
        modality: DICOM's code, where the user says it.

    Returns:
        What is declared of each model, with the name of the file, the second one's classes as the first spells them; the modality, of which
        a contract has the last word; the rules; and what was taken for what, as sentences.

    Raises:
        InputError: a contract or a rule is wrong, or they contradict each other.
    """
    told = _told(models, contracts)
    notes: tuple[str, ...] = ()
    if modality is not None and modality not in KNOWN:
        raise InputError(f"--modality {modality[:20]!r}: use DICOM's code, one of {', '.join(sorted(KNOWN))}")
    if len(told) == 2 and all(one.classes for one, _ in told):
        (first, _), (second, where) = told
        taken_for, notes = spelled(second.classes, first.classes, "--against")
        if set(taken_for) != set(first.classes):
            raise InputError("--against names other classes than --model: two models are compared on the same ones")
        told[1] = second.model_copy(update={"classes": taken_for}), where
    taken = told[0][0].modality or modality
    lines = acceptance.known(rules, told[0][0].classes, taken, against=len(told) == 2) if rules is not None else []
    return told, taken, lines, notes


def check(section: StressConfig, classes: Sequence[str] | None) -> None:
    """Refuse what would stop the stress test of a run's model, far into the run.

    Args:
        section: with a model.
        classes: of the run's images, where the configuration names them.

    Raises:
        InputError: a contract or a rule is wrong, or they do not fit together.
    """
    assert section.model is not None
    models = [section.model] + ([section.against] if section.against is not None else [])
    told, *_ = known_before(models, (section.contract, section.against_contract), section.rules, None)
    for one, where in told:
        if classes and (wrong := wrong_classes(one.classes, classes, where)):
            raise InputError(f"stress.model: {'; '.join(wrong)}")


def _told(models: Sequence[str], contracts: Sequence[Path | None]) -> Told:
    """What is declared of each model, and the name of the file to declare it in; a second model without one has the first's."""
    told: Told = []
    for model, given in zip(models, contracts):
        if kind_of(model) == "run" and given is None:
            told.append((declared_by(Path(model)), "the run"))
            continue
        path = given if given is not None else sidecar(model)
        if given is not None and not path.is_file():
            raise InputError(f"no contract {path.name}: give the YAML file that declares what {Path(model).name} takes")
        if path.is_file():
            told.append((declared(path), path.name))
        else:
            told.append(told[0] if told else (Declared(), path.name))
    return told
