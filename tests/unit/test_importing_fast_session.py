"""What becomes of the fast session of the reference's settings."""

from typing import Any

import pytest

from tests.unit.test_importing import Json, told

STRATEGY = "fast_session.strategy"


@pytest.mark.parametrize(
    ("fields", "records"),
    [
        ({"fastSession": True}, [("fastSession", "changed", STRATEGY, "hybrid")]),
        ({"fastSession": False}, [("fastSession", "taken", STRATEGY, "off")]),
        (
            {"fastSession": True, "fastSessionStrategy": "always"},
            [
                ("fastSession", "changed", STRATEGY, "always"),
                ("fastSessionStrategy", "taken", STRATEGY, "always"),
            ],
        ),
        (
            {"fastSession": True, "fastSessionMaxInputItems": 40},
            [
                ("fastSession", "changed", STRATEGY, "hybrid"),
                ("fastSessionMaxInputItems", "taken", "fast_session.max_input_items", 40),
            ],
        ),
        (
            {"fastSessionStrategy": "always", "fastSessionMaxInputItems": 40},
            [
                ("fastSessionStrategy", "not applicable", "", None),
                ("fastSessionMaxInputItems", "not applicable", "", None),
            ],
        ),
    ],
)
def test_a_fast_session_is_taken_as_far_as_it_is_on(
    fields: Json, records: list[tuple[str, str, str, Any]]
) -> None:
    assert told(fields) == records
