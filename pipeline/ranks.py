"""Several processes, on one machine or many, that share the heavy work of a run: ``torchrun`` starts them.

Rank 0 runs the pipeline and writes its records; the others wait for it to hand out work, of which every rank does a share. They see the
same files, as on a cluster's shared file system, so that what travels between them is small: which function to call, and how it ended.
Nothing that a run writes depends on how many ranks there are.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from pipeline import system

Report = Callable[[int], None]

# A rank may wait for as long as rank 0 works alone.
PATIENCE = timedelta(days=30)


@dataclass(frozen=True)
class Share:
    """One rank's part of the work: of a list's places, every ``of``-th from ``rank`` on."""

    rank: int = 0
    of: int = 1

    def places(self, count: int) -> range:
        """The places of a list of length ``count`` that are this rank's."""
        return range(self.rank, count, self.of)


def count() -> int:
    """How many ranks there are: 1 where ``torchrun`` did not start this process."""
    return int(os.environ["WORLD_SIZE"]) if "TORCHELASTIC_RUN_ID" in os.environ else 1


def on_this_machine() -> int:
    """How many of the ranks share this machine, and so its cores."""
    return int(os.environ["LOCAL_WORLD_SIZE"]) if count() > 1 else 1


@contextlib.contextmanager
def joined() -> Iterator[bool]:
    """Join the other ranks; whether this one is rank 0 and runs the pipeline. Any other has served, and is done, when this yields."""
    if count() == 1:
        yield True
        return
    import torch
    import torch.distributed as dist

    system.end_with_parent()  # each rank has a session of its own, and would go on writing beside the next attempt
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
    dist.init_process_group("gloo", timeout=PATIENCE)
    if dist.get_rank() > 0:
        while (job := _from_rank_0(None)) is not None:
            function, args = job
            dist.gather_object(_outcome(function, args, report=lambda done: None), dst=0)
        yield False
    else:
        try:
            yield True
        except KeyboardInterrupt:  # it may have come amid a collective call, after which no other can be made
            raise
        except BaseException:
            _from_rank_0(None)
            raise
        else:
            _from_rank_0(None)
    dist.destroy_process_group()


def together(function: Callable[..., None], *args: Any, report: Report) -> None:
    """Call ``function(share, *args, report=report)`` on every rank, and return when all have ended.

    Args:
        function: at the top of a module; it takes its :class:`Share` first, and ``report`` by name.
        report: told of progress; rank 0 alone calls it.
        args: what the other ranks are given too. They travel between machines as they are, so that no key may be among them.

    Raises:
        Exception: what the function raised, of the lowest rank where it did.
    """
    if count() == 1:
        function(Share(), *args, report=report)
        return
    import torch.distributed as dist

    _from_rank_0((function, args))
    outcomes: list[Exception | None] = [None] * count()
    dist.gather_object(_outcome(function, args, report=report), outcomes, dst=0)
    for error in outcomes:
        if error is not None:
            raise error


def _from_rank_0(job: tuple[Callable[..., None], Sequence[Any]] | None) -> Any:
    """What rank 0 gives to all: a function and its arguments, or None for the end."""
    import torch.distributed as dist

    holder: list[Any] = [job]
    dist.broadcast_object_list(holder, src=0)
    return holder[0]


def _outcome(function: Callable[..., None], args: Sequence[Any], report: Report) -> Exception | None:
    """Call the function; what it raised, instead of raising it: the other ranks wait to hear of it."""
    import torch.distributed as dist

    try:
        function(Share(dist.get_rank(), count()), *args, report=report)
    except Exception as error:
        return error
    return None
