"""Row 12: a store with flipped bits or a piece missing: refused or an error, never wrong bytes."""

import os
import random
import shutil
import subprocess
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from handrail.core.lifecycle import State
from handrail.errors import ConfigInvalid, StoreFailed
from handrail.store.base import Run, Segment
from handrail.store.sqlite import SqliteStore
from handrail.store.vault import Vault
from tests.acceptance import processes
from tests.acceptance.processes import UPSTREAM_KEY, Child
from tests.contract.runs import Now, limits
from tests.faults.api import Api
from tests.unit.test_journal import new_run, opened
from tests.unit.test_upkeep import Place, fill

UNDER_WAY = (State.QUEUED, State.IN_PROGRESS)
RUNS = tuple(f"r{number}" for number in range(8))


@dataclass
class Truth:
    """What a store said of each run, at every moment that it was asked before the damage."""

    runs: dict[str, list[Run]] = field(default_factory=dict)
    frames: dict[str, tuple[bytes, ...]] = field(default_factory=dict)

    async def note(self, store: SqliteStore) -> None:
        """Take down what it says now."""
        for run_id in RUNS:
            run = await store.get(run_id, caller="ann")
            part = await store.read(run_id, after=-1, caller="ann")
            if run is not None and part is not None:
                self.runs.setdefault(run_id, []).append(run)
                self.frames[run_id] = part.frames


async def original(directory: Path) -> Truth:
    """A store of eight runs in all states, its later half still in the log."""
    place, truth = Place(directory), Truth()
    store = place.store()
    await fill(store, 8)
    await truth.note(store)
    run = truth.runs["r0"][0]
    for first in range(3, 30, 3):
        frames = tuple(opened(number) for number in range(first, first + 3))
        await store.append("r0", run.fence, Segment(first=first, frames=frames))
        await truth.note(store)
    again = await store.claim(owner="me", limits=limits())
    assert again is not None
    await truth.note(store)
    for name in ("handrail.db", "handrail.db-wal"):
        shutil.copy(directory / name, directory / f"{name}.kept")
    await store.close()
    return truth


def damage(path: Path, dice: random.Random) -> None:
    """One flipped bit, a run of noise, or an end that is missing."""
    data = bytearray(path.read_bytes())
    kind = dice.randrange(10)
    place = dice.randrange(len(data))
    if kind == 0:
        del data[place:]
    elif kind == 1:
        data[place : place + 64] = dice.randbytes(len(data[place : place + 64]))
    else:
        data[place] ^= 1 << dice.randrange(8)
    path.write_bytes(data)


async def outcome(place: Place, truth: Truth, *, log: bool) -> Counter[str]:
    """What became of one damaged store; raises AssertionError for a wrong answer."""
    found: Counter[str] = Counter()
    store = SqliteStore(place.database, vault=Vault(place.key()), now=Now())
    refusal = refused(store)
    if refusal is not None:
        assert "\n" not in refusal
        assert str(place.database) in refusal
        return Counter({"start refused": 1, "way out named": "handrail db check" in refusal})
    try:
        for run_id in RUNS:
            found[await asked(store, run_id, truth=truth, log=log)] += 1
    finally:
        await store.close()
    return found


def refused(store: SqliteStore) -> str | None:
    """Why it does not open; None when it does."""
    try:
        store.open()
    except ConfigInvalid as refusal:
        return str(refusal)
    return None


async def asked(store: SqliteStore, run_id: str, *, truth: Truth, log: bool) -> str:
    """How one run is answered for: right, refused, or not there."""
    try:
        run = await store.get(run_id, caller="ann")
        part = await store.read(run_id, after=-1, caller="ann")
    except StoreFailed:
        return "read refused"
    if run is None or part is None:
        return "not there"
    # A log is as good as its beginning: a run may be as it was at an earlier moment.
    told = [(known.state, known.response) for known in truth.runs[run_id]]
    told = (
        [*told, *((state, new_run(run_id).response) for state in UNDER_WAY)] if log else told[-1:]
    )
    assert (run.state, run.response) in told
    assert run.request == truth.runs[run_id][0].request
    assert part.frames == truth.frames[run_id][: len(part.frames)]
    assert part.frames == truth.frames[run_id] or log
    assert part.last_seq == run.last_seq == len(part.frames) - 1
    return "right"


@pytest.mark.parametrize(("damaged", "trials"), [("handrail.db", 400), ("handrail.db-wal", 100)])
async def test_row_12_500_random_damages_give_no_wrong_answer_and_no_traceback(
    scratch: Path, damaged: str, trials: int
) -> None:
    source = scratch / "source"
    source.mkdir()
    truth = await original(source)
    log = damaged.endswith("-wal")
    total: Counter[str] = Counter()
    dice = random.Random(12)
    for _ in range(trials):
        directory = scratch / "trial"
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir()
        shutil.copy(source / "store.key", directory)
        if log:
            for name in ("handrail.db", "handrail.db-wal"):
                shutil.copy(source / f"{name}.kept", directory / name)
        else:
            shutil.copy(source / "handrail.db", directory)
        damage(directory / damaged, dice)
        total += await outcome(Place(directory), truth, log=log)
    assert total["right"] > 500
    if log:
        assert set(total) <= {"right", "read refused", "not there"}
    else:
        assert total["start refused"] > 10
        assert total["read refused"] > 10
        assert total["not there"] == 0
        # The others say that another version or program wrote the file: that is a number in it.
        assert total["way out named"] >= 0.9 * total["start refused"]
    assert State.COMPLETED in {run.state for runs in truth.runs.values() for run in runs}


def test_row_12_a_store_that_was_cut_short_stops_the_start_with_one_line(
    upstream: Child, tmp_path: Path
) -> None:
    with processes.gateway(tmp_path, upstream=f"{upstream.url}/openai/v1") as gateway:
        api = Api(gateway)
        for number in range(5):
            api.ended(api.accepted(f"[[tag=r{number}]]"))
        gateway.stop()
    database = tmp_path / "data" / "handrail.db"
    database.write_bytes(database.read_bytes()[:-20_000])
    command = [*processes.HANDRAIL, "serve", "--data-dir", str(tmp_path / "data"), "--port", "0"]
    done = subprocess.run(
        command,
        env={"PATH": os.environ["PATH"], "OPENAI_API_KEY": UPSTREAM_KEY},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "`handrail db check` says what is wrong; to go on, put a backup back" in done.stderr
