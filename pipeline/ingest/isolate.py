"""Run a reader over hostile files: in worker processes, each with a bound on its memory and on its time for a file.

A file that crashes its decoder, never ends, or asks for more memory than there is, costs that file only. What a worker sends back is JSON
and raw arrays: nothing that came out of a file's parser is unpickled. Results come in the order of the items, and are the same for any
number of workers. On systems other than Linux the bound on memory is not enforced.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
import json
import os
import resource
import signal
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from math import prod
from multiprocessing import connection
from multiprocessing.connection import Connection
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import InputError
from pipeline.system import end_with_parent, usable_cores, worker_processes

SECONDS = 5.0
# Wall time for a second that a file is given: processor time decides, so that a busy machine does not quarantine what an idle one reads,
# and wall time ends what only waits.
WAIT = 3
# Beyond what a worker needs before its first file; with that (about 150 MB resident) a worker stays under 1 GB.
MEMORY = 768 << 20
# Items a worker is given at once, and answers that it sends together: each message costs both sides a few tenths of a millisecond to be
# woken up, a quick file takes one to read. What took longer than HELD seconds, or more than SENT bytes, does not wait for the others.
BATCH = 32
HELD = 0.04
SENT = 1 << 20
# A process that the system kills (SIGKILL, as Linux does where memory runs out) is no fault of the item that it was reading: that item, or
# the start of the process, is tried so often, after a pause that doubles from PAUSE seconds on.
TRIES = 5
PAUSE = 0.2
# The exit code of a process whose parent, the server that forked it, was killed: nobody knows how it ended.
LOST = 255
# Answers that may wait for an earlier item's, in batches a worker: bounds the memory behind a file that takes its time.
AHEAD = 4

# What workers import before their first file, and decoders, volumes and the search for text at it (scipy.ndimage takes half a second), once
# for all workers; those that are not installed are passed over.
LATER = (
    "threadpoolctl",
    "scipy.ndimage",
    "pydicom.pixels.decoders",
    "pylibjpeg",
    "openjpeg",
    "libjpeg",
    "rle",
    "PIL.PngImagePlugin",
    "PIL.JpegImagePlugin",
    "PIL.TiffImagePlugin",
)

Item = TypeVar("Item")
Work = Callable[[Item], tuple[Any, Sequence[NDArray[Any]]]]
Kind = Literal["slow", "memory", "crash", "error", "killed"]
REASONS: dict[str, str] = {
    "slow": "took longer than {seconds:g} s to read: check it in a viewer, and export it again without compression",
    "memory": "needs more than {memory} MiB to read: it declares more than it holds, or must be cut into smaller images",
    "crash": "crashed its decoder ({detail}): it is damaged, export it again",
    "error": "damaged or not decodable ({detail}): export it again",
    "killed": "the system killed the process that read it, {tries} times: ingest it where more memory is free",
}


@dataclass(frozen=True)
class Answer:
    """What the work gave for one item: ``value`` as JSON brought it over, and the arrays."""

    value: Any
    arrays: tuple[NDArray[Any], ...]


@dataclass(frozen=True)
class Failed:
    """An item that gave nothing: of which kind, and the reason in words that hold nothing of its content."""

    kind: Kind
    reason: str


def isolated(
    work: Work[Item],
    items: Sequence[Item],
    *,
    workers: int | None = None,
    seconds: float | Callable[[Item], float] = SECONDS,
    memory: int = MEMORY,
) -> Iterator[Answer | Failed]:
    """Results of ``work`` for every item, in their order.

    Args:
        work: a function at the top of a module, or a ``functools.partial`` of one: item to ``(value, arrays)``, ``value`` of what JSON can
            hold and arrays of plain numbers.
        items: what it is called with; anything that can be pickled, such as paths.
        workers: how many processes; as many as there are usable cores by default.
        seconds: processor time for an item, or a function of the item that gives it; what waits is ended after :data:`WAIT` times as long.
        memory: bytes that a worker may allocate beyond those that it held before its first item.

    Raises:
        InputError: workers cannot be started at all.
    """
    if not items:
        return
    count = min(workers or usable_cores(), -(-len(items) // BATCH))
    limit = seconds if callable(seconds) else lambda _: seconds
    pending = deque(range(len(items)))
    done: dict[int, Answer | Failed] = {}
    killed: Counter[int] = Counter()
    pool: list[_Worker] = []
    try:
        pool += [_start(work, memory, killed) for _ in range(count)]
        for position in range(len(items)):
            while position not in done:
                _feed(pool, pending, position + AHEAD * BATCH * count, items, limit)
                busy = {worker.pipe: number for number, worker in enumerate(pool) if worker.asked}
                for pipe in connection.wait(list(busy)):
                    number = busy[pipe]
                    if not pool[number].collect(done, items, limit):
                        left = pool[number].left
                        pool[number] = _start(work, memory, killed)
                        pool[number].ask(left, items, limit, together=False)
                # Before the answers are looked at, so that nobody waits meanwhile.
                _feed(pool, pending, position + AHEAD * BATCH * count, items, limit)
            yield done.pop(position)
    finally:
        for worker in pool:
            worker.end()


def _feed(pool: Sequence[_Worker], pending: deque[int], before: int, items: Sequence[Any], limit: Callable[[Any], float]) -> None:
    """Give every worker that has answered all a batch of the next items, all of them below ``before``."""
    for worker in pool:
        if not worker.asked:
            taken: list[int] = []
            while pending and len(taken) < BATCH and pending[0] < before:
                taken.append(pending.popleft())
            worker.ask(taken, items, limit)


def _start(work: Work[Any], memory: int, killed: Counter[int]) -> _Worker:
    """A worker that is ready. One that ends before it is, as where memory runs out for a moment, is replaced."""
    for attempt in range(TRIES):
        try:
            return _Worker(work, memory, killed)
        except (EOFError, OSError):
            time.sleep(PAUSE * 2**attempt)
    raise InputError(f"a process that reads files ended {TRIES} times before its first: free some memory, or set SYNTHCOHORT_WORKERS=1")


@dataclass
class _Worker:
    """One process, seen from the parent.

    Attributes:
        killed: how often the system has killed a worker at an item, by the item's number.
        asked: numbers of the items that it has not answered, in their order.
        left: what another worker has to read where this one has ended.
        fresh: whether it has answered nothing yet.
        size: how many items its batch had.
    """

    work: Work[Any]
    memory: int
    killed: Counter[int]
    asked: deque[int] = field(default_factory=deque)
    left: list[int] = field(default_factory=list)
    fresh: bool = True
    size: int = 0

    def __post_init__(self) -> None:
        context = _context(self.work)
        self.pipe, theirs = context.Pipe()
        # How many items of its batch the worker has begun to read: where it dies, the last of them is the one that it died of.
        self.begun = context.RawValue("i", 0)
        self.process = context.Process(target=_serve, args=(theirs, self.begun, self.work, self.memory), daemon=True)
        try:
            self.process.start()
            theirs.close()
            self.pipe.recv_bytes()
        except (EOFError, OSError):
            theirs.close()
            self.end()
            raise

    def ask(self, numbers: list[int], items: Sequence[Any], limit: Callable[[Any], float], together: bool = True) -> None:
        """Send a batch, to be answered together or one by one. Only a worker that has answered all is asked, so that the two sides never
        both wait to write."""
        self.asked.extend(numbers)
        self.size = len(numbers)
        self.begun.value = 0
        if numbers:
            with contextlib.suppress(OSError):  # one that has died is found by `collect`
                self.pipe.send((together, [(items[number], limit(items[number])) for number in numbers]))

    def collect(self, done: dict[int, Answer | Failed], items: Sequence[Any], limit: Callable[[Any], float]) -> bool:
        """Take what it has answered into ``done``; False where another worker has to go on with :attr:`left`.

        An item that a worker fails which has read others before is tried again by the next one, so that no result depends on what was read
        before it (leaks of a decoder, a fragmented heap).
        """
        try:
            for data in _parts(self.pipe.recv_bytes(2 * self.memory)):
                answer = _decode(data, self.memory)
                if isinstance(answer, Failed) and answer.kind == "memory":
                    return self._replaced(0, answer, done)
                done[self.asked.popleft()] = answer
                self.fresh = False
        except (EOFError, OSError, ValueError, KeyError, IndexError):
            self.process.join(1)  # one that has closed its pipe is about to end; one that sent no answer goes on
            code = self.process.exitcode
            self.end()
            if not self.asked:  # it sent more than it was asked
                return False
            place = min(max(0, self.begun.value - 1 - (self.size - len(self.asked))), len(self.asked) - 1)
            self.fresh = self.fresh and place == 0
            return self._replaced(place, self._death(code, limit(items[self.asked[place]])), done)
        return True

    def _replaced(self, place: int, failed: Failed, done: dict[int, Answer | Failed]) -> bool:
        """End the process, which failed at a place among what it was asked. What it had read before and not sent is read once more."""
        self.end()
        self.left = list(self.asked)
        number = self.left.pop(place)
        self.killed[number] += failed.kind == "killed"
        again = self.killed[number] < TRIES if failed.kind == "killed" else not self.fresh and failed.kind != "slow"
        if failed.kind == "killed":
            time.sleep(PAUSE * 2 ** min(self.killed[number] - 1, TRIES))
        if not again:
            done[number] = failed
        else:
            self.left.insert(0, number)
        return False

    def _death(self, code: int | None, seconds: float) -> Failed:
        """What a process's exit code says; None is that of one which had not ended."""
        if code in (-signal.SIGPROF, -signal.SIGALRM):
            return _failed("slow", seconds=seconds)
        if code in (-signal.SIGKILL, -signal.SIGTERM, LOST):
            return _failed("killed", tries=TRIES)
        names = {-number.value: number.name for number in signal.Signals}
        return _failed("crash", detail="no answer" if code is None else names.get(code, f"exit {code}"))

    def end(self) -> None:
        """Kill the process and let go of it."""
        if not self.pipe.closed:
            if self.process.pid is not None:
                self.process.kill()
                self.process.join()
            self.pipe.close()


