"""Row 6: what a disk may hold after a power cut, rebuilt from a trace of every write and flush.

Of what was written since the last flush of a file, any part may be there: whole writes are dropped
at random, and one is torn between sectors. What this does not show: a disk that lies about its
flushes, and a file system that loses the names of files.
"""

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from handrail.store.check import Check
from handrail.store.sqlite import SqliteStore
from handrail.store.vault import Vault
from tests.acceptance.processes import ROOT
from tests.contract.runs import Now
from tests.faults.conftest import Disk
from tests.faults.power import HEAD, KEY

SECTOR = 512
CUTS = 100


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One line of the trace: W(rite), T(runcate), S(ync) or A(cknowledgement)."""

    kind: str
    name: str
    offset: int
    length: int
    data: bytes


def entries(trace: bytes) -> Iterator[Entry]:
    place = 0
    while place < len(trace):
        kind, size, offset, length, carried = HEAD.unpack_from(trace, place)
        place += HEAD.size
        name = trace[place : place + size].decode()
        data = trace[place + size : place + size + carried]
        place += size + carried
        yield Entry(
            kind=kind.decode(),
            name=name if kind == b"A" else Path(name).name,
            offset=offset,
            length=length,
            data=data,
        )


@dataclass
class Platter:
    """One file: what is surely on the disk, and what may be."""

    safe: bytearray = field(default_factory=bytearray)
    since: list[Entry] = field(default_factory=list)

    def take(self, entry: Entry) -> None:
        """One more call."""
        if entry.kind != "S":
            self.since.append(entry)
            return
        for done in self.since:
            apply(self.safe, done, done.data)
        self.since.clear()

    def after_a_cut(self, dice: random.Random) -> bytes:
        """What may be found afterwards."""
        content = bytearray(self.safe)
        survive = dice.choice((0.0, 0.5, 0.9, 1.0))
        for entry in self.since:
            if dice.random() < survive:
                torn = dice.random() < 0.2
                end = dice.randrange(0, len(entry.data) + 1, SECTOR) if torn else None
                apply(content, entry, entry.data[:end])
        return bytes(content)


def apply(content: bytearray, entry: Entry, data: bytes) -> None:
    if entry.kind == "T":
        del content[entry.length :]
        content.extend(bytes(entry.length - len(content)))
    elif data:
        content.extend(bytes(max(0, entry.offset - len(content))))
        content[entry.offset : entry.offset + len(data)] = data


@dataclass
class Answered:
    """What the store had answered before the cut."""

    last: dict[str, int] = field(default_factory=dict)
    ended: set[str] = field(default_factory=set)
    deleted: set[str] = field(default_factory=set)

    def take(self, text: str) -> None:
        """One acknowledgement."""
        what, run_id, *number = text.split()
        if what == "deleted":
            self.deleted.add(run_id)
        elif what == "ended":
            self.ended.add(run_id)
        else:
            self.last[run_id] = int(number[0]) if number else 1


async def look(directory: Path, answered: Answered) -> None:
    """Open what the cut has left, and hold it against what had been answered."""
    store = SqliteStore(directory / "handrail.db", vault=Vault(KEY), now=Now())
    store.open()  # checks the integrity of the file
    for run_id, last in answered.last.items():
        run = await store.get(run_id, caller="ann")
        if run is None:
            # Being deleted when the power went is as good as deleted; anything else is lost.
            assert int(run_id[1:]) % 3 == 0, f"{run_id} is lost"
            continue
        assert run_id not in answered.deleted, f"{run_id} is back"
        assert run.last_seq >= last, f"events of {run_id} are lost"
        assert run_id not in answered.ended or run.state == "completed", f"{run_id} is open again"
    await store.close()
    check = Check(directory / "handrail.db", key=KEY)
    assert [str(problem) for problem in check.problems()] == []


@pytest.mark.parametrize("seed", [6])
async def test_row_6_nothing_that_was_answered_is_lost_to_a_power_cut(
    disk: Disk, tmp_path: Path, scratch: Path, seed: int
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    run_workload(work, disk, seed=seed)
    found = list(entries((tmp_path / "trace").read_bytes()))
    dice = random.Random(seed)
    cuts = set(dice.sample(range(first_answer(found), len(found)), CUTS))
    platters, answered = {"handrail.db": Platter(), "handrail.db-wal": Platter()}, Answered()
    for number, entry in enumerate(found):
        if entry.kind == "A":
            answered.take(entry.name)
        elif entry.name in platters:
            platters[entry.name].take(entry)
        if number in cuts:
            after = scratch / f"cut {number}"
            after.mkdir()
            for name, platter in platters.items():
                (after / name).write_bytes(platter.after_a_cut(dice))
            await look(after, answered)
            shutil.rmtree(after)
    assert len(answered.last) == 96
    assert len(answered.deleted) == 32
    assert sum(entry.kind == "S" and entry.name == "handrail.db" for entry in found) > 3


def first_answer(found: list[Entry]) -> int:
    return next(number for number, entry in enumerate(found) if entry.kind == "A")


def run_workload(work: Path, disk: Disk, *, seed: int) -> None:
    environment = {
        **os.environ,
        **disk.environment,
        "FAULTS_TRACE": str(work.parent / "trace"),
    }
    subprocess.run(
        [sys.executable, "-m", "tests.faults.power", str(work), str(seed)],
        cwd=ROOT,
        env=environment,
        check=True,
        timeout=120,
    )
