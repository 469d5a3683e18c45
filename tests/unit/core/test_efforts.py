"""Efforts: what a word means, and what stands in for one that a model does not take."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handrail.core.efforts import LADDERS, ON_THE_WIRE, Effort, coerced, known

EFFORTS = st.sampled_from(Effort)

# What a model takes -> for each effort, from none to ultra, what it gets.
GRID = {
    "low medium high xhigh": "low low low medium high xhigh xhigh xhigh",
    "none low medium high xhigh": "none low low medium high xhigh xhigh xhigh",
    "medium high xhigh": "medium medium medium medium high xhigh xhigh xhigh",
    "medium": "medium medium medium medium medium medium medium medium",
    "none low medium high": "none low low medium high high high high",
    "low medium high xhigh max ultra": "low low low medium high xhigh max ultra",
    "low medium high xhigh max": "low low low medium high xhigh max max",
    "minimal high": "minimal minimal minimal high high high high high",
    "none high": "none none none high high high high high",
    "none xhigh": "none none none none xhigh xhigh xhigh xhigh",
    "high xhigh": "high high high high high xhigh xhigh xhigh",
    "minimal none": "none minimal minimal minimal minimal minimal minimal minimal",
    "low minimal none": "none minimal low low low low low low",
    "xhigh": "xhigh xhigh xhigh xhigh xhigh xhigh xhigh xhigh",
    "none": "none none none none none none none none",
}


@pytest.mark.parametrize(("accepted", "wanted"), GRID.items())
def test_an_effort_that_is_not_taken_goes_down_its_ladder(accepted: str, wanted: str) -> None:
    takes = [Effort(word) for word in accepted.split()]
    assert [coerced(effort, takes) for effort in Effort] == wanted.split()


def test_an_effort_without_a_stand_in_stays_itself() -> None:
    assert coerced(Effort.LOW, ()) is Effort.LOW
    assert coerced(Effort.LOW, {Effort.MAX}) is Effort.LOW


@given(EFFORTS, st.frozensets(EFFORTS))
def test_what_comes_of_an_effort_is_taken_or_the_effort_itself(
    effort: Effort, accepted: frozenset[Effort]
) -> None:
    found = coerced(effort, accepted)
    assert found in accepted or found is effort
    assert coerced(found, accepted) is found
    assert effort not in accepted or found is effort


def test_every_effort_has_a_ladder_without_itself() -> None:
    assert list(LADDERS) == list(Effort)
    assert all(effort not in ladder for effort, ladder in LADDERS.items())
    assert ON_THE_WIRE == {Effort.ULTRA: Effort.MAX}


@pytest.mark.parametrize(
    ("word", "effort"),
    [("high", "high"), (" HIGH\n", "high"), ("Ultra", "ultra"), ("", None), ("very", None)],
)
def test_a_word_means_an_effort_in_any_case_or_none(word: str, effort: str | None) -> None:
    assert known(word) == effort
