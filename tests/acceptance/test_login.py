"""`handrail accounts login` as a process of its own, against the mock issuer as another one."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.processes import HANDRAIL, ROOT, Child

CANARY = "canary"


class NoRedirect(urllib.request.HTTPRedirectHandler):
    """A browser that cannot reach where it is sent."""

    def redirect_request(self, *_: Any) -> None:
        return None


def ask(url: str, body: object = None, *, follow: bool = True) -> tuple[int, str, str]:
    """Status, Location and text of a page, as a browser without proxies gets it."""
    handlers = [urllib.request.ProxyHandler({}), *([] if follow else [NoRedirect()])]
    opener = urllib.request.build_opener(*handlers)
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json"})
    try:
        with opener.open(request, timeout=20) as reply:
            return reply.status, "", reply.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, str(error.headers["location"]), error.read().decode()


class Issuer:
    """The mock issuer's process."""

    def __init__(self, folder: Path) -> None:
        self.json_log = folder / "issuer.jsonl"
        command = [sys.executable, "-m", "tests.issuer", "--json-log", str(self.json_log)]
        self.child = Child(
            command, ready=r"mock issuer on (\S+)", environment={}, log=folder / "issuer.log"
        )
        self.url = self.child.url

    def counts(self) -> dict[str, int]:
        """What was counted."""
        counts: dict[str, int] = json.loads(ask(f"{self.url}/counts")[2])
        return counts


@pytest.fixture
def issuer(tmp_path: Path) -> Iterator[Issuer]:
    running = Issuer(tmp_path)
    yield running
    running.child.kill()


def _listens() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Login:
    """The command's process, and all that it has said."""

    def __init__(self, folder: Path, issuer: Issuer, *flags: str) -> None:
        (folder / "handrail.toml").write_text(f'[oauth]\nissuer = "{issuer.url}"\n')
        self.data = folder / "data"
        self.config = ["--config", str(folder / "handrail.toml"), "--data-dir", str(self.data)]
        self.environment = {"PATH": os.environ["PATH"], "HOME": str(folder)}
        self.process = subprocess.Popen(
            [*HANDRAIL, "accounts", "login", *self.config, *flags],
            cwd=ROOT,
            # Tests that run in the background of a shell are deaf to it, and so would this be.
            preexec_fn=_listens,  # noqa: PLW1509 - no thread of ours runs here
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.said = ""

    def until(self, pattern: str) -> str:
        """Read what it says until something is in it."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said += line
            found = re.search(pattern, line)
            if found is not None:
                return found[0]
        raise AssertionError(f"it ended: {self.said}")

    def end(self, answer: str = "") -> int:
        """Give it a line, and read the rest."""
        rest, _ = self.process.communicate(answer, timeout=30)
        self.said += rest
        assert CANARY not in self.said
        return self.process.returncode

    def kept(self) -> list[dict[str, Any]]:
        """The accounts that are kept, as another command lists them."""
        listed = subprocess.run(
            [*HANDRAIL, "accounts", "list", "--json", *self.config],
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            check=True,
        )
        assert CANARY not in listed.stdout + listed.stderr
        accounts: list[dict[str, Any]] = json.loads(listed.stdout)["accounts"]
        return accounts


def check_kept(login: Login, issuer: Issuer) -> None:
    (account,) = login.kept()
    assert (account["kind"], account["plan"]) == ("oauth", "plus")
    assert "The account is called 'account-1'" in login.said
    for file in login.data.rglob("*"):
        assert file.is_dir() or CANARY.encode() not in file.read_bytes()
    assert issuer.counts() == {"requests": 1, "codes": 1}
    log = [json.loads(line) for line in issuer.json_log.read_text().splitlines()]
    assert {"asked", "handled", "answered"} <= {line["event"] for line in log}
    assert CANARY not in issuer.json_log.read_text()


def test_the_command_signs_in_with_a_browser(tmp_path: Path, issuer: Issuer) -> None:
    login = Login(tmp_path, issuer)
    status, _, text = ask(login.until(r"http\S+/oauth/authorize\S+"))
    assert (status, CANARY in text) == (200, False)
    assert login.end() == 0
    check_kept(login, issuer)


def test_the_command_signs_in_by_pasting(tmp_path: Path, issuer: Issuer) -> None:
    login = Login(tmp_path, issuer, "--paste")
    status, location, _ = ask(login.until(r"http\S+/oauth/authorize\S+"), follow=False)
    assert (status, location.startswith("http://127.0.0.1:1455/")) == (302, True)
    assert login.end(f"{location}\n") == 0
    check_kept(login, issuer)


def test_the_command_signs_in_by_a_device_code(tmp_path: Path, issuer: Issuer) -> None:
    ask(f"{issuer.url}/manners", {"pending": 1})
    login = Login(tmp_path, issuer, "--device-code")
    assert login.end() == 0
    assert re.search(r"^Enter  [0-9A-F]{4}-[0-9A-F]{4}$", login.said, re.MULTILINE)
    check_kept(login, issuer)


@pytest.mark.parametrize(
    ("flags", "manners", "answer", "words"),
    [
        (["--paste"], {}, "code-canary\n" * 3, "neither a code nor an error"),
        (["--paste"], {}, "", "Nothing was given."),
        (["--device-code"], {"deny": True}, "", "was declined"),
        (["--device-code"], {"lose": 1}, "", "closed the connection before it answered"),
        (["--device-code"], {"garbage": 1}, "", "cannot be used: it is no JSON"),
    ],
)
def test_a_sign_in_that_fails_is_one_line_and_status_1(
    tmp_path: Path, issuer: Issuer, flags: list[str], manners: object, answer: str, words: str
) -> None:
    ask(f"{issuer.url}/manners", manners)
    login = Login(tmp_path, issuer, *flags)
    assert login.end(answer) == 1
    last = login.said.splitlines()[-1]
    assert last.startswith("Error: ")
    assert words in last
    assert "Traceback" not in login.said
    assert login.kept() == []


def test_two_ways_at_once_are_a_wrong_flag(tmp_path: Path, issuer: Issuer) -> None:
    login = Login(tmp_path, issuer, "--paste", "--device-code")
    assert login.end() == 2
    assert "not both" in login.said


def test_an_interrupt_ends_it_without_a_traceback(tmp_path: Path, issuer: Issuer) -> None:
    ask(f"{issuer.url}/manners", {"pending": 1_000_000})
    login = Login(tmp_path, issuer, "--device-code")
    login.until("Give the code to nobody")
    login.process.send_signal(signal.SIGINT)
    assert login.end() == 130
    assert "Traceback" not in login.said


def test_the_issuers_controls_end_a_login_and_tell_what_they_counted(
    tmp_path: Path, issuer: Issuer
) -> None:
    _, _, text = ask(f"{issuer.url}/grants", {"account_id": "acct-canary-9"})
    refresh = {
        "client_id": "app_EMoamEEZ73f0CkXaXp7hrann",
        "grant_type": "refresh_token",
        "refresh_token": json.loads(text)["refresh_token"],
    }
    status, _, text = ask(f"{issuer.url}/oauth/token", refresh)
    assert status == 200
    ask(f"{issuer.url}/end", {"account_id": "acct-canary-9"})
    refresh["refresh_token"] = json.loads(text)["refresh_token"]
    status, _, text = ask(f"{issuer.url}/oauth/token", refresh)
    assert (status, "refresh_token_invalidated" in text) == (401, True)
    assert issuer.counts() == {"requests": 2, "exchanges": 1, "refused": 1}
    families = {json.loads(line)["family"] for line in issuer.json_log.read_text().splitlines()}
    assert families == {0}
