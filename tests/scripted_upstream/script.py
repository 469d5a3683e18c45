"""What a request asks the scripted server to do: directives in its last user text."""

import json
import re
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]


@dataclass
class Script:
    """The directives of one request."""

    words: int = 8
    delay: float = 0.0
    first: float = 0.0
    before: float = 0.0
    linger: float = 0.0
    tag: str = ""
    size: int = 0
    tool: str = ""
    args: str = "{}"
    status: int = 0
    retry_after: str = ""
    times: int = 1_000_000
    stall: int = -1
    drop: int = -1
    eof: int = -1
    malformed: int = -1
    error: int = -1
    twice: int = -1
    early: str = ""
    reasoning: bool = False
    html: bool = False
    queued: bool = False
    usage_limit: bool = False
    fail: bool = False
    incomplete: bool = False


def last_user_text(body: Json) -> str:
    """The text of the last user message, whatever its form."""
    given = body.get("input") or ""
    if isinstance(given, str):
        return given
    for item in reversed(given):
        if item.get("role") == "user":
            content = item.get("content") or ""
            if isinstance(content, str):
                return content
            return " ".join(str(part.get("text", "")) for part in content)
    return ""


def script_of(body: Json) -> Script:
    """The directives in the last user text."""
    script = Script()
    if str(body.get("model", "")).startswith("obliging"):
        _call_what_is_offered(script, body)
    found = re.search(r"\[\[(.*?)\]\]", last_user_text(body), re.DOTALL)
    if found is None:
        return script
    text = found[1]
    arguments = re.search(r"args=(\{.*\})", text)
    if arguments is not None:
        script.args = arguments[1]
        text = text.replace(arguments[0], "")
    for word in text.split():
        name, _, value = word.partition("=")
        kind = type(getattr(script, name))
        setattr(script, name, kind(value) if value else True)
    return script


def _call_what_is_offered(script: Script, body: Json) -> None:
    for tool in body.get("tools") or ():
        if tool.get("type") == "function":
            required = (tool.get("parameters") or {}).get("required", [])
            script.tool = tool["name"]
            script.args = json.dumps(dict.fromkeys(required, "scripted"))
            return
