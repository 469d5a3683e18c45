"""What the mock issuer remembers: logins, their credentials, codes, and what was counted."""

import base64
import hashlib
import json
import secrets
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]
Answer = tuple[int, Json]

AUTH = "https://api.openai.com/auth"


@dataclass(kw_only=True)
class Login:
    """One family of refresh credentials. `ended` is the code that ended it."""

    number: int
    email: str
    account_id: str
    plan: str
    generation: int = 0
    ended: str | None = None


@dataclass(kw_only=True)
class Credential:
    """A refresh credential of a login."""

    login: Login
    generation: int
    used_at: float | None = None


@dataclass(kw_only=True)
class Code:
    """An authorization code, and what has to be shown for it."""

    challenge: str
    redirect_uri: str
    login: Login


@dataclass
class Book:
    """The memory; `now` tells unix seconds. Nothing in it waits."""

    now: Callable[[], float]
    client_id: str
    lifetime: float = 3_600.0
    leeway: float = 0.0
    counts: Counter[str] = field(default_factory=Counter)
    logins: list[Login] = field(default_factory=list)
    refreshes: dict[str, Credential] = field(default_factory=dict)
    accesses: dict[str, tuple[Login, float]] = field(default_factory=dict)
    codes: dict[str, Code] = field(default_factory=dict)

    def login(self, email: str, account_id: str, plan: str) -> Login:
        """A new login, which has no credentials yet."""
        login = Login(number=len(self.logins), email=email, account_id=account_id, plan=plan)
        self.logins.append(login)
        return login

    def grant(self, login: Login) -> Json:
        """New credentials of a login, as the body of an answer."""
        login.generation += 1
        ends_at = self.now() + self.lifetime
        access = self._jwt(login, ends_at)
        refresh = f"rt-canary-{secrets.token_urlsafe(24)}"
        self.refreshes[refresh] = Credential(login=login, generation=login.generation)
        self.accesses[access] = (login, ends_at)
        return {
            "id_token": self._jwt(login, ends_at, email=login.email),
            "access_token": access,
            "refresh_token": refresh,
            "token_type": "Bearer",
            "expires_in": self.lifetime,
        }

    def _jwt(self, login: Login, ends_at: float, **more: str) -> str:
        auth = {"chatgpt_account_id": login.account_id, "chatgpt_plan_type": login.plan}
        said = {"exp": int(ends_at), "jti": secrets.token_hex(8), AUTH: auth, **more}
        parts = (json.dumps(part).encode() for part in ({"alg": "none"}, said))
        head, body = (base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)
        return f"{head}.{body}.canary-signature"

    def code(self, login: Login, *, challenge: str, redirect_uri: str) -> str:
        """An authorization code for a login."""
        code = f"ac-canary-{secrets.token_urlsafe(16)}"
        self.codes[code] = Code(challenge=challenge, redirect_uri=redirect_uri, login=login)
        return code

    def exchange(self, form: Json) -> Answer:
        """A code for credentials; it works once, with its verifier and its redirect alone."""
        code = self.codes.pop(str(form.get("code")), None)
        verifier = str(form.get("code_verifier"))
        if (
            code is None
            or code.challenge != s256(verifier)
            or code.redirect_uri != form.get("redirect_uri")
        ):
            self.counts["refused"] += 1
            return 400, {"error": "invalid_grant", "error_description": "not this code"}
        self.counts["codes"] += 1
        return 200, self.grant(code.login)

    def refresh(self, given: str) -> Answer:
        """A refresh credential for the next ones."""
        credential = self.refreshes.get(given)
        if credential is None:
            return self._refused("refresh_token_invalidated")
        login = credential.login
        if login.ended:
            return self._refused(login.ended)
        if credential.used_at is not None:
            if not self._may_repeat(credential):
                self.counts["reuses"] += 1
                login.ended = "refresh_token_invalidated"
                return self._refused("refresh_token_reused")
            self.counts["repeats"] += 1
        else:
            self.counts["exchanges"] += 1
        credential.used_at = self.now()
        return 200, self.grant(login)

    def _may_repeat(self, credential: Credential) -> bool:
        since = self.now() - (credential.used_at or 0.0)
        later = (
            c
            for c in self.refreshes.values()
            if c.login is credential.login and c.generation > credential.generation
        )
        return since <= self.leeway and all(c.used_at is None for c in later)

    def _refused(self, code: str) -> Answer:
        self.counts["refused"] += 1
        message = "Your refresh credential is of no more use. Please sign in again."
        return 401, {"error": {"message": message, "type": "invalid_request_error", "code": code}}

    def revoke(self, given: str) -> Answer:
        """End the login of a refresh credential; an unknown one is no error (RFC 7009)."""
        credential = self.refreshes.get(given)
        if credential is not None:
            self.counts["revocations"] += 1
            credential.login.ended = "refresh_token_invalidated"
        return 200, {}

    def end(self, account_id: str, code: str) -> None:
        """End every login of an account: the answer to the next refresh has this code."""
        for login in self.logins:
            if login.account_id == account_id:
                login.ended = code

    def is_live(self, access: str) -> bool:
        """Whether an upstream would take an access credential now."""
        login, ends_at = self.accesses.get(access, (None, 0.0))
        return login is not None and login.ended is None and self.now() < ends_at


def s256(verifier: str) -> str:
    """The S256 challenge of a verifier."""
    digest = hashlib.sha256(verifier.encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
