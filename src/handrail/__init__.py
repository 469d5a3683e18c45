"""Handrail: a gateway for the OpenAI Responses API, and its guardrails as a library.

The names below are public: they change only as semantic versioning allows. Importing the package
imports none of them; each is fetched when it is first asked for.
"""

TYPE_CHECKING = False  # type checkers know the name; importing `typing` for it would take longest
if TYPE_CHECKING:
    from handrail import errors
    from handrail.core.caller_policy import (
        BackgroundPolicy,
        CallerPolicy,
        CrashPolicy,
        Executor,
        Priority,
        StoreFalsePolicy,
        StorePolicy,
        WhenLeft,
    )
    from handrail.core.fast_session import FastSession
    from handrail.core.policy import Mode, Plan, Reason
    from handrail.core.prepare import Change, Prepared
    from handrail.core.profiles import AddReasoning
    from handrail.core.steps import Step
    from handrail.core.switch import Switch
    from handrail.errors import ConfigInvalid, RequestRejected
    from handrail.in_process import prepare
    from handrail.settings.in_process import LibrarySettings

__version__ = "0.1.0"

__all__ = [
    "AddReasoning",
    "BackgroundPolicy",
    "CallerPolicy",
    "Change",
    "ConfigInvalid",
    "CrashPolicy",
    "Executor",
    "FastSession",
    "LibrarySettings",
    "Mode",
    "Plan",
    "Prepared",
    "Priority",
    "Reason",
    "RequestRejected",
    "Step",
    "StoreFalsePolicy",
    "StorePolicy",
    "Switch",
    "WhenLeft",
    "errors",
    "prepare",
]

_POLICY = "handrail.core.policy"
_HOMES = {
    "AddReasoning": "handrail.core.profiles",
    "BackgroundPolicy": _POLICY,
    "CallerPolicy": _POLICY,
    "Change": "handrail.core.prepare",
    "ConfigInvalid": "handrail.errors",
    "CrashPolicy": _POLICY,
    "Executor": _POLICY,
    "FastSession": "handrail.core.fast_session",
    "LibrarySettings": "handrail.settings.in_process",
    "Mode": _POLICY,
    "Plan": _POLICY,
    "Prepared": "handrail.core.prepare",
    "Priority": _POLICY,
    "Reason": _POLICY,
    "RequestRejected": "handrail.errors",
    "Step": "handrail.core.steps",
    "StoreFalsePolicy": _POLICY,
    "StorePolicy": _POLICY,
    "Switch": "handrail.core.switch",
    "WhenLeft": _POLICY,
    "prepare": "handrail.in_process",
}

if not TYPE_CHECKING:  # type checkers see the imports above, and no name that does not exist

    def __getattr__(name):
        """Fetch a public name (PEP 562)."""
        from importlib import import_module  # noqa: PLC0415 - only for who asks for a name

        if name == "errors":
            return import_module("handrail.errors")
        if name not in _HOMES:
            raise AttributeError(f"module 'handrail' has no attribute {name!r}")
        value = getattr(import_module(_HOMES[name]), name)
        globals()[name] = value
        return value

    def __dir__():
        """The public names, fetched or not."""
        return sorted({*globals(), *__all__})
