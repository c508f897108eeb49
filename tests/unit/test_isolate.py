"""Workers: a hostile file costs itself only, in the order of the files, whatever the number of workers."""

from __future__ import annotations

import os
import time

import numpy as np
import pytest
from isolated_work import leaking, work

from pipeline.ingest.isolate import BATCH, Answer, Failed, isolated

HOSTILE = ["hang:", "crash:", "leave:", "raise:x", "panic:", "allocate:4000", "recurse:", "sleep:60"]


def test_answers_come_in_order_with_their_arrays() -> None:
    items = [f"late:{n}" if n % 17 == 3 else f"square:{n}" for n in range(150)]
    for number, answer in enumerate(isolated(work, items, workers=3)):
        assert isinstance(answer, Answer)
        assert answer.value == {"square": number**2, "nan": None}
        np.testing.assert_array_equal(answer.arrays[0], np.arange(number, dtype=np.uint16))
        assert answer.arrays[0].dtype == np.uint16
        assert answer.arrays[1].shape == (0, 3)


@pytest.mark.parametrize("workers", [1, 3])
def test_hostile_items_cost_themselves_only(workers: int) -> None:
    items = [f"square:{n}" for n in range(2 * BATCH)]
    for place, item in enumerate(HOSTILE):
        items.insert(4 * place + 2, item)
    found = dict(zip(items, isolated(work, items, workers=workers, seconds=0.5), strict=True))
    kinds = {item: answer.kind for item, answer in found.items() if isinstance(answer, Failed)}
    assert kinds == {
        **{"hang:": "slow", "sleep:60": "slow", "crash:": "crash", "leave:": "crash"},
        **{"raise:x": "error", "panic:": "error", "recurse:": "error", "allocate:4000": "memory"},
    }
    assert all(isinstance(found[f"square:{n}"], Answer) for n in range(2 * BATCH))


def test_reasons_say_what_to_do_and_quote_nothing() -> None:
    items = [*HOSTILE, "shout:"]
    reasons = " ".join(answer.reason for answer in isolated(work, items, seconds=0.5) if isinstance(answer, Failed))
    assert "SECRET" not in reasons
    for part in ("longer than 0.5 s", "SIGSEGV", "exit 3", "ValueError", "RecursionError", "768 MiB"):
        assert part in reasons


def test_nothing_that_a_worker_prints_comes_out(capfd: pytest.CaptureFixture[str]) -> None:
    list(isolated(work, ["shout:1", "square:1"]))
    assert "SECRET" not in "".join(capfd.readouterr())


def test_a_leak_does_not_change_a_result() -> None:
    """Forty items leak 1200 MiB, more than a worker may hold; the last asks for more than any may."""
    found = list(isolated(leaking, [*range(40), 1001], workers=1))
    assert [answer.value for answer in found[:-1] if isinstance(answer, Answer)] == list(range(40))
    assert isinstance(found[-1], Failed)
    assert found[-1].kind == "memory"


def test_a_worker_stays_below_its_memory_and_alone_on_its_core() -> None:
    answers = list(isolated(work, ["allocate:500", "peak:", "threads:"], workers=1))
    assert isinstance(answers[1], Answer)
    assert 500 < answers[1].value < 1000
    assert isinstance(answers[2], Answer)
    assert answers[2].value == 1


def test_what_a_worker_had_read_and_not_sent_before_it_died_is_read_once_more() -> None:
    items = ["square:1", "square:2", "crash:", "square:3", "hang:", "square:4"]
    found = list(isolated(work, items, workers=1, seconds=0.5))
    assert [one.kind if isinstance(one, Failed) else one.value["square"] for one in found] == [1, 4, "crash", 9, "slow", 16]


def test_each_item_may_have_its_own_time() -> None:
    found = list(isolated(work, ["sleep:0.4", "sleep:0.4"], seconds=0.1))
    assert [getattr(answer, "kind", "") for answer in found] == ["slow", "slow"]
    patient = list(isolated(work, ["sleep:0.4"], seconds=lambda item: 4 * float(item.partition(":")[2])))
    assert isinstance(patient[0], Failed)
    assert patient[0].kind == "error"  # it slept through, and came to int("0.4")


def test_workers_are_gone_when_the_caller_stops_early() -> None:
    results = isolated(work, ["pid:", *["sleep:30"] * 50], workers=2, seconds=0.5)
    first = next(results)
    assert isinstance(first, Answer)
    results.close()  # type: ignore[attr-defined]
    time.sleep(0.05)
    with pytest.raises(ProcessLookupError):
        os.kill(first.value, 0)


def test_no_items_no_workers() -> None:
    assert list(isolated(work, [])) == []