def _failed(kind: Kind, **facts: Any) -> Failed:
    return Failed(kind, REASONS[kind].format(**facts))


def _context(work: Work[Any]) -> Any:
    """Processes that have imported what the work needs."""
    function = work.func if isinstance(work, functools.partial) else work
    ours = sorted(name for name in sys.modules if name.startswith("pipeline.ingest."))
    return worker_processes([__name__, function.__module__, *ours, *LATER])


def _serve(pipe: Connection, begun: Any, work: Work[Any], memory: int) -> None:
    """The worker: answers until the pipe closes. The kernel ends it where an item takes too long, whatever code is running."""
    gc.freeze()  # what was imported is no garbage: looking through it costs time, and its pages
    _quieten()
    _limit_memory(memory)
    pipe.send_bytes(b"ready")
    with contextlib.suppress(EOFError, OSError):
        while True:
            together, batch = pipe.recv()
            held: list[bytes] = []
            since = time.monotonic()
            for number, (item, seconds) in enumerate(batch, start=1):
                begun.value = number
                _give(seconds)
                full = False
                try:
                    answer = _encode(*work(item))
                except MemoryError:
                    full = True
                    answer = _encode({"failed": "memory"}, ())
                except BaseException as error:  # a panic in a decoder's Rust is no Exception
                    # Only the kind of error: a parser's message may quote the patient's data.
                    answer = _encode({"failed": type(error).__name__}, ())
                _give(0)
                held += [len(answer).to_bytes(8, "big"), answer]
                late = time.monotonic() - since > HELD
                if not together or full or late or number == len(batch) or sum(map(len, held)) > SENT:
                    pipe.send_bytes(b"".join(held))
                    held, since = [], time.monotonic()
                if full:
                    return  # what is read after this would depend on it


