"""Workers: a hostile file costs itself only, in the order of the files, whatever the number of workers."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from isolated_work import leaking, work

from pipeline.errors import InputError
from pipeline.ingest import isolate
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


@pytest.fixture
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolate, "PAUSE", 0.001)


@pytest.mark.usefixtures("quickly")
@pytest.mark.parametrize("before", [0, 1, 7])
@pytest.mark.parametrize("times", [1, 3, 4])
def test_what_a_worker_reads_that_the_system_kills_is_read_again(tmp_path: Path, before: int, times: int) -> None:
    """SIGKILL, as from Linux where memory runs out: also at the first file of a worker, and several times in a row."""
    items = [*(f"square:{n}" for n in range(before)), f"killed:{tmp_path}*{times}", "square:5"]
    found = list(isolated(work, items, workers=1))
    assert [answer.value["square"] for answer in found if isinstance(answer, Answer)] == [*(n**2 for n in range(before)), times, 25]


@pytest.mark.usefixtures("quickly")
def test_what_is_killed_every_time_is_left_out_and_costs_itself_only(tmp_path: Path) -> None:
    found = list(isolated(work, ["square:1", f"killed:{tmp_path}*99", "square:2", "crash:"], workers=1))
    assert [getattr(answer, "kind", "") for answer in found] == ["", "killed", "", "crash"]
    assert len(list(tmp_path.iterdir())) == isolate.TRIES
    assert isinstance(found[1], Failed)
    assert "more memory" in found[1].reason


@pytest.mark.usefixtures("quickly")
def test_a_worker_that_is_killed_before_it_is_ready_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    context = isolate._context(work)
    real, left = context.Process.start, [3]

    def start(process: Any) -> None:
        real(process)
        if left[0]:
            left[0] -= 1
            os.kill(process.pid, signal.SIGKILL)

    monkeypatch.setattr(context.Process, "start", start)
    found = list(isolated(work, [f"square:{n}" for n in range(70)], workers=2))
    assert [answer.value["square"] for answer in found if isinstance(answer, Answer)] == [n**2 for n in range(70)]
    assert left == [0]


@pytest.mark.usefixtures("quickly")
def test_where_no_worker_can_be_started_one_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    context = isolate._context(work)
    real = context.Process.start
    monkeypatch.setattr(context.Process, "start", lambda process: real(process) or os.kill(process.pid, signal.SIGKILL))
    with pytest.raises(InputError, match="free some memory"):
        list(isolated(work, ["square:1"], workers=1))


@pytest.mark.usefixtures("quickly")
def test_workers_that_are_killed_from_outside_between_batches_and_with_the_server_that_forked_them_cost_nothing() -> None:
    items = [f"square:{n}" for n in range(6 * BATCH)]
    results = isolated(work, items, workers=2)
    found = [next(results)]
    for number, answer in enumerate(results):
        found.append(answer)
        if number % BATCH == 3:
            for child in multiprocessing.active_children():
                os.kill(child.pid or 0, signal.SIGKILL)
        if number == 2 * BATCH:
            os.kill(forkserver._forkserver._forkserver_pid, signal.SIGKILL)  # type: ignore[attr-defined]
    assert [answer.value["square"] for answer in found if isinstance(answer, Answer)] == [n**2 for n in range(6 * BATCH)]
