"""What the headers of a create ask of its run."""

from dataclasses import replace
from typing import Any

import pytest

from handrail.core.caller_policy import CrashPolicy, Priority
from handrail.core.policy import Mode, Plan, Reason
from handrail.core.request_options import (
    PROJECT,
    RequestOptions,
    read_options,
    read_project,
    with_options,
)
from handrail.errors import RequestRejected


def read(**headers: str) -> RequestOptions:
    """The options in headers, given with _ for -."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return read_options(lambda name: named.get(name, ""))


OWN = Reason(name="own", text="What policy said.")


def plan(mode: Mode = Mode.BACKGROUND, **fields: Any) -> Plan:
    """A plan as policy makes it, with a reason of its own."""
    values = {"stream": False, "store": True, "retention_seconds": 3_600, **fields}
    return Plan(mode=mode, reasons=(OWN,), **values)


def test_no_header_is_no_option() -> None:
    assert read() == RequestOptions()
    assert with_options(plan(), RequestOptions()) == plan()


def test_every_option_is_read_trimmed() -> None:
    assert read(
        idempotency_key=" k ",
        handrail_crash_policy=" retry ",
        handrail_priority="high",
        handrail_retention=" 15m",
        x_stainless_retry_count=" 2 ",
    ) == RequestOptions(
        retry_count=2,
        key="k",
        crash=CrashPolicy.RETRY,
        priority=Priority.HIGH,
        retention_seconds=900,
    )


@pytest.mark.parametrize(
    ("header", "value", "said"),
    [
        ("handrail_crash_policy", "Retry", "safe, retry"),
        ("handrail_crash_policy", "safe, retry", "safe, retry"),
        ("handrail_priority", "urgent", "high, normal, low"),
        ("handrail_priority", "1", "high, normal, low"),
        ("handrail_retention", "900", "90s, 15m or 2h"),
        ("handrail_retention", "0s", "90s, 15m or 2h"),
        ("handrail_retention", "forever", "90s, 15m or 2h"),
        ("idempotency_key", "a b", "visible ASCII"),
    ],
)
def test_what_cannot_be_read_is_a_400_that_names_the_header(
    header: str, value: str, said: str
) -> None:
    with pytest.raises(RequestRejected, match=said) as caught:
        read(**{header: value})
    assert (caught.value.fault.status, caught.value.fault.param) == (400, header.replace("_", "-"))


@pytest.mark.parametrize("own", CrashPolicy)
@pytest.mark.parametrize("asked", [None, *CrashPolicy])
def test_a_request_may_choose_its_crash_policy_and_the_callers_is_the_default(
    own: CrashPolicy, asked: CrashPolicy | None
) -> None:
    decided = with_options(plan(crash=own), RequestOptions(crash=asked))
    assert decided.crash is (asked or own)
    assert ("crash=retry" in decided.header()) is (decided.crash is CrashPolicy.RETRY)


@pytest.mark.parametrize("priority", Priority)
def test_a_priority_is_taken_and_told(priority: Priority) -> None:
    decided = with_options(plan(), RequestOptions(priority=priority))
    assert decided.priority is priority
    assert (f"priority={priority}" in decided.header()) is (priority is not Priority.NORMAL)
    assert decided.reasons[0] is OWN


@pytest.mark.parametrize("asked", [None, *Priority])
@pytest.mark.parametrize("highest", Priority)
def test_a_request_may_name_no_priority_above_the_callers_highest(
    asked: Priority | None, highest: Priority
) -> None:
    options = RequestOptions(priority=asked)
    order = [Priority.LOW, Priority.NORMAL, Priority.HIGH]
    own = plan(priority=Priority.LOW)
    if asked is None or order.index(asked) <= order.index(highest):
        assert with_options(own, options, highest=highest).priority is (asked or Priority.LOW)
        return
    with pytest.raises(RequestRejected) as caught:
        with_options(own, options, highest=highest)
    assert caught.value.fault.message == (
        f"'handrail-priority' can be {highest} at the highest for this caller."
    )
    assert (caught.value.fault.code, caught.value.fault.param) == (
        "invalid_value",
        "handrail-priority",
    )


@pytest.mark.parametrize("seconds", [1, 3_600])
def test_a_request_may_shorten_its_retention(seconds: int) -> None:
    decided = with_options(plan(), RequestOptions(retention_seconds=seconds))
    assert decided.retention_seconds == seconds
    assert decided.header().endswith(f"retention={seconds}s")


def test_a_request_may_not_lengthen_its_retention_and_learns_the_most_that_it_can_have() -> None:
    with pytest.raises(RequestRejected, match="which is 3600s here") as caught:
        with_options(plan(), RequestOptions(retention_seconds=3_601))
    assert (caught.value.fault.code, caught.value.fault.param) == (
        "invalid_value",
        "handrail-retention",
    )


EVERY = RequestOptions(
    key="k", crash=CrashPolicy.RETRY, priority=Priority.HIGH, retention_seconds=10**9
)


@pytest.mark.parametrize("mode", sorted(set(Mode) - {Mode.BACKGROUND, Mode.KEPT}))
def test_what_the_gateway_does_not_run_has_no_options_and_that_is_told(mode: Mode) -> None:
    before = plan(mode, retention_seconds=0)
    decided = with_options(before, EVERY)
    assert (decided.crash, decided.priority) == (before.crash, before.priority)
    assert decided.retention_seconds == 0
    assert [reason.name for reason in decided.reasons] == [
        "own",
        "idempotency-key=ignored",
        "handrail-crash-policy=ignored",
        "handrail-priority=ignored",
        "handrail-retention=ignored",
    ]
    assert with_options(before, RequestOptions()) == before


def test_what_is_kept_of_the_foreground_may_be_kept_for_less_and_has_no_other_option() -> None:
    before = plan(Mode.KEPT, retention_seconds=60)
    decided = with_options(before, replace(EVERY, retention_seconds=59))
    assert decided.retention_seconds == 59
    assert [reason.name for reason in decided.reasons][-4:] == [
        "retention=59s",
        "idempotency-key=ignored",
        "handrail-crash-policy=ignored",
        "handrail-priority=ignored",
    ]
    with pytest.raises(RequestRejected):
        with_options(before, RequestOptions(retention_seconds=61))
    assert with_options(before, RequestOptions()) == before


def test_every_reason_is_a_sentence() -> None:
    shorter = RequestOptions(crash=CrashPolicy.RETRY, priority=Priority.LOW, retention_seconds=1)
    decided = (with_options(plan(), shorter), with_options(plan(Mode.STATELESS), EVERY))
    assert all(reason.text.endswith(".") for each in decided for reason in each.reasons)


def test_a_project_is_a_plain_label_or_none() -> None:
    def of(text: str) -> str | None:
        return read_project({PROJECT: text}.__getitem__)

    assert of("") is None
    assert of(" site-1.0_x ") == "site-1.0_x"
    assert of("x" * 64) == "x" * 64
    for label in ("x" * 65, "two words", "a/b", "ü", "a\nb", "x\n."):
        with pytest.raises(RequestRejected) as caught:
            of(label)
        assert caught.value.fault.param == PROJECT


@pytest.mark.parametrize("mode", Mode)
def test_a_request_may_demand_an_account_whatever_becomes_of_it(mode: Mode) -> None:
    found = with_options(plan(mode), read(handrail_account=" work-1 "))
    assert found.account == "work-1"
    assert "account=demanded" in found.header()
    assert with_options(plan(mode), read()).account is None


@pytest.mark.parametrize("name", ["a b", "a/b", "ä", "x" * 65, "a,b"])
def test_what_can_be_no_account_is_a_400_that_names_the_header(name: str) -> None:
    with pytest.raises(RequestRejected) as caught:
        read(handrail_account=name)
    assert caught.value.fault.param == "handrail-account"
