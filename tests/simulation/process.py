"""One life of the gateway: the real parts on simulated ports, from its start to its end."""

import asyncio
import contextvars
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final

from handrail.bootstrap.ids import new_request_id
from handrail.bootstrap.loops import running
from handrail.bootstrap.parts import build
from handrail.engine.targets import Targets
from handrail.errors import StoreFailed
from handrail.server.app import App, handlers_of
from handrail.server.callers import Callers
from handrail.settings.model import Settings
from tests.simulation.clock import SimulatedClock
from tests.simulation.conversation import Conversation
from tests.simulation.loop import ON_TASK, Stuck
from tests.simulation.store import SimulatedStore
from tests.simulation.upstream import SimulatedClient
from tests.simulation.watch import Watch

_GRACE_SECONDS: Final = 1.0


class Process:
    """Everything that dies with a process. `kill` ends it where it stands.

    Whatever its tasks do afterwards, while they unwind, meets ports that are dead: nothing of it
    reaches the disk, the upstream or a client.
    """

    def __init__(self, watch: Watch, settings: Settings, *, number: int) -> None:
        self.number = number
        self.dead = False
        self.draining = False
        self.settings = settings
        self.died = asyncio.Event()
        self.meets: tuple[str, Callable[[], None]] | None = None
        self._watch = watch
        self._tasks: list[asyncio.Task[Any]] = []
        self._conversations: dict[Conversation, asyncio.Task[None]] = {}
        self._context = contextvars.copy_context()
        self._context.run(ON_TASK.set, self._own)
        self._stop = asyncio.Event()
        self._closed = False
        clock = SimulatedClock(watch.loop, watch.wall)
        self.store = SimulatedStore(self, watch.disk, clock=clock)
        self.store.open()
        self.parts = build(
            lambda: self.settings,
            store=self.store,
            new_client=lambda: SimulatedClient(watch.upstream, self),
            targets=Targets(settings.targets.values()),
            clock=clock,
        )
        self._app = App(
            handlers=handlers_of(self.parts.responses, self.parts.models, self.parts.through),
            callers=Callers(),
            settings=lambda: self.settings,
            ready=self._ready,
            running=lambda: running(self.parts, broken=self._broken),
            new_request_id=new_request_id,
        )
        self._life = self.spawn(self._live())

    # --- what belongs to it ----------------------------------------------------------------

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """A task of this process."""
        return asyncio.get_running_loop().create_task(work, context=self._context.copy())

    def _own(self, task: asyncio.Task[Any]) -> None:
        if len(self._tasks) > 256:
            self._tasks = self.alive()
        self._tasks.append(task)

    def alive(self) -> list[asyncio.Task[Any]]:
        """Its tasks that have not ended."""
        return [task for task in self._tasks if not task.done()]

    def passes(self, point: str) -> None:
        """Execution has come to a named point, where something may be about to happen to it."""
        if self.meets is not None and self.meets[0] == point and not self.dead:
            (_, happens), self.meets = self.meets, None
            happens()

    async def comes_to(self, point: str, happens: Callable[[], None], *, seconds: float) -> None:
        """Let `happens` happen at the next passing of a point, or at the latest after so long."""
        met = asyncio.Event()

        def meets() -> None:
            met.set()
            self._watch.count(f"met {point}")
            happens()

        self.meets = point, meets
        try:
            async with asyncio.timeout(seconds):
                await met.wait()
        except TimeoutError:
            self.meets = None
            if not self.dead:
                happens()

    def troubled_since(self, moment: float) -> bool:
        """Whether there was a cause for being slow."""
        return self._watch.troubled_since(moment)

    def violate(self, what: str) -> None:
        """An invariant does not hold."""
        self._watch.violate(what)

    # --- requests --------------------------------------------------------------------------

    def ask(
        self,
        method: str,
        path: str,
        *,
        key: str,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        slowness: float = 0.0,
    ) -> Conversation:
        """Send a request; its answer comes through the conversation."""
        conversation = Conversation()
        conversation.slowness = slowness
        if self.dead or self._closed:
            conversation.drop()
            return conversation
        scope = conversation.scope(method, path, key=key, headers=headers or {}, body=body)

        async def serve() -> None:
            try:
                await self._app(scope, conversation.receive, conversation.send)
            finally:
                self._conversations.pop(conversation, None)
                conversation.drop()

        self._conversations[conversation] = self.spawn(serve())
        return conversation

    async def _ready(self) -> Mapping[str, Any]:
        return {"status": "ready"}

    # --- its life --------------------------------------------------------------------------

    async def _live(self) -> None:
        async with running(self.parts, broken=self._broken):
            await self._stop.wait()

    def _broken(self) -> None:
        self._watch.violate("a loop of the gateway broke")

    async def reload(self, settings: Settings) -> None:
        """What `Gateway.reload` does."""
        self.settings = settings
        self.parts.executor.wake()
        try:
            await self.parts.background.revoke_all_but(settings.callers)
        except StoreFailed:
            self._watch.count("revocation failed at first")
            self.parts.recovery.wake()

    async def drain(self, seconds: float) -> None:
        """What `Gateway.stop` begins: no new runs, some time for those under way, then the end."""
        self.draining = True
        self.parts.responses.draining = True
        began = self._watch.loop.time()
        await self.parts.executor.drain(seconds)
        self.parts.tails.close()
        self._closed = True
        if self._conversations:
            await asyncio.wait(self._conversations.values(), timeout=_GRACE_SECONDS)
        left = list(self._conversations.values())
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left)
        self._stop.set()
        await asyncio.wait([self._life])
        await self.store.close()
        leaked = [task.get_name() for task in self.alive() if task is not asyncio.current_task()]
        if leaked:
            self._watch.violate(f"tasks outlived the drain: {leaked[:5]}")
        query = f"select id from runs where owner = '{self.parts.owner}'"
        held = self._watch.disk.rows(query)
        if held and not self._watch.sick_since(began):
            self._watch.violate(f"a drain left {len(held)} runs claimed")
        self.dead = True
        self.died.set()

    def kill(self) -> None:
        """SIGKILL."""
        query = "select id from runs where owner is not null and state = 'queued'"
        if self._watch.disk.rows(query):
            self._watch.count("died with a claimed run that had not begun")
        self.dead = True
        self.died.set()
        for conversation in list(self._conversations):
            conversation.drop()
        self._watch.close_calls(self.number)
        for task in self.alive():
            task.cancel()

    async def unwound(self) -> None:
        """Wait until what is left of a dead process has gone, in no simulated time."""
        for _ in range(2_000):
            left = self.alive()
            if not left:
                return
            for task in left:
                task.cancel()
            await asyncio.sleep(0)
        raise Stuck(f"a dead process does not end: {[task.get_name() for task in left][:5]}")


NewProcess = Callable[[], Process]
