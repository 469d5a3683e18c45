"""The mock issuer's routes. Requests are handled in one step each, whoever has left meanwhile."""

import asyncio
import gzip
import json
import secrets
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TextIO
from urllib.parse import urlencode

from aiohttp import web

from tests.issuer.book import Answer, Book, Json, Login, s256

CLIENT_ID = "app_EMoamEEZ73f0CkXaXp7hrann"
WHO = {"email": "ann.canary@example.com", "account_id": "acct-canary-1", "plan": "plus"}
_DEVICE = "/api/accounts/deviceauth"


@dataclass
class Manners:
    """What goes wrong, and how long things take."""

    slow_before: float = 0.0
    slow_after: float = 0.0
    lose: int = 0
    drop: int = 0
    fail: int = 0
    garbage: int = 0
    busy: int = 0
    echo: int = 0
    huge: int = 0
    redirect: int = 0
    compressed: int = 0
    omit: list[str] = field(default_factory=list)
    pending: int = 0
    deny: bool = False
    bad_state: bool = False

    def takes(self, name: str) -> bool:
        """Whether this one is to go wrong so; one less from then on."""
        left: int = getattr(self, name)
        setattr(self, name, max(0, left - 1))
        return left > 0


@dataclass(kw_only=True)
class Device:
    """One device code."""

    user_code: str
    polls: int = 0
    pending: int = 0


