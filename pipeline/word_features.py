"""Features of words that stay as they are: what a sentence-transformers or Hugging Face model on the disk makes of each, once, at ingest.

A word's features hang on the word and on that model alone. So nothing of a report enters but its words of the closed vocabulary, what
trains and samples needs no language model beside it, and a word that no report had lies near those of its meaning. What words say together
is read by the denoiser's own layers (:mod:`pipeline.diffusion.text`).
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts import damage
from pipeline.clinical_text import LISTED
from pipeline.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

FILE = "words.parquet"
SETTING = "ingest.text_encoder"
GIVE = "give the folder of a sentence-transformers or Hugging Face model of texts, with its weights as safetensors"
PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
OWN = "sentence_transformers."
MOST = 8192
"""Features of a word, at the most."""
FEW = 16
"""Words that are read with the model loaded anew, to see whether all of it comes from the folder."""


def check(folder: Path) -> None:
    """Raise InputError where a folder is no model that may be read, or what reads it is not installed: before any work.

    Weights are read from safetensors alone, and code that a model brings is not run.
    """
    name = f"{SETTING} {folder.name}"
    if not folder.is_dir():
        raise InputError(f"{name}: no such folder: {GIVE}")
    if importlib.util.find_spec("sentence_transformers") is None:
        raise InputError(f"{SETTING} needs the extra: pip install 'synthcohort[text]'")
    if not any((folder / one).is_file() for one in ("modules.json", "config.json")):
        raise InputError(f"{name}: it holds neither modules.json nor config.json: {GIVE}")
    files = [path for path in folder.rglob("*") if path.is_file()]
    safe = {path.parent for path in files if path.suffix == ".safetensors"}
    if not safe or any(path.suffix in PICKLED and path.parent not in safe for path in files):
        raise InputError(f"{name}: it holds no weights as safetensors, or some as pickles alone, which are not read: {GIVE}")
    if foreign := [kind for path in files if path.suffix == ".json" for kind in _code(path)]:
        raise InputError(f"{name}: it brings code of its own ({foreign[0][:60]!r}), which is not run: {GIVE}")


def _code(path: Path) -> list[str]:
    """What a model's file names that only code of the model's own can be."""
    if path.name not in ("modules.json", "config.json", "tokenizer_config.json"):
        return []
    try:
        found = json.loads(path.read_bytes())
    except ValueError:
        return []  # told where it is read
    if isinstance(found, list):
        kinds = [str(one.get("type")) for one in found if isinstance(one, dict)]
        return [kind for kind in kinds if not kind.startswith(OWN)]
    return ["auto_map"] if isinstance(found, dict) and "auto_map" in found else []


def compute(folder: Path, words: Sequence[str]) -> NDArray[np.float32]:
    """Features of words, ``float32 [n, d]``, in a measure in which the listed terms have mean 0 and variance 1, whatever else is asked.

    Their mean is taken off (Mu & Viswanath 2018, arXiv:1702.01417): it is most of what language models say of a single word.

    Raises:
        InputError: as :func:`check`, or the folder is no model of texts.
    """
    check(folder)
    try:
        found = _encoded(folder, [*LISTED, *words], 0)
        again = _encoded(folder, LISTED[:FEW], 1)
    except Exception as error:  # what a folder of somebody else's raises may be anything
        raise InputError(f"{SETTING} {folder.name}: it cannot be read as a model of texts: {GIVE}") from error
    if found.ndim != 2 or len(found) != len(LISTED) + len(words) or not 0 < found.shape[1] <= MOST or not np.isfinite(found).all():
        raise InputError(f"{SETTING} {folder.name}: it does not give each word finite numbers, {MOST} at the most: {GIVE}")
    if not np.allclose(found[: len(again)], again, rtol=0, atol=1e-2 * np.abs(found).max()):
        raise InputError(
            f"{SETTING} {folder.name}: its files lack weights that its config.json asks for, which would be drawn at random: {GIVE}"
        )
    centred = found - found[: len(LISTED)].mean(axis=0)
    spread = centred[: len(LISTED)].std()
    if spread <= 1e-6 * np.abs(found).max():
        raise InputError(f"{SETTING} {folder.name}: it tells no word from another: {GIVE}")
    return np.asarray(centred[len(LISTED) :] / spread, np.float32)


def _encoded(folder: Path, words: Sequence[str], seed: int) -> NDArray[np.float64]:
    """What the model makes of each word, ``[n, d]``; weights that its files lack hang on the seed."""
    import torch
    from sentence_transformers import SentenceTransformer

    importlib.import_module("transformers.utils.logging").disable_progress_bar()
    loggers = [logging.getLogger(name) for name in ("transformers", "sentence_transformers")]
    before = [logger.level for logger in loggers]
    try:
        for logger in loggers:  # what they warn of is judged here, in one line
            logger.setLevel(logging.CRITICAL)
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(seed)
            model = SentenceTransformer(
                str(folder), device="cpu", trust_remote_code=False, local_files_only=True, model_kwargs={"use_safetensors": True}
            )
        return np.asarray(model.encode(list(words), show_progress_bar=False, convert_to_numpy=True), np.float64)
    finally:
        for logger, level in zip(loggers, before):
            logger.setLevel(level)


def save(out: Path, folder: Path, texts: Iterable[str]) -> int:
    """Write the features of all listed words, and of those of some texts, into ``out``; how many words that are. Raises InputError as
    :func:`compute`."""
    import pandas as pd

    words = sorted({*LISTED, *(word for text in texts for word in text.split())})
    pd.DataFrame({"word": words, "features": list(compute(folder, words))}).to_parquet(out / FILE, index=False)
    return len(words)


def width(ingest: Path) -> int:
    """Features of each word of an ingest; 0 where it has none. Raises InputError where they are damaged."""
    return _load(ingest)[1].shape[1] if (ingest / FILE).is_file() else 0


def of(ingest: Path, words: Sequence[str]) -> Tensor:
    """Features of these words in their order, after a row of zeros that stands for none: ``float32 [1 + n, d]``.

    Raises:
        InputError: the file is missing or damaged, or lacks a word.
    """
    import torch

    known, features = _load(ingest)
    places = {word: place for place, word in enumerate(known)}
    if any(word not in places for word in words):
        raise InputError(damage(ingest.name, FILE))
    rows = features[[places[word] for word in words]]
    return torch.from_numpy(np.concatenate([np.zeros_like(rows[:1]), rows]))


def _load(ingest: Path) -> tuple[list[str], NDArray[np.float32]]:
    import pandas as pd

    try:
        table = pd.read_parquet(ingest / FILE)
        features = np.array(table["features"].tolist(), np.float32)
        if features.ndim != 2 or not np.isfinite(features).all():
            raise ValueError("no features")
        return table["word"].astype(str).tolist(), features
    except Exception as error:  # pyarrow raises anything on a damaged file
        raise InputError(damage(ingest.name, FILE)) from error
