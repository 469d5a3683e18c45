"""Files that must be whole and private."""

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from handrail.errors import ConfigInvalid
from handrail.store.files import private_directory, read_private, replace_file
from handrail.store.vault import load_store_key


def failing(times: int, number: int) -> Callable[[Path, Path], None]:
    """A rename that fails that many times, as a virus scanner makes it fail."""
    left = [times]

    def move(source: Path, target: Path) -> None:
        if left[0]:
            left[0] -= 1
            raise OSError(number, os.strerror(number))
        source.replace(target)

    return move


@pytest.mark.parametrize("number", [errno.EBUSY, errno.EPERM, errno.EACCES])
def test_a_busy_target_is_tried_again_for_a_while(tmp_path: Path, number: int) -> None:
    path = tmp_path / "key"
    path.write_bytes(b"old")
    pauses: list[float] = []
    replace_file(path, b"new", move=failing(5, number), pause=pauses.append)
    assert path.read_bytes() == b"new"
    assert pauses == [0.01, 0.02, 0.04, 0.08, 0.16]


@pytest.mark.parametrize("number", [errno.EBUSY, errno.ENOSPC])
def test_when_it_stays_busy_the_old_file_is_untouched_and_nothing_is_left(
    tmp_path: Path, number: int
) -> None:
    path = tmp_path / "key"
    path.write_bytes(b"old")
    pauses: list[float] = []
    with pytest.raises(OSError, match=os.strerror(number)):
        replace_file(path, b"new", move=failing(100, number), pause=pauses.append)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["key"]
    assert sum(pauses) < 2.6


def test_a_new_file_is_readable_by_its_owner_alone_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        replace_file(tmp_path / "key", b"x")
        private_directory(tmp_path / "a" / "b")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o700


def test_a_link_in_its_place_is_replaced_and_its_target_left_alone(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    path = tmp_path / "key"
    path.symlink_to(victim)
    replace_file(path, b"new")
    assert (victim.read_bytes(), path.read_bytes()) == (b"precious", b"new")


def test_a_missing_file_is_none_and_a_doubtful_one_is_refused(tmp_path: Path) -> None:
    assert read_private(tmp_path / "none") is None
    target = tmp_path / "open"
    target.write_bytes(b"x")
    target.chmod(0o644)
    with pytest.raises(ConfigInvalid, match="others can read it"):
        read_private(target)
    (tmp_path / "link").symlink_to(target)
    with pytest.raises(ConfigInvalid, match="cannot be read"):
        read_private(tmp_path / "link")
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(ConfigInvalid, match="not a regular file"):
        read_private(tmp_path / "pipe")


def test_a_directory_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigInvalid, match="cannot be made"):
        private_directory(tmp_path / "file" / "below")


def test_a_store_key_is_made_once_and_must_be_whole(tmp_path: Path) -> None:
    path, database = tmp_path / "store.key", tmp_path / "handrail.db"
    key = load_store_key(path, database=database)
    database.write_bytes(b"")
    assert load_store_key(path, database=database) == key
    path.write_bytes(key[:-1])
    with pytest.raises(ConfigInvalid, match="not a store key"):
        load_store_key(path, database=database)
    path.unlink()
    with pytest.raises(ConfigInvalid, match="missing"):
        load_store_key(path, database=database)
