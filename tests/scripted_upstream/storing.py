"""A scripted server that keeps responses and runs them in the background itself, as OpenAI does."""

import asyncio
import json
from typing import Any

from aiohttp import web

from tests.scripted_upstream.answer import Answer, Cut
from tests.scripted_upstream.manners import refuse
from tests.scripted_upstream.script import Json, Script

ENDS = ("response.completed", "response.failed", "response.incomplete")


class Kept:
    """One response: what was asked, its events so far, and who waits for more."""

    def __init__(self, body: Json) -> None:
        self.body = body
        self.frames: list[bytes] = []
        self.snapshot: Json = {}
        self.ended = False
        self.task: asyncio.Task[None] | None = None
        self._changed = asyncio.Condition()

    async def write(self, data: bytes) -> None:
        """One more event."""
        event = json.loads(data.partition(b"data: ")[2])
        self.snapshot = event.get("response", self.snapshot)
        self.frames.append(data)
        self.ended = self.ended or event["type"] in ENDS
        async with self._changed:
            self._changed.notify_all()

    async def after(self, number: int) -> list[bytes]:
        """The events after `number`, [] when there will be none."""
        async with self._changed:
            await self._changed.wait_for(lambda: len(self.frames) > number + 1 or self.ended)
        return self.frames[number + 1 :]


class Storing:
    """The routes of such a server."""

    def __init__(self, play: Any) -> None:
        self._play = play
        self.kept: dict[str, Kept] = {}
        self.asked: list[str] = []  # with which credential, for what was made before

    def objection(self, body: Json) -> web.Response | None:
        """What it refuses."""
        if body.get("background") and body.get("store") is False:
            return refuse("background=true requires store=true", "background")
        previous = body.get("previous_response_id")
        if previous is not None and previous not in self.kept:
            words = f"Previous response with id '{previous}' not found."
            return refuse(words, "previous_response_id")
        return None

    async def create(
        self, request: web.Request, body: Json, script: Script, *, number: int
    ) -> web.StreamResponse:
        """A background response, queued or streamed."""
        kept = Kept(body)
        answer = Answer(kept, body, manners="storing", number=number)  # type: ignore[arg-type]
        answer.response["background"] = True
        self.kept[answer.response["id"]] = kept

        async def work() -> None:
            try:
                await asyncio.sleep(script.first)
                await self._play(answer, script, body, request, number=number)
            except Cut:
                await answer.close("failed")

        kept.snapshot = {**answer.response, "status": "queued"}
        kept.task = asyncio.create_task(work())
        if body.get("stream"):
            return await self._replay(request, kept, after=-1)
        return web.json_response(kept.snapshot)

    async def _replay(self, request: web.Request, kept: Kept, *, after: int) -> web.StreamResponse:
        reply = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await reply.prepare(request)
        while frames := await kept.after(after):
            for frame in frames:
                await reply.write(frame)
            after += len(frames)
        await reply.write_eof()
        return reply

    def _find(self, request: web.Request) -> Kept:
        self.asked.append(request.headers.get("authorization", ""))
        kept = self.kept.get(request.match_info["id"])
        if kept is None:
            gone = refuse(f"Response with id '{request.match_info['id']}' not found.", None, 404)
            raise web.HTTPNotFound(text=gone.text, content_type="application/json")
        return kept

    async def retrieve(self, request: web.Request) -> web.StreamResponse:
        """GET /responses/{id}, also as a stream from a number."""
        kept = self._find(request)
        if request.query.get("stream") != "true":
            return web.json_response(kept.snapshot)
        if not kept.body.get("stream"):
            return refuse("This response was not created with stream=true.", "stream")
        return await self._replay(
            request, kept, after=int(request.query.get("starting_after", "-1"))
        )

    async def cancel(self, request: web.Request) -> web.Response:
        """POST /responses/{id}/cancel."""
        kept = self._find(request)
        if kept.ended and kept.snapshot["status"] != "cancelled":
            return refuse("Cannot cancel a completed response.", "response_id")
        if kept.task is not None:
            kept.task.cancel()
        kept.snapshot = {**kept.snapshot, "status": "cancelled", "output": []}
        kept.ended = True
        return web.json_response(kept.snapshot)

    async def delete(self, request: web.Request) -> web.Response:
        """DELETE /responses/{id}."""
        kept = self._find(request)
        if kept.task is not None:
            kept.task.cancel()
        del self.kept[request.match_info["id"]]
        return web.json_response(
            {"id": request.match_info["id"], "object": "response", "deleted": True}
        )

    async def input_items(self, request: web.Request) -> web.Response:
        """GET /responses/{id}/input_items."""
        kept = self._find(request)
        if str(kept.body.get("model")).startswith("partly"):
            return web.json_response({"detail": "Not Found"}, status=404)  # as vLLM's
        given = kept.body.get("input")
        content = [{"type": "input_text", "text": given}]
        item = {"type": "message", "id": "msg_in", "role": "user", "content": content}
        data = given if isinstance(given, list) else [{**item, "status": "completed"}]
        ends = {"first_id": "msg_in", "last_id": "msg_in", "has_more": False}
        return web.json_response({"object": "list", "data": data, **ends})
