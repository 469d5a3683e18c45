"""Signing in to an account: with a browser of this machine, by pasting, or by a device code.

Each way ends in a `Grant` that is handed to `keep`. Nothing that is said shows a credential, a code
or whose account it is; the address to sign in at and the device code have to be shown, and are of
no use without the verifier that stays here.
"""

import asyncio
import os
import secrets
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, Protocol

import click

from handrail.cli.callback import PortTaken, listening
from handrail.cli.serve import load_settings
from handrail.core.callback_url import CallbackRefused, read_callback
from handrail.core.device_code import SECONDS as DEVICE_SECONDS
from handrail.core.device_code import Approval, DeviceCode
from handrail.core.oauth import Grant, challenge
from handrail.core.oauth_refusals import IssuerRefused
from handrail.errors import IssuerFailed
from handrail.settings.model import OAuthSettings, Settings
from handrail.settings.oauth import DEFAULT_PORT

BROWSER_SECONDS: Final = 5 * 60.0
"""How long a sign-in in a browser is waited for."""

_TRIES: Final = 3
_MAX_LINE: Final = 16 * 1024
_FAILED_POLLS: Final = 5


class SignInFailed(Exception):
    """Why nobody is signed in, and what to do; one line."""


class Way(StrEnum):
    """How to sign in."""

    BROWSER = "browser"
    PASTE = "paste"
    DEVICE_CODE = "device code"


