"""Rebuilds what a disk may hold after a power cut, from a trace of every write and flush.

    python -m tests.faults.cuts TRACE SCRATCH SEED CUTS

Of what was written since the last flush of a file, any part may be there: whole writes are dropped
at random, and some are torn between sectors. Prints one JSON object. A program of its own, because
it moves much memory about.
"""

import asyncio
import json
import random
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from handrail.store.check import Check
from handrail.store.sqlite import SqliteStore
from handrail.store.vault import Vault
from tests.contract.runs import Now
from tests.faults.power import HEAD, KEY

SECTOR = 512


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


async def look(directory: Path, answered: Answered) -> list[str]:
    """Open what the cut has left; what of it is not as it had been answered."""
    store = SqliteStore(directory / "handrail.db", vault=Vault(KEY), now=Now())
    store.open()  # checks the integrity of the file
    wrong = []
    for run_id, last in answered.last.items():
        run = await store.get(run_id, caller="ann")
        if run is None:
            # Being deleted when the power went is as good as deleted; anything else is lost.
            wrong += [] if int(run_id[1:]) % 3 == 0 else [f"{run_id} is lost"]
            continue
        if run_id in answered.deleted:
            wrong.append(f"{run_id} is back")
        if run.last_seq < last:
            wrong.append(f"events of {run_id} are lost")
        if run_id in answered.ended and run.state != "completed":
            wrong.append(f"{run_id} is open again")
    await store.close()
    check = Check(directory / "handrail.db", key=KEY)
    return wrong + [str(problem) for problem in check.problems()]


async def replay(trace: bytes, scratch: Path, *, seed: int, cuts: int) -> dict[str, Any]:
    """Cut the power at random points; what was answered in all, and what was wrong."""
    found = list(entries(trace))
    dice = random.Random(seed)
    first = next(number for number, entry in enumerate(found) if entry.kind == "A")
    chosen = set(dice.sample(range(first, len(found)), cuts))
    platters, answered = {"handrail.db": Platter(), "handrail.db-wal": Platter()}, Answered()
    wrong: list[str] = []
    for number, entry in enumerate(found):
        if entry.kind == "A":
            answered.take(entry.name)
        elif entry.name in platters:
            platters[entry.name].take(entry)
        if number in chosen:
            after = scratch / f"cut {number}"
            after.mkdir()
            for name, platter in platters.items():
                (after / name).write_bytes(platter.after_a_cut(dice))
            wrong += [f"cut {number}: {what}" for what in await look(after, answered)]
            shutil.rmtree(after)
    return {
        "cuts": len(chosen),
        "accepted": len(answered.last),
        "deleted": len(answered.deleted),
        "flushes of the database": sum(e.kind == "S" and e.name == "handrail.db" for e in found),
        "wrong": wrong,
    }


def main(trace: str, scratch: str, *numbers: str) -> None:
    """The command."""
    seed, cuts = map(int, numbers)
    data = Path(trace).read_bytes()
    print(json.dumps(asyncio.run(replay(data, Path(scratch), seed=seed, cuts=cuts))))


if __name__ == "__main__":
    main(*sys.argv[1:])
