"""A call's credential does not come back in its answer, however the answer is cut up."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handrail.core.masking import MIN_SECRET, Mask
from handrail.core.redact import MASK

SECRET = "a1b2a1b2a1b3-key"
OTHER = "another-credential-0"
SHOWN = MASK.encode()


def through(mask: Mask, *slices: bytes) -> bytes:
    return b"".join([*map(mask.slice, slices), mask.rest()])


def test_a_credential_is_masked_in_whole_answers_and_in_texts() -> None:
    mask = Mask([SECRET, OTHER])
    data = f'{{"a": "{SECRET}", "b": ["{OTHER}{SECRET}"]}}'
    assert mask.text(data) == data.replace(SECRET, MASK).replace(OTHER, MASK)
    assert mask.whole(data.encode()) == mask.text(data).encode()
    assert mask.whole(b"nothing") == b"nothing"


def test_it_is_masked_across_slices_and_what_only_began_is_shown_in_the_end() -> None:
    mask = Mask([SECRET])
    assert mask.slice(b"x a1b2a1b2") == b"x "
    assert mask.slice(b"a1b2a1") == b"a1b2"  # it may still begin with what came last
    assert mask.slice(b"b3-key.\n") == SHOWN + b".\n"
    assert mask.slice(b"a1b2") == b""
    assert mask.rest() == b"a1b2"
    assert mask.rest() == b""


@given(
    st.text(alphabet="a1b23-key\n.", max_size=30),
    st.text(alphabet="a1b23-key\n.", max_size=30),
    st.lists(st.integers(0, 60), max_size=6),
)
def test_however_it_is_cut_nothing_is_lost_and_no_credential_stays(
    before: str, after: str, cuts: list[int]
) -> None:
    whole = f"{before}{SECRET}{after}".encode()
    places = [0, *sorted(min(cut, len(whole)) for cut in cuts), len(whole)]
    slices = [whole[a:b] for a, b in pairwise(places)]
    assert through(Mask([SECRET]), *slices) == whole.replace(SECRET.encode(), SHOWN)


def test_an_event_never_waits() -> None:
    event = b'data: {"delta": "a1b2"}\n\n'
    mask = Mask([SECRET])
    assert mask.slice(event) == event


@pytest.mark.parametrize("short", ["", "EMPTY", "x" * (MIN_SECRET - 1)])
def test_a_word_is_no_credential(short: str) -> None:
    mask = Mask([short])
    assert not mask
    assert through(mask, f"it is {short}".encode()) == f"it is {short}".encode()
    assert Mask(["x" * MIN_SECRET])