class Exchanges(Protocol):
    """What a sign-in asks of an issuer; `upstream.oauth.Issuer` is one."""

    def sign_in_url(self, *, redirect_uri: str, state: str, challenge: str) -> str:
        """The address at which a person signs in."""

    async def exchange(self, code: str, *, verifier: str, redirect_uri: str) -> Grant:
        """The grant for an authorization code."""

    async def start_device(self) -> DeviceCode:
        """A code for somebody to type in."""

    async def poll_device(self, device: DeviceCode) -> Approval | None:
        """What to exchange, None while nobody has typed the code in."""

    async def approved(self, approval: Approval) -> Grant:
        """The grant for a code that was typed in."""

    async def revoke(self, grant: Grant) -> None:
        """End a grant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Who signs in: what is said to them, asked of them, and opened for them.

    `open_page` says whether a browser was opened.
    """

    say: Callable[[str], None]
    ask: Callable[[str], Awaitable[str]]
    open_page: Callable[[str], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Secrets:
    """What one sign-in proves by itself with: state and PKCE verifier."""

    state: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)
    verifier: str = field(default_factory=lambda: secrets.token_urlsafe(64), repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class SignIn:
    """One sign-in at `issuer`, as `settings` say. `pause` waits for seconds between polls."""

    issuer: Exchanges
    settings: OAuthSettings
    person: Person
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep
    browser_seconds: float = BROWSER_SECONDS
    device_seconds: float = DEVICE_SECONDS

    async def run(self, way: Way, *, keep: Callable[[Grant], None]) -> None:
        """Sign in and hand the grant to `keep`; if that fails, it is ended at the issuer.

        Raises SignInFailed, IssuerRefused, IssuerFailed, and whatever `keep` does.
        """
        ways = {
            Way.BROWSER: self.by_browser,
            Way.PASTE: self.by_paste,
            Way.DEVICE_CODE: self.by_device_code,
        }
        grant = await ways[way]()
        try:
            keep(grant)
        except Exception:
            # Nobody will ever use it: a login that is left behind is only there to be stolen.
            try:
                await self.issuer.revoke(grant)
            except (IssuerFailed, IssuerRefused) as error:
                self.person.say(f"The login could not be kept, and is still valid: {error}")
            raise

    async def by_browser(self) -> Grant:
        """With a browser of this machine, which comes back to a port of it."""
        known = Secrets()
        try:
            async with listening(
                self.settings.redirect_port, state=known.state, refused=self.person.say
            ) as callback:
                redirect_uri = self.settings.redirect_uri(callback.port)
                self._show(known, redirect_uri, opens=True)
                async with asyncio.timeout(self.browser_seconds):
                    code = await callback.code()
        except TimeoutError:
            raise SignInFailed(
                f"No browser came back within {self.browser_seconds:.0f} s. Where none can reach "
                "this machine, use --device-code or --paste."
            ) from None
        except (CallbackRefused, PortTaken) as error:
            raise SignInFailed(str(error)) from None
        return await self.issuer.exchange(code, verifier=known.verifier, redirect_uri=redirect_uri)

    async def by_paste(self) -> Grant:
        """With a browser anywhere, whose last address is pasted here."""
        known = Secrets()
        # Nothing listens there: the page cannot be reached, and its address is all that is wanted.
        redirect_uri = self.settings.redirect_uri(self.settings.redirect_port or DEFAULT_PORT)
        self._show(known, redirect_uri, opens=False)
        self.person.say("The browser then ends at a page that it cannot reach. That is right.")
        for left in reversed(range(_TRIES)):
            try:
                text = await self.person.ask("Paste the address of that page (it is not shown)")
                code = read_callback(text, state=known.state)
            except CallbackRefused as error:
                if error.final or not left:
                    raise SignInFailed(str(error)) from None
                self.person.say(str(error))
                continue
            break
        return await self.issuer.exchange(code, verifier=known.verifier, redirect_uri=redirect_uri)

    async def by_device_code(self) -> Grant:
        """With a browser anywhere, where a code is typed in that is shown here."""
        device = await self.issuer.start_device()
        self.person.say(f"Open   {self.settings.device_page}")
        self.person.say(f"Enter  {device.user_code}")
        self.person.say(
            "Give the code to nobody. Waiting, at most "
            f"{self.device_seconds / 60:.0f} minutes; Ctrl-C ends it."
        )
        try:
            async with asyncio.timeout(self.device_seconds):
                approval = await self._approval(device)
        except TimeoutError:
            raise SignInFailed(
                "Nobody has entered the code in time. Begin again: handrail accounts login "
                "--device-code."
            ) from None
        return await self.issuer.approved(approval)

    async def _approval(self, device: DeviceCode) -> Approval:
        failed = 0
        while True:
            await self.pause(device.interval)
            try:
                approval = await self.issuer.poll_device(device)
            except (IssuerFailed, IssuerRefused) as error:
                # A poll may be repeated: it takes nothing away. A clear no is one.
                failed += 1
                if failed >= _FAILED_POLLS or _is_clear(error):
                    raise
                continue
            failed = 0
            if approval is not None:
                return approval

    def _show(self, known: Secrets, redirect_uri: str, *, opens: bool) -> None:
        url = self.issuer.sign_in_url(
            redirect_uri=redirect_uri, state=known.state, challenge=challenge(known.verifier)
        )
        opened = opens and self.person.open_page(url)
        self.person.say("Sign in, in the browser that opens, or at" if opened else "Sign in at")
        self.person.say(f"\n{url}\n")
        if opens and not opened:
            self.person.say("Is your browser on another machine? Ctrl-C, then --device-code.")


def _is_clear(error: Exception) -> bool:
    return isinstance(error, IssuerRefused) and error.refusal.status < 429


# --- the command ----------------------------------------------------------------------------------


class KeepFor(Protocol):
    """What keeps the grant of a sign-in."""

    def __call__(
        self, settings: Settings, *, name: str | None, target: str | None
    ) -> Callable[[Grant], None]:
        """Under a name, for a target. Raises ConfigInvalid before anybody signs in."""


Opened = Callable[[OAuthSettings], AbstractAsyncContextManager[Exchanges]]


def login_command(keep_for: KeepFor) -> click.Command:
    """The command `login`, which hands what it gets to whom `keep_for` names."""

    @click.command(name="login")
    @click.option("--config", "config_file", metavar="FILE", help="Settings file (TOML).")
    @click.option("--data-dir", metavar="DIR", help="Where accounts are kept.")
    @click.option("--name", help="What to call the account.")
    @click.option("--target", metavar="NAME", help="Of which target (the only one).")
    @click.option("--paste", is_flag=True, help="Paste the address at which the browser ends.")
    @click.option("--device-code", is_flag=True, help="Type a code in, in any browser.")
    def login(
        *,
        name: str | None,
        target: str | None,
        paste: bool,
        device_code: bool,
        **parameters: Any,
    ) -> None:
        """Sign in to an account, with a browser of this machine unless told otherwise.

        Over SSH, in a container or without a browser: --device-code, or --paste.
        """
        if paste and device_code:
            raise click.UsageError("Give --paste or --device-code, not both.")
        settings = load_settings(parameters, credentials=False)
        keep = keep_for(settings, name=name, target=target)
        way = Way.PASTE if paste else Way.DEVICE_CODE if device_code else Way.BROWSER
        try:
            asyncio.run(_signed_in(settings, way, keep=keep))
        except (SignInFailed, IssuerFailed, IssuerRefused) as error:
            raise click.ClickException(str(error)) from None

    return login


async def _signed_in(settings: Settings, way: Way, *, keep: Callable[[Grant], None]) -> None:
    from handrail.bootstrap.sign_in import issuer_of  # noqa: PLC0415 - an HTTP stack comes along

    async with issuer_of(settings.oauth) as issuer:
        sign_in = SignIn(issuer=issuer, settings=settings.oauth, person=terminal(os.environ))
        await sign_in.run(way, keep=keep)


def terminal(environment: Mapping[str, str]) -> Person:
    """The person at this process's terminal."""

    def open_page(url: str) -> bool:
        import webbrowser  # noqa: PLC0415 - it looks for every browser there is

        return has_browser(environment, sys.platform) and webbrowser.open(url)

    return Person(say=click.echo, ask=_ask, open_page=open_page)


def has_browser(environment: Mapping[str, str], platform: str) -> bool:
    """Whether there is a screen to open a browser on, and not only one that fills the terminal."""
    if "SSH_CONNECTION" in environment or "SSH_TTY" in environment:
        return False
    if platform in ("darwin", "win32"):
        return True
    return bool(environment.get("DISPLAY") or environment.get("WAYLAND_DISPLAY"))


async def _ask(question: str) -> str:
    # Waits for the person and for nothing else: nothing else is under way.
    if sys.stdin.isatty():
        # Hidden: an address with a code in it has no business in a terminal's scroll-back.
        answer: str = click.prompt(question, hide_input=True, prompt_suffix=": ")
        return answer
    click.echo(f"{question}:")
    return sys.stdin.readline(_MAX_LINE)
