"""JWTs as an issuer writes them; nobody here looks at a signature."""

import base64
import json
from typing import Any

AUTH = "https://api.openai.com/auth"
PROFILE = "https://api.openai.com/profile"


def part(value: Any) -> str:
    """One part of a JWT."""
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def jwt(payload: Any = None, **claims: Any) -> str:
    """A JWT with this payload, or these claims."""
    return f"{part({'alg': 'none'})}.{part(claims if payload is None else payload)}.signature"


def of(account_id: str = "acct-1", plan: str = "plus", **claims: Any) -> str:
    """The JWT of an account."""
    auth = {"chatgpt_account_id": account_id, "chatgpt_plan_type": plan}
    return jwt({AUTH: auth, **claims})
