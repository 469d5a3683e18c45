"""How many connections fit into what the process may open."""

import resource

import pytest

from handrail.bootstrap.descriptors import OWN, Bounds, make_room

INFINITE = resource.RLIM_INFINITY
NEED = 2 * 100 + 16 + OWN


@pytest.mark.parametrize(
    ("bounds", "connections", "raised"),
    [
        ((NEED, 10_000), 100, []),
        ((INFINITE, INFINITE), 100, []),
        ((50, 10_000), 100, [(NEED, 10_000)]),
        ((50, INFINITE), 100, [(NEED, INFINITE)]),
        ((50, 200), (200 - 16 - OWN) // 2, [(200, 200)]),
        ((256, 256), (256 - 16 - OWN) // 2, []),
        ((20, 20), 1, []),
    ],
)
def test_the_soft_limit_is_raised_first_and_connections_are_capped_by_what_there_is(
    bounds: Bounds, connections: int, raised: list[Bounds]
) -> None:
    put: list[Bounds] = []
    assert make_room(100, runs=16, get=lambda: bounds, put=put.append) == connections
    assert put == raised
