"""The table of points knows the whole store."""

from inspect import iscoroutinefunction

from handrail.store.base import Store
from handrail.store.sqlite import SqliteStore
from tests.crash.faults import schedule
from tests.crash.points import POINTS, STORE
from tests.crash.report import key


def test_every_method_of_the_store_has_its_points() -> None:
    named = {name for name in vars(Store) if not name.startswith("_")}
    methods = {name for name in named if iscoroutinefunction(getattr(Store, name))}
    assert set(STORE) == methods
    assert methods <= set(vars(SqliteStore))


def test_the_schedule_comes_to_every_point_and_to_random_moments() -> None:
    faults = [schedule(cycle) for cycle in range(300)]
    planned = {key(point) for fault in faults for point in (fault.point, fault.start) if point}
    assert planned == {key(point) for point in POINTS}
    assert {point.name.partition(".")[0] for point in POINTS} - {"upstream"} == {
        name for name, method in STORE.items() if method.most
    }
    assert sum(fault.point is None for fault in faults) == 75
    assert any(fault.start_at_random for fault in faults)
