"""What enough patients had together is what a count of every combination gives, however many attributes there are."""

import itertools

import numpy as np
import pytest

from pipeline import together
from pipeline.together import Together


def counted(findings, columns, patients, least, several):
    """All that ``least`` patients had and that is part of nothing else that they had, by counting every combination of values."""
    wide = findings.shape[1]
    some = [tuple(1 if place == k else -1 for place in range(wide)) for k in range(wide)] if several else []
    whole = {tuple(row) for row in findings.tolist() if min(row) >= 0}
    enough = []
    for has in {(-1,) * wide, *some, *whole}:
        for values in itertools.product(*(["", *sorted(set(column.tolist()) - {""})] for column in columns)):
            rows = np.ones(len(patients), bool)
            for asked, column in zip((*has, *values), (*findings.T, *columns)):
                rows &= (column == asked) if asked not in (-1, "") else True
            if any(values) and len(set(patients[rows].tolist())) >= least:
                enough.append(Together(has, values))
    return {one for one in enough if not any(other != one and other.has(one.findings, one.values) for other in enough)}


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_as_a_count_of_every_combination_has_it(seed, several):
    rng = np.random.default_rng(seed)
    findings = rng.integers(-1, 2, (400, 3)).astype(np.int8) if several else np.eye(3, dtype=np.int8)[rng.integers(0, 3, 400)]
    shares = ([0.7, 0.2, 0.1], [0.1, 0.1, 0.8], [0.4, 0.4, 0.2], [0.9, 0.05, 0.05])
    columns = [rng.choice(["F", "M", ""], 400, p=share) for share in shares]
    patients = np.arange(400) // 2
    learned = Together.learned(findings, columns, patients, 11, several=several)
    assert len(set(learned)) == len(learned)
    assert set(learned) == counted(findings, columns, patients, 11, several)
    sizes = {sum(value != "" for value in one.values) for one in learned}
    assert len(sizes) > 1, "combinations that end at different sizes"


def test_combinations_without_enough_patients_are_not_extended():
    """Of 60 attributes each image has two neighbours: of 2^60 combinations 60 have enough, which is all that is counted further."""
    first = np.repeat(np.arange(60), 12)
    columns = [np.where((first == place) | ((first + 1) % 60 == place), "yes", "") for place in range(60)]
    learned = Together.learned(np.ones((len(first), 1), np.int8), columns, np.arange(len(first)), 11, several=False)
    pairs = {tuple(np.flatnonzero(np.array(one.values) == "yes").tolist()) for one in learned}
    assert pairs == {tuple(sorted((place, (place + 1) % 60))) for place in range(60)}
    assert {one.findings for one in learned} == {(1,)}
    alone = Together.learned(np.ones((len(first), 1), np.int8), columns, np.arange(len(first)), 13, several=False)
    assert [one.values.index("yes") for one in alone] == list(range(60)), "12 patients have both of two, 24 have each"


def test_where_most_sets_are_frequent_as_many_at_a_time_are_counted_as_there_is_room_for():
    """Of 24 attributes that everybody has, 2^24 combinations have enough patients: pairs are told, and of three together nothing is."""
    columns = [np.full(30, "yes") for _ in range(24)]
    learned = Together.learned(np.ones((30, 1), np.int8), columns, np.arange(30), 11, several=False)
    pairs = {tuple(np.flatnonzero(np.array(one.values) == "yes").tolist()) for one in learned}
    assert (pairs, len(learned)) == (set(itertools.combinations(range(24), 2)), 276)
    asked = ["yes"] * 3 + [""] * 21
    assert not any(one.has((1,), asked) for one in learned)
    assert any(one.has((1,), ["", *asked[1:]]) for one in learned)


def test_cells_of_many_values_are_bounded_too(monkeypatch):
    rng = np.random.default_rng(0)
    columns = [rng.choice(list("abcd"), 4000) for _ in range(4)]
    findings = np.ones((4000, 1), np.int8)
    whole = Together.learned(findings, columns, np.arange(4000), 2, several=False)
    monkeypatch.setattr(together, "CELLS", 300)
    bounded = Together.learned(findings, columns, np.arange(4000), 2, several=False)
    assert max(sum(value != "" for value in one.values) for one in whole) == 4
    # two levels of 16 values alone and 96 pairs; the 256 triples of each do not fit
    assert {sum(value != "" for value in one.values) for one in bounded} == {2}
    assert len(bounded) == 96
