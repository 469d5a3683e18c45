"""A logged traceback says what broke and where, and nothing of what was being worked on."""

import pytest

from handrail.core.redact import MASK
from handrail.core.tracebacks import told

PROMPT = "tell me about the canary"


def caught(error: BaseException, *, of: BaseException | None = None) -> BaseException:
    try:
        if of is not None:
            raise error from of
        raise error
    except BaseException as found:
        return found


@pytest.mark.parametrize(
    "error",
    [
        ValueError(f"invalid literal: '{PROMPT}'"),
        KeyError(PROMPT),
        RuntimeError(PROMPT),
        UnicodeDecodeError("utf-8", PROMPT.encode(), 0, 1, PROMPT),
        OSError(PROMPT),
        OSError(5, "Input/output error", PROMPT),
    ],
)
def test_what_an_exception_quotes_is_not_told(error: BaseException) -> None:
    lines = told(caught(error)).splitlines()
    assert PROMPT not in "".join(lines)
    assert lines[0].startswith(f'  File "{__file__}", line ')
    assert lines[0].endswith(", in caught")
    assert lines[-1].partition(":")[0] == f"builtins.{type(error).__name__}"


def test_words_about_code_and_machine_are_told() -> None:
    assert told(TypeError("'<' not supported")) == "builtins.TypeError: '<' not supported"
    assert told(OSError(28, "No space left on device")).endswith(": No space left on device")
    assert told(AttributeError("no sk-0123456789abc")).endswith(f"AttributeError: no {MASK}")


def test_causes_come_first() -> None:
    cause = caught(ValueError("a"))
    text = told(caught(TypeError("b"), of=cause))
    assert text.index("ValueError") < text.index("\nwhich led to\n") < text.index("TypeError: b")

    def in_passing() -> None:
        try:
            raise ValueError("a")
        except ValueError:
            raise TypeError("b")  # noqa: B904

    with pytest.raises(TypeError) as seen:
        in_passing()
    assert "\nduring which came\n" in told(seen.value)
    seen.value.__suppress_context__ = True
    assert "ValueError" not in told(seen.value)


def test_a_group_and_a_circle_come_to_an_end() -> None:
    one, other = TypeError("one"), TypeError("other")
    group = ExceptionGroup(PROMPT, [one, other])
    one.__context__ = group
    text = told(group)
    assert text.splitlines()[0] == "builtins.ExceptionGroup"
    assert (text.count("TypeError: one"), text.count("TypeError: other")) == (1, 1)
    assert PROMPT not in text
    one.__cause__ = other
    other.__cause__ = one
    assert told(one).count("TypeError: one") == 1
    assert told(ExceptionGroup("", [one, one])).count("TypeError: one") == 1
