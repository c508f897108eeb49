"""Synthetic cases beside the real ones: read, judged, and asked; see :mod:`evaluation.hypotheses`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from evaluation.data import Labelled, to_unit
from evaluation.hypotheses import hypotheses, learned, sure
from pipeline import runtime
from pipeline.errors import InputError
from pipeline.ingest.standardize import Target
from pipeline.models import cases as sources
from pipeline.models.cases import Cases
from pipeline.models.child import ModelFailed, Victim
from pipeline.models.draws import seed_of

if TYPE_CHECKING:
    from pipeline.progress import Reporter

SIDE = 64
"""Of the images that the judges look at, in pixels."""
SEEDS = 2
CEILING = 60_000
BATCH = 32


def asked(victim: Victim, real: Cases, test: Labelled, synthetic: Path, key: bytes, out: Path, reporter: Reporter) -> dict[str, Any]:
    """What the model misses among the synthetic cases of a folder, of which only those count whose label is sure.

    Raises:
        InputError: they cannot be read, or are of other classes.
    """
    names = victim.contract.classes
    made = sources.opened(synthetic, None, key, out / sources.UNPACKED / "synthetic", names, None, "--synthetic")
    if strange := [name for name in made.classes if name not in names]:
        raise InputError(f"--synthetic has {len(strange)} classes that the model does not name: sort its images into {', '.join(names)}")
    device = runtime.device()
    runtime.limit_threads()
    pixels = _small(real)
    if len(pixels) != len(test):
        raise InputError("--data changed while it was read: leave the folder alone, and give the same command again")
    with reporter.progress("judges of synthetic cases", CEILING) as progress:
        judges = learned(
            Labelled(pixels, test.findings, test.groups),
            names,
            seeds=SEEDS,
            ceiling=CEILING,
            rng=np.random.default_rng(runtime.derive_seed(0, "judges")),
            device=device,
            progress=progress,
        )
    found = list(_small_rows(made))
    if not found:
        raise InputError("--synthetic holds no image that can be used: give a folder of pictures or DICOM, an .npz, or a release")
    images, ids, classes = zip(*found)
    labels = np.array([names.index(made.classes[k]) for k in classes])
    kept = sure(judges, to_unit(np.stack(images)), labels, names)
    wanted = {name for name, keep in zip(ids, kept) if keep}
    parts = []
    for batch in sources.batched((case for case in made.read() if case.row["id"] in wanted), BATCH, 1 << 28):
        own = [case.image for case in batch]
        try:
            parts.append(victim.child.ask(own, [seed_of(image) for image in own], [None], victim.contract)[0][0])
        except ModelFailed as failed:
            raise InputError(f"{failed} (on synthetic cases)") from None
    p = np.concatenate(parts) if parts else np.zeros((0, len(names)))
    return hypotheses(judges, kept, p, labels, names) | {"left_out": dict(made.left_out)}


def _resized(cases: Cases, channels: int) -> Cases:
    return dataclasses.replace(cases, settings=dataclasses.replace(cases.settings, target=Target(SIDE, channels)))


def _small(cases: Cases) -> NDArray[np.uint8]:
    """The real cases as the judges see them, ``uint8 [n, 1, SIDE, SIDE]``, in their order."""
    return np.stack([case.image for case in _resized(cases, 1).read()])


def _small_rows(cases: Cases) -> Any:
    """Image, id and class index of every synthetic case, in their order."""
    for case in _resized(cases, 1).read():
        yield case.image, case.row["id"], case.row["findings"].index(1)
