"""The how-to page for several accounts, as a new user does it: its own commands, in a shell."""

import asyncio
import re
import shutil
import socket
from pathlib import Path

import pytest

from tests.acceptance.processes import HANDRAIL, ROOT, scripted_upstream

PAGE = ROOT / "docs" / "howto" / "use-several-accounts.md"
UP = "until curl -sf http://127.0.0.1:8787/readyz > /dev/null; do sleep 0.1; done\n"


def commands() -> str:
    """What the page has its reader type, from nothing to the cost, as one script."""
    part = PAGE.read_text().partition("## See which one serves")[2].partition("\n`handrail")[0]
    blocks = re.findall(r"```console\n(.*?)```", part, re.DOTALL)
    typed = re.findall(r"^\$ ((?:.*\\\n)*.*)$", "\n".join(blocks), re.MULTILINE)
    assert len(typed) >= 8
    return "\n".join(typed)


@pytest.mark.skipif(shutil.which("curl") is None, reason="the page's requests are made with curl")
async def test_two_accounts_their_choice_and_their_cost_from_the_page_alone(
    tmp_path: Path,
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    script = commands().replace("sk-…", "sk-canary-0123456789")
    script = script.replace("handrail serve &\n", f"handrail serve > serve.log & PID=$!\n{UP}")
    script = f"set -e\ntrap 'kill $PID; wait $PID' EXIT\n{script}\n".replace("8787", port)
    with scripted_upstream(tmp_path) as upstream:
        process = await asyncio.create_subprocess_exec(
            *("bash", "-c", script),
            cwd=tmp_path,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={
                "PATH": f"{Path(HANDRAIL[0]).parent}:/usr/local/bin:/usr/bin:/bin",
                "HOME": str(tmp_path),
                "HANDRAIL_PORT": port,
                "HANDRAIL_UPSTREAM_URL": f"{upstream.url}/openai/v1",
            },
        )
        out, err = (text.decode() for text in await process.communicate())
    assert process.returncode == 0, (out, err)
    assert "home: ok\nwork: ok\n" in out
    assert f"gateway  running  at http://127.0.0.1:{port}/v1  store ok  settings current\n" in out
    assert "home: hybrid: most room of 2\n  not work: less room, or not its turn\n" in out
    assert out.count('"status":"completed"') >= 4
    rows = [line.split() for line in out.splitlines() if line.startswith(("home ", "work "))]
    assert [row[:3] for row in rows if row[1].isdigit()] == [["home", "2", "0"], ["work", "2", "0"]]
    assert "canary" not in out + err
