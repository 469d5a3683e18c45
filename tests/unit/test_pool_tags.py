"""Whether a target has an account that a caller may use."""

from tests.unit.test_pool import UNTOLD, House, house

__all__ = ["house"]  # a fixture


async def test_a_target_is_free_to_a_caller_only_by_accounts_that_it_may_use(house: House) -> None:
    await house.with_keys("a", "b")
    eu = frozenset({"eu"})
    assert not house.pool.free(house.target, model="m", tags=eu)
    house.other.set_tags(house.pool.known()[0].id, ["eu"])
    await house.pool.follow()
    assert house.pool.free(house.target, model="m", tags=eu)
    await house.fail("a", UNTOLD)
    assert not house.pool.free(house.target, model="m", tags=eu)
    assert house.pool.free(house.target, model="m", tags=frozenset())


async def test_the_credential_of_the_settings_is_free_to_nobody_who_needs_a_tag(
    house: House,
) -> None:
    assert house.pool.free(house.target, model="m", tags=frozenset())
    assert not house.pool.free(house.target, model="m", tags=frozenset({"eu"}))
