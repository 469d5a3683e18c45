"""Ids from random bytes that are fetched many at once."""

import os
from concurrent.futures import ThreadPoolExecutor

from handrail.bootstrap.ids import RandomHex, new_request_id, new_response_id


def test_ids_have_their_forms_and_no_two_are_the_same() -> None:
    with ThreadPoolExecutor(4) as threads:
        ids = list(threads.map(lambda _: new_response_id(), range(5_000)))
    assert len(set(ids)) == 5_000
    assert {len(each) for each in ids} == {len("resp_") + 48}
    assert len(new_request_id()) == len("req_") + 32


def test_digits_are_those_that_were_fetched_each_once() -> None:
    random = RandomHex()
    found = [random.digits(24) for _ in range(1_000)]
    assert len({each[:16] for each in found}) == 1_000
    assert all(len(bytes.fromhex(each)) == 24 for each in found)


def test_a_forked_process_gives_out_others() -> None:
    random = RandomHex()
    random.digits(4)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write, random.digits(16).encode())
        os._exit(0)
    os.waitpid(child, 0)
    theirs = os.read(read, 100).decode()
    assert len(theirs) == 32
    assert theirs != random.digits(16)
