"""One sign-in of a test: who plays the person and the browser, and what both have seen."""

import asyncio
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import aiohttp
import pytest

from handrail.cli.login import Person, SignIn, SignInFailed, Way
from handrail.core.oauth import Grant
from handrail.upstream.oauth import Issuer as Client
from tests.integration.issuers import CANARY, settings_of, told
from tests.issuer import Issuer

Page = tuple[int, dict[str, str], str]


class Stage:
    """One sign-in: what was said, what was kept, and which pages the browser has seen."""

    def __init__(self, client: Client, issuer: Issuer, **options: Any) -> None:
        self.issuer = issuer
        self.said: list[str] = []
        self.kept: list[Grant] = []
        self.pages: list[Page] = []
        self.pauses: list[float] = []
        self.answers: list[str] = []
        self.settings = options.pop("settings", None) or settings_of(issuer.origin)
        self.browse: Callable[[str], Any] = self.follow
        self._browsing: list[asyncio.Task[None]] = []
        person = Person(say=self.said.append, ask=self.ask, open_page=self.open_page)
        self.sign_in = SignIn(
            issuer=client, settings=self.settings, person=person, pause=self.pause, **options
        )

    async def run(self, way: Way, *, keep: Callable[[Grant], None] | None = None) -> None:
        """The sign-in, until the browser has seen its last page as well."""
        try:
            await self.sign_in.run(way, keep=keep or self.kept.append)
        finally:
            await asyncio.gather(*self._browsing)

    def open_page(self, url: str) -> bool:
        self._browsing.append(asyncio.create_task(self.browse(url)))
        return True

    async def ask(self, question: str) -> str:
        self.said.append(question)
        return self.answers.pop(0).replace("{}", await where_it_ends(self.url))

    async def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        await asyncio.sleep(0)

    async def follow(self, url: str) -> None:
        """Go wherever the issuer says, as a browser does."""
        self.pages.append(await page(url))

    @property
    def url(self) -> str:
        """The address to sign in at, as it was said."""
        (found,) = re.findall(r"http\S+authorize\S+", "\n".join(self.said))
        return str(found)

    @property
    def back(self) -> str:
        """Where the issuer is asked to send the browser."""
        return parse_qs(urlsplit(self.url).query)["redirect_uri"][0]


async def page(url: str, *, method: str = "GET", **headers: str) -> Page:
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, url, headers=headers) as reply,
    ):
        shown = {name.lower(): value for name, value in reply.headers.items()}
        return reply.status, shown, await reply.text()


async def where_it_ends(url: str) -> str:
    """The address that the browser of another machine shows in the end."""
    async with (
        aiohttp.ClientSession() as session,
        session.get(url, allow_redirects=False) as reply,
    ):
        return reply.headers["location"]


async def refusal(stage: Stage, way: Way) -> str:
    with pytest.raises(SignInFailed) as caught:
        await stage.run(way)
    assert stage.kept == []
    assert CANARY not in told(caught.value)
    check_said(stage)
    return str(caught.value)


def check_said(stage: Stage) -> None:
    """Nothing that was said or shown holds a credential, a code or anybody's name."""
    shown = "\n".join(stage.said) + "".join(f"{head}{text}" for _, head, text in stage.pages)
    assert CANARY not in shown
