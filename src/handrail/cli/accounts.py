"""`handrail accounts`: sign in to the accounts that upstreams are called with."""

import click

from handrail.cli.login import Keep, login_command


def accounts_group(keep: Keep) -> click.Group:
    """The group `accounts`; a sign-in hands what it gets to `keep`."""

    @click.group()
    def accounts() -> None:
        """Look after the accounts that upstreams are called with."""

    accounts.add_command(login_command(keep))
    return accounts
