"""Short runs of the races; the long ones are commands (docs/explanation/durability.md)."""

from pathlib import Path

from tests.crash import cancels, resumes


async def test_no_cancel_at_any_moment_flips_a_run_or_leaves_its_upstream_call_open(
    tmp_path: Path,
) -> None:
    outcome = await cancels.experiment(tmp_path, count=120, seed=20_261_123)
    assert outcome.violations == []
    assert outcome.figures["cancels"] >= 120
    assert outcome.figures["upstream closed"] > 0
    assert outcome.figures["came too late"] > 0


async def test_every_resume_at_any_cursor_gives_the_same_bytes(tmp_path: Path) -> None:
    outcome = await resumes.experiment(tmp_path, count=500, seed=20_261_123)
    assert outcome.violations == []
    assert outcome.figures["of live runs"] > 0