class Issuer:
    """The server. `who` is whoever signs in next."""

    def __init__(self, *, log: TextIO | None = None, now: Callable[[], float] = time.time) -> None:
        self.book = Book(now, CLIENT_ID)
        self.manners = Manners()
        self.who: Json = dict(WHO)
        self.origin = ""
        self.devices: dict[str, Device] = {}
        self.requests: list[Json] = []
        self._under_way: Counter[int] = Counter()
        self._log = log

    @property
    def counts(self) -> Counter[str]:
        """What was counted."""
        return self.book.counts

    @property
    def busy(self) -> int:
        """How many requests for credentials are under way."""
        return self._under_way.total()

    def app(self) -> web.Application:
        """The aiohttp application."""
        app = web.Application()
        app.router.add_get("/oauth/authorize", self.authorize)
        app.router.add_post("/oauth/token", self.token)
        app.router.add_post("/oauth/revoke", self.revoke)
        app.router.add_post(f"{_DEVICE}/usercode", self.usercode)
        app.router.add_post(f"{_DEVICE}/token", self.poll)
        app.router.add_get("/live", self.live)
        app.router.add_get("/counts", self.tell)
        app.router.add_post("/manners", self.behave)
        app.router.add_post("/grants", self.give)
        app.router.add_post("/end", self.end)
        return app

    # --- as an issuer -----------------------------------------------------------------------------

    async def authorize(self, request: web.Request) -> web.Response:
        """Approves by itself, and sends the browser back."""
        asked = request.query
        if asked.get("client_id") != CLIENT_ID or asked.get("response_type") != "code":
            return web.Response(status=400, text="unknown client")
        if asked.get("code_challenge_method") != "S256" or not asked.get("code_challenge"):
            return web.Response(status=400, text="PKCE is needed")
        back = {"state": "another" if self.manners.bad_state else asked.get("state", "")}
        if self.manners.deny:
            back |= {"error": "access_denied", "error_description": "The user said no"}
        else:
            back["code"] = self.book.code(
                self._login(),
                challenge=asked["code_challenge"],
                redirect_uri=asked.get("redirect_uri", ""),
            )
        self.note("authorized", scope=asked.get("scope", ""))
        raise web.HTTPFound(f"{asked['redirect_uri']}?{urlencode(back)}")

    def _login(self) -> Login:
        return self.book.login(self.who["email"], self.who["account_id"], self.who["plan"])

    async def token(self, request: web.Request) -> web.StreamResponse:
        """Exchanges a code, or a refresh credential."""
        said = await self._body(request)
        refresh = str(said.get("refresh_token", ""))
        known = self.book.refreshes.get(refresh)
        login = known.login if known else None
        number = -1 if login is None else login.number
        self._under_way[number] += 1
        self.counts["requests"] += 1
        if number >= 0 and self._under_way[number] > 1:
            self.counts["overlaps"] += 1
        self.note("asked", login, grant=said.get("grant_type"))
        try:
            return await self._answered(request, said, login)
        finally:
            self._under_way[number] -= 1

    async def _answered(
        self, request: web.Request, said: Json, login: Login | None
    ) -> web.StreamResponse:
        await asyncio.sleep(self.manners.slow_before)
        early = self._gone_wrong(request)
        if early is not None:
            return early
        if self.manners.takes("echo"):
            return _echoed(said)
        status, body = self._handled(said)
        self.note("handled", login, status=status)
        await asyncio.sleep(self.manners.slow_after)
        if self.manners.takes("lose"):
            self.counts["lost"] += 1
            self.note("lost", login)
            return _hung_up(request)
        answer = self._told(status, body)
        self.note("answered", login, status=status)
        return answer

    def _gone_wrong(self, request: web.Request) -> web.StreamResponse | None:
        if self.manners.takes("drop"):
            self.counts["dropped"] += 1
            return _hung_up(request)
        if self.manners.takes("fail"):
            self.counts["failed"] += 1
            return web.json_response({"error": {"code": "server_error"}}, status=500)
        if self.manners.takes("busy"):
            return web.json_response(
                {"error": "slow_down"}, status=429, headers={"retry-after": "7"}
            )
        if self.manners.takes("redirect"):
            return web.Response(status=307, headers={"location": f"{self.origin}/elsewhere"})
        return None

    def _handled(self, said: Json) -> Answer:
        if said.get("client_id") != CLIENT_ID:
            return 401, {"error": "invalid_client"}
        match said.get("grant_type"):
            case "authorization_code":
                return self.book.exchange(said)
            case "refresh_token":
                return self.book.refresh(str(said.get("refresh_token")))
        return 400, {"error": "unsupported_grant_type"}

    def _told(self, status: int, body: Json) -> web.Response:
        shown = {name: value for name, value in body.items() if name not in self.manners.omit}
        if status == 200 and self.manners.takes("garbage"):
            return web.Response(text="<html>canary</html>", content_type="text/html")
        if status == 200 and self.manners.takes("huge"):
            return web.json_response({**shown, "padding": "x" * (1 << 20)})
        if status == 200 and self.manners.takes("compressed"):
            data = gzip.compress(json.dumps(shown).encode())
            return web.Response(body=data, headers={"content-encoding": "gzip"})
        return web.json_response(shown, status=status)

    async def revoke(self, request: web.Request) -> web.Response:
        """Ends a login."""
        said = await self._body(request)
        if self.manners.takes("fail"):
            return web.json_response({"error": "server_error"}, status=500)
        status, body = self.book.revoke(str(said.get("token")))
        self.note("revoked")
        return web.json_response(body, status=status)

    async def usercode(self, request: web.Request) -> web.Response:
        """Begins a device flow."""
        said = await self._body(request)
        if said.get("client_id") != CLIENT_ID:
            return web.json_response({"error": "invalid_client"}, status=400)
        device_id = f"device-canary-{secrets.token_hex(8)}"
        user_code = f"{secrets.token_hex(2)}-{secrets.token_hex(2)}".upper()
        self.devices[device_id] = Device(user_code=user_code, pending=self.manners.pending)
        body = {"device_auth_id": device_id, "user_code": user_code, "interval": "1"}
        return web.json_response(body)

    async def poll(self, request: web.Request) -> web.StreamResponse:
        """Says whether the code was typed in."""
        said = await self._body(request)
        device = self.devices.get(str(said.get("device_auth_id")))
        early = self._gone_wrong(request)
        if early is not None:
            return early
        if device is None or device.user_code != said.get("user_code"):
            return web.json_response({"error": {"code": "unknown"}}, status=404)
        if self.manners.deny:
            return web.json_response({"error": "access_denied"}, status=403)
        device.polls += 1
        if device.polls <= device.pending:
            status = 403 if device.polls % 2 else 404
            return web.json_response({"error": {"code": "deviceauth_pending"}}, status=status)
        verifier = f"verifier-canary-{secrets.token_urlsafe(32)}"
        redirect = f"{self.origin}/deviceauth/callback"
        code = self.book.code(self._login(), challenge=s256(verifier), redirect_uri=redirect)
        return web.json_response(
            {
                "authorization_code": code,
                "code_verifier": verifier,
                "code_challenge": s256(verifier),
            }
        )

    # --- for tests --------------------------------------------------------------------------------

    async def live(self, request: web.Request) -> web.Response:
        """Whether an upstream would take the bearer."""
        bearer = request.headers.get("authorization", "").removeprefix("Bearer ")
        if self.book.is_live(bearer):
            return web.json_response({})
        return web.json_response({"error": {"code": "token_expired"}}, status=401)

    async def tell(self, _: web.Request) -> web.Response:
        """What was counted."""
        return web.json_response(dict(self.counts))

    async def behave(self, request: web.Request) -> web.Response:
        """Set manners, and the book's lifetime and leeway."""
        for name, value in (await request.json()).items():
            setattr(self.book if name in ("lifetime", "leeway") else self.manners, name, value)
        return web.json_response({})

    async def give(self, request: web.Request) -> web.Response:
        """A login without a browser."""
        said = {**self.who, **await request.json()}
        login = self.book.login(said["email"], said["account_id"], said["plan"])
        return web.json_response(self.book.grant(login))

    async def end(self, request: web.Request) -> web.Response:
        """End the logins of an account."""
        said = await request.json()
        self.book.end(said["account_id"], said.get("code", "refresh_token_invalidated"))
        return web.json_response({})

    async def _body(self, request: web.Request) -> Json:
        is_json = request.content_type == "application/json"
        said: Json = await request.json() if is_json else dict(await request.post())
        shown = {"path": request.path, "type": request.content_type, "body": said}
        self.requests.append({**shown, "headers": dict(request.headers)})
        del self.requests[:-200]
        return said

    def note(self, event: str, login: Login | None = None, **more: object) -> None:
        """A line of the log: who, by family and generation, and never with what."""
        if self._log is None:
            return
        who = {} if login is None else {"family": login.number, "generation": login.generation}
        line = json.dumps({"at": self.book.now(), "event": event, **who, **more})
        self._log.write(f"{line}\n")
        self._log.flush()


def _echoed(said: Json) -> web.Response:
    shown = str(said.get("refresh_token") or said.get("code"))
    error = {"message": f"Not {shown}", "type": shown, "code": shown, "param": shown}
    body = {"error": error, "error_description": shown, "code": shown}
    return web.json_response(body, status=400, headers={"retry-after": shown, "x-echo": shown})


def _hung_up(request: web.Request) -> web.Response:
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


async def start(port: int = 0, *, log: TextIO | None = None) -> tuple[web.AppRunner, Issuer]:
    """A mock issuer on loopback."""
    issuer = Issuer(log=log)
    runner = web.AppRunner(issuer.app(), access_log=None, shutdown_timeout=0.2)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    host, real = runner.addresses[0][:2]
    issuer.origin = f"http://{host}:{real}"
    return runner, issuer
