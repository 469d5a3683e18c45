"""What servers of each kind refuse, and how they say so."""

from aiohttp import web

from tests.scripted_upstream.script import Json

TRANSFORMERS_FIELDS = {
    "include", "input", "instructions", "max_output_tokens", "metadata", "model",
    "parallel_tool_calls", "reasoning", "service_tier", "store", "stream", "stream_options",
    "temperature", "text", "tool_choice", "tools", "top_logprobs", "top_p", "truncation", "user",
}  # fmt: skip
CODEX_REFUSES = ("max_output_tokens", "temperature", "top_p", "metadata", "user", "truncation")


def objection(body: Json, manners: str) -> web.Response | None:
    """What a server of these manners answers to a body that it does not take."""
    model = str(body.get("model", ""))
    if model.startswith("unserved"):
        words = f"The '{model}' model is not supported when using Codex with a ChatGPT account."
        return _refuse(manners, words, "model")
    if manners in ("openai", "codex") and body.get("store") is not False:
        return _refuse(manners, "Store must be set to false", "store")
    if manners in ("openai", "codex") and body.get("background"):
        return _refuse(manners, "Background mode is not available", "background")
    if manners == "openai" and any("id" in item for item in _items(body)):
        return _refuse(manners, "Item not found: items are not persisted", "input")
    includes = "reasoning.encrypted_content" in (body.get("include") or ())
    if includes and str(body.get("model", "")).startswith("plain"):
        return _refuse(manners, "Encrypted content is not supported with this model.", "include")
    if manners == "codex":
        return _codex_objection(body)
    if manners == "transformers" and (extra := set(body) - TRANSFORMERS_FIELDS):
        detail = f"Unexpected fields in the request: {extra}"
        return web.json_response({"detail": detail}, status=422)
    return None


CREATE_ONLY = ("store", "stream", "stream_options", "include", "background", "providerOptions")


def endpoint_objection(body: Json, manners: str) -> web.Response | None:
    """What the endpoints beside create do not take."""
    unknown = [*CREATE_ONLY, *(CODEX_REFUSES if manners == "codex" else ())]
    for name in unknown:
        if name in body:
            return _refuse(manners, f"Unsupported parameter: {name}", name)
    if any("id" in item for item in _items(body)):
        return _refuse(manners, "Item not found: items are not persisted", "input")
    if manners == "codex" and not isinstance(body.get("input"), list):
        return _refuse(manners, "Input must be a list", "input")
    return None


def _codex_objection(body: Json) -> web.Response | None:
    if body.get("stream") is not True:
        return _refuse("codex", "Stream must be set to true", "stream")
    if not isinstance(body.get("input"), list):
        return _refuse("codex", "Input must be a list", "input")
    for name in CODEX_REFUSES:
        if name in body:
            return _refuse("codex", f"Unsupported parameter: {name}", name)
    return None


def _items(body: Json) -> list[Json]:
    given = body.get("input")
    return given if isinstance(given, list) else []


def _refuse(manners: str, message: str, param: str) -> web.Response:
    if manners == "codex":
        return web.json_response({"detail": message}, status=400)
    return refuse(message, param)


def refuse(message: str, param: str | None, status: int = 400) -> web.Response:
    """An error in the API's envelope."""
    error = {"message": message, "type": "invalid_request_error", "param": param, "code": None}
    return web.json_response({"error": error}, status=status)