def _give(seconds: float) -> None:
    """Let the kernel end this process after so much processor time, or :data:`WAIT` times as much wall time; 0 stops both clocks."""
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.setitimer(signal.ITIMER_REAL, WAIT * seconds)


def _quieten() -> None:
    """No output (decoders quote what they read), no threads of BLAS beside the other workers, no part in the terminal's
    Ctrl-C, no life beyond the parent's."""
    import threadpoolctl

    end_with_parent()
    threadpoolctl.threadpool_limits(1)
    os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))  # for libraries loaded later
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)


def _limit_memory(memory: int) -> None:
    """Bound the address space (RLIMIT_AS), and let images be made in memory that an earlier one was made in."""
    try:
        with open("/proc/self/statm") as file:
            now = int(file.read().split()[0]) * resource.getpagesize()
    except OSError:
        return
    resource.setrlimit(resource.RLIMIT_AS, (now + memory, now + memory))
    with contextlib.suppress(OSError, AttributeError):
        # glibc's M_MMAP_THRESHOLD and M_TRIM_THRESHOLD: fresh pages for each array of an image take a sixth of the time that a file takes.
        # Where what is kept leaves a large file no room, `_Worker.collect` has it tried again by a fresh worker.
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(-3, 32 << 20)
        mallopt(-1, 128 << 20)


def _encode(value: Any, arrays: Sequence[NDArray[Any]]) -> bytes:
    """``[4 bytes: length of the JSON] [JSON] [the arrays' bytes, one after the other]``."""
    solid = [np.ascontiguousarray(array) for array in arrays]
    head = json.dumps({"value": value, "arrays": [(array.dtype.str, array.shape) for array in solid]}).encode()
    return b"".join([len(head).to_bytes(4, "big"), head, *(array.tobytes() for array in solid)])


def _parts(data: bytes) -> Iterator[memoryview]:
    """The answers of one message, each ``[8 bytes: its length] [answer]``; ValueError where a worker sent anything else."""
    view = memoryview(data)
    while len(view):
        end = 8 + int.from_bytes(view[:8], "big")
        if end > len(view):
            raise ValueError("not an answer")
        yield view[8:end]
        view = view[end:]


def _decode(data: memoryview, memory: int) -> Answer | Failed:
    """The inverse of :func:`_encode`; ValueError or KeyError where a worker sent anything else."""
    start = 4 + int.from_bytes(data[:4], "big")
    head = json.loads(bytes(data[4:start]))
    value = head["value"]
    if isinstance(value, dict) and isinstance(detail := value.get("failed"), str):
        return _failed("memory", memory=memory >> 20) if detail == "memory" else _failed("error", detail=detail)
    arrays = []
    for code, shape in head["arrays"]:
        dtype = np.dtype(code)
        if dtype.kind not in "biufc":
            raise ValueError("not an array of numbers")
        size = prod(shape) * dtype.itemsize
        arrays.append(np.frombuffer(data, dtype, prod(shape), start).reshape(shape).copy())
        start += size
    return Answer(value, tuple(arrays))
