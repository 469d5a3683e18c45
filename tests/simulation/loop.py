"""An event loop without I/O whose time is simulated: it jumps to the next timer when idle."""

import asyncio
import contextvars
import random
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

BUSY_TURNS = 100_000
TURN_SECONDS = 1e-7
LAST_SECOND = 20_000.0

ON_TASK: contextvars.ContextVar[Callable[[asyncio.Task[Any]], None] | None] = (
    contextvars.ContextVar("ON_TASK", default=None)
)
"""Told of every task that is made in its context: how a process knows its own."""


class Stuck(AssertionError):
    """Nothing will ever happen again, or something happens for ever at one moment."""


class NumberedTask(asyncio.Task[Any]):
    """A task that hashes to its number: asyncio keeps tasks in sets, in the order of hashes.

    By address that order would differ between two runs of one seed.
    """

    number = 0

    def __hash__(self) -> int:
        return self.number


class Shuffled(deque[Any]):
    """Ready callbacks that come out in any order.

    asyncio runs them in the order in which they became ready; threads and sockets that make them
    ready promise no order, so code that is right must not depend on it.
    """

    def __init__(self, choose: random.Random) -> None:
        super().__init__()
        self._choose = choose

    def popleft(self) -> Any:
        self.rotate(-self._choose.randrange(min(len(self), 8)))
        return super().popleft()


class VirtualLoop(asyncio.BaseEventLoop):
    """`time` starts at 0 and moves only when nothing is ready. One thread, no sockets, no signals.

    With `shuffle`, callbacks that are ready at the same moment run in an order drawn from it. Tasks
    are numbered from `first_task`: those of many loops in one process should differ.
    """

    def __init__(self, *, shuffle: random.Random | None = None, first_task: int = 0) -> None:
        super().__init__()
        self._elapsed = 0.0
        self._turns = 0
        self._tasks_made = first_task
        self._clock_resolution = 1e-9
        self._selector = self
        if shuffle is not None:
            self._ready = Shuffled(shuffle)
        self.complaints: list[str] = []
        self.set_task_factory(self._make_task)  # type: ignore[arg-type]
        self.set_exception_handler(self._complain)

    def time(self) -> float:
        return self._elapsed

    def select(self, timeout: float | None) -> Sequence[object]:
        """What a selector does: nothing arrives, so the whole wait passes at once."""
        if timeout is None:
            raise Stuck("nothing is ready and no timer is set")
        if timeout > 0:
            self._elapsed = max(self._elapsed, self._scheduled[0].when())  # type: ignore[attr-defined]
            self._turns = 0
            if self._elapsed > LAST_SECOND:
                raise Stuck("the simulation does not come to its end")
            return ()
        # Every turn takes some time, as it does on a machine: a deadline that is nearer than a
        # float can tell would never be over otherwise.
        self._elapsed += TURN_SECONDS
        self._turns += 1
        if self._turns > BUSY_TURNS:
            raise Stuck(f"busy at {self._elapsed:.3f} s without end")
        return ()

    def _process_events(self, event_list: Sequence[object]) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """Nobody sleeps who would have to be woken."""

    def run_in_executor(self, *_: Any) -> Any:  # type: ignore[override]
        raise Stuck("the simulated code asked for a thread")

    def _make_task(
        self, loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, Any], **options: Any
    ) -> asyncio.Task[Any]:
        task = NumberedTask(coro, loop=loop, **options)
        self._tasks_made += 1
        task.number = self._tasks_made
        context = options.get("context")
        told = ON_TASK.get() if context is None else context.get(ON_TASK)
        if told is not None:
            told(task)
        return task

    def _complain(self, _: asyncio.AbstractEventLoop, about: dict[str, Any]) -> None:
        problem = about.get("exception")
        self.complaints.append(f"{about['message']}: {type(problem).__name__} {problem}")
