"""What is kept of an account, and what a call shows of it."""

from dataclasses import replace

import pytest

from handrail.core.credentials import KEY, OAUTH, pack, shown, unpack
from handrail.core.oauth import Grant
from handrail.errors import StoreFailed

GRANT = Grant(access="acc-1234", refresh="ref-5678", account_id="org-1", expires_at=9.0)


def test_a_grant_comes_back_as_it_was_kept() -> None:
    assert unpack(pack(GRANT)) == GRANT


@pytest.mark.parametrize("stored", [b"", b"{}", b"[]", b'{"access":1}', b"\xff"])
def test_what_is_no_grant_is_a_store_that_cannot_be_read(stored: bytes) -> None:
    with pytest.raises(StoreFailed):
        unpack(stored)


def test_no_secret_is_in_the_text_of_a_value() -> None:
    for value in (GRANT, shown(OAUTH, pack(GRANT))):
        assert "acc-1234" not in repr(value)
        assert "ref-5678" not in repr(value)
        assert "org-1" not in repr(value)


def test_a_call_shows_the_credential_and_whose_it_is() -> None:
    show = shown(OAUTH, pack(GRANT))
    assert (show.secret, dict(show.headers)) == ("acc-1234", {"chatgpt-account-id": "org-1"})
    show = shown(OAUTH, pack(Grant(access="a", refresh="r")))
    assert (show.secret, dict(show.headers)) == ("a", {})
    show = shown(OAUTH, pack(replace(GRANT, workspace="ws-2")))
    assert dict(show.headers) == {"chatgpt-account-id": "ws-2"}
    assert "ws-2" not in repr(show) + repr(replace(GRANT, workspace="ws-2"))
    show = shown(KEY, b"sk-1")
    assert (show.secret, dict(show.headers)) == ("sk-1", {})
