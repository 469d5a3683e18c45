"""Asks an upstream of the Codex kind how much of its quota an account has used."""

from collections.abc import Callable
from dataclasses import replace

from handrail.core.codex_usage import MAX_BYTES, read_usage_endpoint, usage_place
from handrail.core.limits import Told
from handrail.engine.accounts import Pool
from handrail.engine.dispatch import Dispatcher
from handrail.settings.model import Target


async def asked_usage(
    dispatcher: Dispatcher, pool: Pool, target: Target, *, account: str, now: Callable[[], float]
) -> Told | None:
    """What the usage endpoint says of the account of that id; the pool has taken it in.

    None when its answer is no JSON object. Raises HandrailError. Costs no usage, and is asked
    whatever limit the account is at.
    """
    base, path = usage_place(target.url)
    body = await dispatcher.ask(
        replace(target, url=base), path, limit=MAX_BYTES, account=account, question=True
    )
    told = read_usage_endpoint(body, now=now())
    if told is not None:
        pool.told(account, told)
    return told
