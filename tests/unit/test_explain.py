"""`handrail explain`: the sentences for people, the object for programs."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from handrail.cli.explain import explain
from handrail.errors import ConfigInvalid

Json = dict[str, Any]
Explain = Callable[..., Result]
CANARY = "sk-canary-0123456789"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Explain:
    """Explains a body from stdin, in a directory and environment of its own."""
    monkeypatch.chdir(tmp_path)
    for name in ("OPENAI_API_KEY", "HANDRAIL_UPSTREAM_API_KEY"):
        monkeypatch.delenv(name, raising=False)

    def running(body: Json | bytes, *arguments: str, toml: str = "", **env: str) -> Result:
        (tmp_path / "handrail.toml").write_text(toml)
        data = body if isinstance(body, bytes) else json.dumps({"model": "m", **body}).encode()
        return CliRunner().invoke(explain, ["-", *arguments], input=data, env=env)

    return running


def test_the_decision_every_change_and_the_body_are_told(run: Explain) -> None:
    done = run({"input": "hi", "store": True, "max_tokens": 5})
    assert done.exit_code == 0
    for words in (
        "ACCEPTED  stateless",
        "store=true was lowered to false: nothing is kept.",
        "handrail-decision: mode=stateless; store=lowered",
        "3 changes between your body and the upstream's",
        "  store  set to false\n    why     upstream calls keep nothing\n"
        "    before  true\n    after   false",
        "  max_tokens  renamed to max_output_tokens\n",
        "    before  5\n    after   (absent)",
        "POST https://api.openai.com/v1/responses\ncontent-type: application/json\n",
        '"max_output_tokens": 5',
    ):
        assert words in done.output


def test_a_body_that_nothing_changes_says_so(run: Explain) -> None:
    assert "No changes between" in run({"store": False, "stream": False}).output
    assert "1 change between" in run({"stream": False}).output


def test_what_a_fast_session_leaves_out_is_told_with_its_cause(run: Explain) -> None:
    talk = [{"role": "user", "content": f"part {n}\nof it"} for n in range(20)]
    tool = {"type": "function", "function": {"name": "run"}}
    body = {"input": talk, "tools": [tool]}
    toml = 'fast_session.strategy = "hybrid"\nfast_session.compact_timeout = "4s"\n'
    done = run(body, toml=f"{toml}fast_session.max_input_items = 8\n")
    for words in (
        "  tools  1 functions made flat\n    why     this API has name and parameters beside",
        "  input  12 of 20 items left out\n    why     fast session (hybrid): the user's last "
        "messages are plain; before that the upstream may take 4 s to put them in short\n",
        "tools: 1 functions made flat, ",
    ):
        assert words in done.output
    plain = run(body)
    assert "fast session" not in plain.output
    assert "part 0" in plain.output
    talk[-1]["content"] = "```code```"
    assert "  input  left whole\n    why     fast session (hybrid)" in run(body, toml=toml).output


REFUSALS: list[tuple[Json, list[str], str, str]] = [
    ({"background": True}, [], "background_not_enabled", "background: true"),
    ({"background": "true"}, [], "invalid_type", 'background: "true"'),
    (
        {"background": True, "providerOptions": {"openai": {"store": False}}},
        ["--background"],
        "background_requires_store",
        'providerOptions: {"openai":{"store":false}}',
    ),
    (
        {"prompt": {"id": "p"}},
        ["--profile", "codex"],
        "unsupported_parameter",
        'prompt: {"id":"p"}',
    ),
    (
        {"input": [{"type": "item_reference", "id": "rs_1"}]},
        [],
        "item_reference_not_found",
        'input: [{"type":"item_reference","id":"rs_1"}]',
    ),
]


@pytest.mark.parametrize(("body", "arguments", "code", "given"), REFUSALS)
def test_a_refusal_names_its_code_its_words_and_what_the_body_says(
    run: Explain, body: Json, arguments: list[str], code: str, given: str
) -> None:
    done = run(body, *arguments)
    assert done.exit_code == 1
    assert done.output.startswith(f"REFUSED  400 {code}\n  ")
    assert f"  your body   {given}\n" in done.output
    assert "profile=" in done.output
    assert done.output.endswith("Nothing would be sent.\n")
    told = json.loads(run(body, *arguments, "--json").output)
    assert told["error"]["code"] == code
    assert set(told) == {"version", "status", "error", "given", "judged_by"}


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff", b'{"model":"m","model":"m"}'])
def test_what_is_no_request_is_refused_too(run: Explain, data: bytes) -> None:
    done = run(data)
    assert (done.exit_code, done.output[:11]) == (1, "REFUSED  40")


def test_a_body_that_the_gateway_would_find_too_large_is_too_large_here(run: Explain) -> None:
    done = run({"input": "x" * 2_000}, toml="[server]\nmax_body_bytes = 1024\n")
    assert (done.exit_code, "413 payload_too_large" in done.output) == (1, True)


def test_the_object_has_everything(run: Explain) -> None:
    done = run({"background": True}, "--background", "--json")
    body = json.loads(done.output)
    described = {"version", "plan", "decision", "steps", "url", "headers", "body"}
    described |= {"model", "judged_by"}
    assert set(body) == described
    assert body["plan"]["mode"] == "background"
    assert body["judged_by"]["background"] == "on (flag --background)"
    step = next(step for step in body["steps"] if step["field"] == "background")
    assert (step["before"], step["after"]) == ("true", None)
    assert body["body"] == {"model": "m", "store": False, "stream": True}


def test_profile_upstream_model_and_caller_are_tried_out(run: Explain) -> None:
    toml = '[callers.ann]\nkey_env = "UNSET"\nstore = "refuse"\n'
    arguments = ["--profile", "compatible", "--upstream", "http://up.example/v1", "--model", "new"]
    body = json.loads(run({"zz": 1}, *arguments, "--caller", "ann", "--json", toml=toml).output)
    assert (body["url"], body["body"]["model"]) == ("http://up.example/v1/responses", "new")
    assert "zz" not in body["body"]
    refused = run({"store": True}, "--caller", "ann", toml=toml)
    assert "callers.ann.store" in refused.output
    assert isinstance(run({}, "--caller", "bob", toml=toml).exception, ConfigInvalid)


def test_what_the_upstream_runs_is_said_to_be_so(run: Explain) -> None:
    toml = '[background]\nenabled = true\nexecutor = "upstream"\n'
    done = run({"background": True}, toml=toml)
    assert "run and kept by the upstream" in done.output
    assert '"background": true' in done.output


def test_a_callers_own_executor_is_the_one_that_it_is_judged_by(run: Explain) -> None:
    toml = """
        [background]
        enabled = true
        [callers.default]
        [callers.ann]
        executor = "upstream"
    """
    told = json.loads(run({"background": True}, "--caller", "ann", "--json", toml=toml).output)
    assert told["judged_by"]["executor"] == "upstream"
    assert told["plan"]["mode"] == "background-upstream"
    assert "executor=gateway" in run({"background": True}, toml=toml).output


def test_what_goes_on_from_a_kept_response_is_shown_without_what_came_before(run: Explain) -> None:
    output = {"type": "function_call_output", "call_id": "c", "output": "o"}
    body = {"previous_response_id": "resp_1", "input": [output]}
    done = run(body)
    assert "What Handrail keeps of the conversation is put before the input" in done.output
    assert "previous_response_id  removed\n    why     what it stands for is put" in done.output
    told = json.loads(run(body, "--json").output)
    assert (told["plan"]["continues"], told["body"]["input"]) == ("resp_1", [output])
    assert "previous_response_id" not in told["body"]


def test_what_the_gateway_keeps_in_the_foreground_is_said_to_be_so(run: Explain) -> None:
    toml = '[callers.default]\nstore = "keep"\nwhen_left = "continue"\n'
    done = run({"store": True, "stream": True}, toml=toml)
    assert "ACCEPTED  kept by Handrail while its caller waits" in done.output
    assert "mode=kept; store=gateway; when-left=continue; steps=store: set to false" in done.output
    told = json.loads(run({"store": True}, "--json", toml=toml).output)
    assert (told["plan"]["mode"], told["plan"]["store"]) == ("kept", True)
    assert (told["body"]["store"], told["body"]["stream"]) == (False, True)


@pytest.mark.parametrize("as_json", [[], ["--json"]])
def test_no_credential_is_shown(run: Explain, as_json: list[str]) -> None:
    tools = [{"type": "mcp", "authorization": "plain-canary", "headers": {"x": "plain-canary"}}]
    done = run({"tools": tools, "input": CANARY}, *as_json, HANDRAIL_UPSTREAM_API_KEY=CANARY)
    assert done.exit_code == 0
    assert "canary" not in done.output


def test_a_body_cannot_command_the_terminal(run: Explain) -> None:
    for body in ({"\x1b[2J": 1, "input": "\x9b2J"}, {"background": True, "\x1b]0;x": 2}):
        output = run(body).output
        assert "\x1b" not in output
        assert "\x9b" not in output
    assert "\x1b" not in run(b'{"model":"m","\\u001b[2J":1,"\\u001b[2J":1}').output


@pytest.mark.parametrize(
    ("model", "profile", "line"),
    [
        (
            "gpt-5-codex-high",
            "codex",
            "gpt-5.3-codex  family gpt-5-codex  efforts low medium high xhigh (high by itself)"
            "  background reasoning",
        ),
        ("o3", "openai", "o3  family o3  background reasoning"),
        ("mine", "openai", "mine  family not known"),
        ("x\x1b", "openai", "x\\x1b: not known, and left as it is"),
    ],
)
def test_what_is_known_about_the_model_is_told(
    run: Explain, model: str, profile: str, line: str
) -> None:
    done = run({"model": model}, "--profile", profile, toml="[models.mine]")
    assert f"  model       {line}\n" in done.output
    told = json.loads(run({"model": model}, "--profile", profile, "--json").output)["model"]
    assert told["asked"] == model
