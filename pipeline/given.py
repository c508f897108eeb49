"""What the user gives beside the configuration, named by its content: sources, a holdout, a foreign set, another run's weights.

One mechanism for all of them. Paths stay out of a stage's identity, so that moving or renaming a folder redoes nothing, and changing one
of its files redoes the stage that reads it and those after it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pipeline import artifacts
from pipeline.config import Config
from pipeline.errors import InputError

Given = Mapping[str, Mapping[str, str]]
WEIGHTS = {"train": "train.start_from", "generate": "generate.autoguidance", "evaluate": "evaluate.imagenet"}


def digests(config: Config, run: Path) -> dict[str, dict[str, str]]:
    """By stage and by input, the content digest of what that stage reads from outside the run.

    Raises:
        InputError: something is not there: before any work, not after the stages ahead.
    """
    from pipeline.ingest import source

    found = {"ingest": {"source": source.source_digest(config, run)}}
    if config.ingest.holdout is not None:
        found["ingest"]["holdout"] = source.holdout_digest(config.ingest, run)
    if config.ingest.text_encoder is not None:
        found["ingest"]["text_encoder"] = source.encoder_digest(config.ingest.text_encoder, run)
    if config.generate.import_from is not None:
        found["generate"] = {"foreign_images": source.foreign_digest(config, run)}
    if config.ingest.label_table is not None:
        table = source.table_digest(config.ingest.label_table, run)
        for stage in found:
            found[stage]["label_table"] = table
    if config.stress.model is not None:
        found["stress"] = {name: _model_digest(model, contract) for name, (model, contract) in stressed(config).items()}
        if config.stress.rules is not None:
            found["stress"]["rules"] = artifacts.file_digest(_there(config.stress.rules, "stress.rules"))
    for stage, weights in other_weights(config).items():
        found.setdefault(stage, {})["other_weights"] = artifacts.file_digest(weights)
    return found


def locations(config: Config) -> dict[str, Path]:
    """What a run reads from the disk, by the setting that names it: files, and folders with all below them, that need not exist.

    Raises:
        InputError: another run's weights are not there.
    """
    from pipeline.ingest import source

    ingest, foreign = config.ingest, config.generate.import_from
    named = {"ingest.holdout": ingest.holdout, "ingest.label_table": ingest.label_table, "generate.import_from": foreign}
    named["ingest.text_encoder"] = ingest.text_encoder
    weights = {WEIGHTS[stage]: path for stage, path in other_weights(config).items()}
    stress = config.stress
    named |= {"stress.contract": stress.contract, "stress.against_contract": stress.against_contract, "stress.rules": stress.rules}
    named |= {f"stress.{name}": Path(model) for name, (model, _) in stressed(config).items() if ":" not in model}
    return source.locations(ingest) | {setting: path.expanduser() for setting, path in named.items() if path is not None} | weights


def stressed(config: Config) -> dict[str, tuple[str, Path | None]]:
    """The models of the user's that are put under stress, each with the contract that is given for it."""
    section = config.stress
    named = {"model": (section.model, section.contract), "against": (section.against, section.against_contract)}
    return {name: (model, contract) for name, (model, contract) in named.items() if model is not None}


def _model_digest(model: str, contract: Path | None) -> str:
    """Of a model's files; a function counts by its name too. Raises InputError where there is no such model, or no such contract."""
    from pipeline.models.of_split import files

    if contract is not None:
        _there(contract, "stress.contract")
    own = [model] if ":" in model else []
    return artifacts.fingerprint({"files": [artifacts.file_digest(path) for path in files(model, contract)], "name": own})


def _there(path: Path, setting: str) -> Path:
    if not path.expanduser().is_file():
        raise InputError(f"{setting}: there is no file {path.name}")
    return path.expanduser()


def other_weights(config: Config) -> dict[str, Path]:
    """By stage, the file of weights from elsewhere that it starts from, is guided by or judges with. Raises InputError where it is not
    there."""
    found = {}
    named = {"train": config.train.start_from if config.train else None, "generate": config.generate.autoguidance}
    if any(named.values()):
        from pipeline.warm_start import weights_file

        found = {stage: weights_file(path) for stage, path in named.items() if path is not None}
    if (judge := config.evaluate.imagenet) is not None:
        found["evaluate"] = judge.expanduser()
        if not found["evaluate"].is_file():
            raise InputError(f"evaluate.imagenet: there is no file {judge.name}")
    return found
