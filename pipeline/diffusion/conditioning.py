"""What images are generated for: the condition c of D(x, sigma, c), as numbers; :mod:`pipeline.conditions` makes them of names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evaluation.data import rarest

ABSENT, PRESENT = 0, 1
"""Codes of a finding."""
HALF = 0.5


@dataclass(frozen=True)
class Condition:
    """The condition of n images. Training, samplers, guidance and attacks take rows of it, or the null condition, and look no further.

    A row has a code for each *field*: the one class of an image, or one of several findings (:data:`ABSENT`, :data:`PRESENT`), or an
    attribute. The code after a field's last value is learned too, and asks for nothing: it stands for what is unknown.

    Attributes:
        codes: ``int64 [n, F]``, each from 0 to the field's size.
        sizes: how many values each field has; as a code, it asks for nothing.
        findings: how many of the fields, from the first on, are findings; 0 where the first is the class.
        text: words of each image's text, ``int64 [n, L]``, 0 where there is none; None where no text is read. It counts as one more field,
            after the last.
        between: of continuous fields, how far the value lies on the way from its code to the next, ``float32 [n, F]`` in [0, 1), 0 for the
            others; None where no field is continuous.
        denying: words of a text that deny what stands beside them.
    """

    codes: Tensor
    sizes: tuple[int, ...]
    findings: int = 0
    between: Tensor | None = None
    text: Tensor | None = None
    denying: tuple[int, ...] = ()

    @classmethod
    def of_classes(cls, classes: Tensor | NDArray[np.int64], count: int, device: str = "cpu") -> Condition:
        """The condition of images of one class each."""
        return cls(torch.as_tensor(classes, dtype=torch.int64).to(device)[:, None], (count,))

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def classes(self) -> Tensor:
        """Class of each image, ``int64 [n]``; 0 for all where an image can have several findings."""
        return torch.zeros_like(self.codes[:, 0]) if self.findings else self.codes[:, 0]

    @property
    def strata(self) -> Tensor:
        """What class-balanced sampling evens out, ``int64 [n]``: the class, or of several findings the rarest that is present, or none."""
        if not self.findings:
            return self.codes[:, 0]
        return torch.from_numpy(rarest((self.codes[:, : self.findings] == PRESENT).cpu().numpy())).to(self.codes.device)

    def null(self) -> Condition:
        """As many times nothing asked for: what classifier-free guidance calls the unconditional model."""
        nothing = torch.empty_like(self.codes)
        for field, size in enumerate(self.sizes):  # by filling: a captured CUDA graph copies nothing from the host
            nothing[:, field] = size
        return replace(self, codes=nothing, between=_zeros(self.between), text=_zeros(self.text))

    def only(self, field: int, code: int | None = None) -> Condition:
        """These rows with nothing asked for but one field: what they have, or ``code`` in every row."""
        asked = self.null()
        if field == len(self.sizes):
            return replace(asked, text=self.text)
        asked.codes[:, field] = self.codes[:, field] if code is None else code
        if asked.between is not None and self.between is not None and code is None:
            asked.between[:, field] = self.between[:, field]
        return asked

    def take(self, index: Tensor | slice) -> Condition:
        """The rows that an index, a mask or a slice selects."""
        return self._each(lambda values: values[index])

    def joined(self, *others: Condition) -> Condition:
        """These rows, and those of the others after them."""
        tables = zip(*([part.codes, part.between, part.text] for part in (self, *others)))
        codes, between, text = (None if table[0] is None else torch.cat(table) for table in tables)
        assert codes is not None
        return replace(self, codes=codes, between=between, text=text)

    def chunk(self, parts: int) -> list[Condition]:
        """Its rows in ``parts`` parts, as :func:`torch.chunk` cuts them."""
        size = -(-len(self) // parts)
        return [self.take(slice(start, start + size)) for start in range(0, len(self), size)]

    def dropped(self, probability: float, generator: torch.Generator) -> Condition:
        """Rows that ask for less: of one class each, the null condition with a probability of its own (Ho & Salimans 2022,
        arXiv:2207.12598, algorithm 1).

        Of several fields, a row loses all together with this probability; otherwise it keeps any number of them equally often, and any of
        them, and its text every second time whatever else it keeps. Images are asked for by one or two of many fields, and a network that
        has mostly met all of them together has learned little of what one alone asks for: least where a text tells of everything. Of
        every second text that is kept a run of its words is, since prompts are shorter than reports; one with a word of
        :attr:`denying` stays whole, or what it denies would be told.
        """
        fields, nothing = len(self.sizes), self.null()
        count = fields + (self.text is not None)
        drop = self._uniform(count, generator) < probability
        if count > 1 and probability > 0:
            others, rate = self._uniform(count, generator), self._uniform(1, generator)
            drop = torch.cat([others[:, :fields] < rate, others[:, fields:] < HALF], dim=1) | drop[:, :1]
        between = None if self.between is None else torch.where(drop[:, :fields], 0.0, self.between)
        text = self.text
        if text is not None and probability > 0:
            text = torch.where(drop[:, fields:], 0, self._shortened(text, generator))
        return replace(nothing, codes=torch.where(drop[:, :fields], nothing.codes, self.codes), between=between, text=text)

    def _shortened(self, text: Tensor, generator: torch.Generator) -> Tensor:
        """Every second row's words to a run of them: where it begins and how many it has are uniform."""
        whole, begin, length = self._uniform(3, generator).T[..., None]
        words, places = (text > 0).sum(dim=1, keepdim=True), torch.arange(text.shape[1], device=text.device)
        first = (begin * words).long()
        kept = 1 + (length * (words - first)).long()
        run = torch.where(places < kept, text.gather(1, (first + places).clamp(max=text.shape[1] - 1)), 0)
        stays = whole < HALF
        for word in self.denying:
            stays = stays | (text == word).any(dim=1, keepdim=True)
        return torch.where(stays, text, run)

    def to(self, device: str) -> Condition:
        """On another device; a copy to a GPU from pinned memory is waited for by nothing."""
        return self._each(lambda values: values.to(device, non_blocking=True))

    def pinned(self) -> Condition:
        """In memory from which a GPU reads without a copy."""
        return self._each(lambda values: values.pin_memory())

    def clone(self) -> Condition:
        """In memory of its own."""
        return self._each(lambda values: values.clone())

    def copy_(self, other: Condition) -> None:
        """Overwrite these rows in place, as a captured CUDA graph needs."""
        for mine, theirs in ((self.codes, other.codes), (self.between, other.between), (self.text, other.text)):
            if mine is not None and theirs is not None:
                mine.copy_(theirs)

    def _uniform(self, columns: int, generator: torch.Generator) -> Tensor:
        return torch.rand(len(self), columns, generator=generator, device=self.codes.device)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Condition:
        between, text = (None if table is None else change(table) for table in (self.between, self.text))
        return replace(self, codes=change(self.codes), between=between, text=text)


def _zeros(table: Tensor | None) -> Tensor | None:
    return None if table is None else torch.zeros_like(table)
