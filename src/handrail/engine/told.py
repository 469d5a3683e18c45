"""An account with what its upstream has just said, before the store has it."""

from dataclasses import replace

from handrail.core.limits import Told
from handrail.store.accounts import Account


def with_told(account: Account, told: Told) -> Account:
    """The account with what was told; a window that was not told again stays as it was."""
    windows = {each.name: each for each in (*account.quota, *told.windows)}
    return replace(
        account,
        quota=tuple(windows.values()),
        plan=told.plan or account.plan,
        credits=told.credits or account.credits,
    )
