"""The rows of a model's table of what it can be asked for, from those of an earlier model that could be asked for other things."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from pipeline.conditions import Attribute, Conditions
from pipeline.diffusion.conditioning import ABSENT, PRESENT

Value = int | float | str
"""Of a finding its code, of an attribute its value or knot."""


def carried(table: Tensor, before: Conditions, now: Conditions, renamed: Mapping[str, str]) -> Tensor:
    """The rows of an earlier model's table of what can be asked for, as a model that is asked for other things has them.

    What a value adds to its field's "nothing asked for" goes over by name, from one class an image to several findings and back: a class is
    that finding present. All fields' "nothing" together stay what they were, so that whatever both models can be asked for starts as it
    was, and what only the new one can be asked for starts as nothing. A number is read between the earlier knots.

    Args:
        table: ``[rows, hidden]``; where nothing is known of the earlier model (no class), the last row asks for nothing.
        before, now: what the models can be asked for.
        renamed: the new model's findings to the earlier one's, where the names differ.

    Returns:
        ``float64 [rows, hidden]``.
    """
    rows = table.double()[-sum(size + 1 for size in before.sizes) :]
    adds: dict[tuple[str, Value], Tensor] = {}
    nothing, first = torch.zeros_like(rows[0]), 0
    for values in _values(before):
        part = rows[first : first + len(values) + 1]
        adds |= dict(zip(values, part[:-1] - part[-1]))
        nothing, first = nothing + part[-1], first + len(part)
    numbers = {one.name: one for one in before.attributes if one.knots}

    def added(name: str, value: Value) -> Tensor:
        found = _read(adds, numbers, renamed.get(name, name) if isinstance(value, int) else name, value)
        return torch.zeros_like(nothing) if found is None else found

    each = nothing / len(now.sizes)
    return torch.stack([each + row for values in _values(now) for row in (*(added(*value) for value in values), torch.zeros_like(each))])


def take_words(table: Tensor, before: Tensor, known: Sequence[str], words: Sequence[str]) -> int:
    """Fill the rows of words that the earlier model read too; how many tensors that were, 1 or 0."""
    places = {word: place for place, word in enumerate(known, 1) if len(before) == len(known) + 1}
    shared = [(place, places[word]) for place, word in enumerate(words, 1) if word in places]
    for place, source in shared:
        table[place].copy_(before[source])
    return int(bool(shared))


def take_fields(table: Tensor, before: Tensor, known: Conditions, now: Conditions, renamed: Mapping[str, str]) -> int:
    """Fill the rows of fields, as words that are read, of which the earlier model knew a value; how many tensors that were, 1 or 0.

    What only the new model knows of such a field starts as that field's "nothing asked for". A class is no word of a finding's field.
    """
    if len(before) != sum(size + 1 for size in known.sizes):
        return 0
    numbers = {one.name: one for one in known.attributes if one.knots}
    theirs: dict[tuple[str, Value], Tensor] = {}
    nothing: dict[str, Tensor] = {}
    first = 0
    for field in _values(known):
        if known.several == now.several or not any(isinstance(value, int) for _, value in field):
            theirs |= dict(zip(field, before[first:]))
            nothing |= {name: before[first + len(field)] for name, _ in field}
        first += len(field) + 1
    taken, first = 0, 0
    for field in _values(now):
        names = [renamed.get(name, name) if isinstance(value, int) else name for name, value in field]
        rows = [_read(theirs, numbers, name, value) for name, (_, value) in zip(names, field)]
        if shared := [name for name, row in zip(names, rows) if row is not None]:
            without = nothing[shared[0]]
            table[first : first + len(field) + 1].copy_(torch.stack([*(without if row is None else row for row in rows), without]))
            taken = 1
        first += len(field) + 1
    return taken


def told_alike(table: Tensor, before: Tensor, known: Sequence[str], words: Sequence[str]) -> bool:
    """Whether the features of words that both models are told of are the same language model's, and so mean the same to what reads them."""
    if table.shape[1:] != before.shape[1:] or len(before) != len(known) + 1:
        return False
    places = {word: place for place, word in enumerate(known, 1)}
    shared = [(place, places[word]) for place, word in enumerate(words, 1) if word in places]
    mine, theirs = zip(*shared) if shared else ((), ())
    return torch.allclose(table[list(mine)], before[list(theirs)], atol=1e-4)


def _read(rows: Mapping[tuple[str, Value], Tensor], numbers: Mapping[str, Attribute], name: str, value: Value) -> Tensor | None:
    """The row of a value, a number's between those of its knots; None where there is none."""
    if isinstance(value, float) and name in numbers:
        knots, ([code], [share]) = numbers[name].knots, numbers[name].codes(np.array([value]))
        low, high = rows[name, knots[code]], rows[name, knots[min(code + 1, len(knots) - 1)]]
        return low + float(share) * (high - low)
    return rows.get((name, value))


def _values(conditions: Conditions) -> list[list[tuple[str, Value]]]:
    """What the rows of each field stand for, without its last: a finding present or absent, or an attribute's value or knot."""
    names = conditions.classes
    found: list[list[tuple[str, Value]]] = [[(name, ABSENT), (name, PRESENT)] for name in names]
    if not conditions.several:
        found = [[(name, PRESENT) for name in names]]
    return found + [[(one.name, value) for value in (one.values or one.knots)] for one in conditions.attributes]
