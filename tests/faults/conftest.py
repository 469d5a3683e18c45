"""A disk that fails when a test says so, for real processes: a library loaded before the C one."""

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.acceptance import processes
from tests.acceptance.processes import Child

SOURCE = Path(__file__).with_name("preload.c")
EIO = 5
ENOSPC = 28
EROFS = 30


@dataclass(frozen=True, kw_only=True)
class Disk:
    """The disk of one process: its database files, as long as `fail` says nothing else."""

    preload: Path
    directory: Path

    @property
    def environment(self) -> dict[str, str]:
        """What the process under test is started with."""
        return {
            "LD_PRELOAD": str(self.preload),
            "FAULTS_MATCH": "handrail.db",
            "FAULTS_ARM": str(self.directory / "arm"),
        }

    def fail(self, call: str, number: int, *, skip: int = 0) -> None:
        """From now on `call` (fsync or write) on the database fails with this errno."""
        new = self.directory / "arm.new"
        new.write_text(f"{call} {number} {skip}")
        new.rename(self.directory / "arm")

    def heal(self) -> None:
        """The disk is well again."""
        (self.directory / "arm").unlink(missing_ok=True)


@pytest.fixture(scope="session")
def preload(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled library; without a C compiler the tests that need it are skipped."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("injecting disk errors into a real process needs a C compiler")
    target = tmp_path_factory.mktemp("preload") / "preload.so"
    flags = ["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror"]
    subprocess.run(
        [compiler, *flags, "-o", str(target), str(SOURCE), "-ldl", "-lpthread"], check=True
    )
    return target


@pytest.fixture
def disk(preload: Path, tmp_path: Path) -> Disk:
    return Disk(preload=preload, directory=tmp_path)


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A directory in memory where there is one: for many stores whose flushes do not matter."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as directory:
        yield Path(directory)


@pytest.fixture
def upstream(tmp_path: Path) -> Iterator[Child]:
    with processes.scripted_upstream(tmp_path) as child:
        yield child
