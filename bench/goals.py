"""The bar that the project holds itself to, as far as this benchmark can see it."""

from collections.abc import Callable

from bench import background, leaving, memory, rewriting, startup, streams
from bench.record import BARE, DISK, DURABLE, GENERIC, HANDRAIL, NGINX, Figure, Goal, Record

Value = Callable[[Record], float | None]


def _is(value: float) -> Value:
    return lambda record: value


def _median(figure: Figure, side: str = HANDRAIL) -> Value:
    return lambda record: record.median(figure, side)


def _ratio(figure: Figure, base: str, side: str = HANDRAIL) -> Value:
    return lambda record: record.ratio(figure, side, base)


def _plus(value: Value, more: float, *, times: float = 1.0) -> Value:
    def limit(record: Record) -> float | None:
        known = value(record)
        return None if known is None else known * times + more

    return limit


GOALS = (
    Goal(
        text="CPU for each event flat out, times nginx's",
        value=_ratio(streams.FLAT_CPU, NGINX),
        limit=_is(2.0),
    ),
    Goal(
        text="CPU for each event in bursts of 16, times nginx's",
        value=_ratio(streams.BURST_CPU, NGINX),
        limit=_is(2.0),
    ),
    Goal(text="KB for each stream (PSS)", value=_median(memory.STREAM_PSS), limit=_is(30.0)),
    Goal(text="MB at rest (RSS)", value=_median(memory.REST_RSS), limit=_is(60.0)),
    Goal(
        text="start to first request, times the bare proxy's",
        value=_ratio(startup.START, BARE),
        limit=_is(2.0),
    ),
    *(
        Goal(
            text=f"ms until the upstream is closed when a caller leaves {phase}, p50",
            value=_median(leaving.closed(phase, 50)),
            limit=_is(20.0),
        )
        for phase in leaving.PHASES
    ),
    *(
        Goal(
            text=f"calls leaked when a caller leaves {phase}",
            value=_median(leaving.leaked(phase)),
            limit=_is(0.0),
        )
        for phase in leaving.PHASES
    ),
    Goal(
        text="ms for a background create, p50, against 5 x fdatasync + 3 ms",
        value=_median(background.CREATE_P50),
        limit=_plus(_median(background.CREATE_P50, DISK), 3.0, times=5.0),
    ),
    Goal(
        text="ms of lag of durable events, p50, against the foreground's + 25 ms",
        value=_median(background.LAG_P50, DURABLE),
        limit=_plus(_median(background.LAG_P50), 25.0),
    ),
    Goal(
        text="durable events/s flat out, times the foreground's",
        value=_ratio(background.FLAT_RATE, HANDRAIL, DURABLE),
        limit=_is(0.5),
        at_least=True,
    ),
    Goal(
        text="rewriting 109 KiB whose input passes as it is, times generic",
        value=_ratio(rewriting.KEPT, GENERIC),
        limit=_is(0.5),
    ),
    Goal(
        text="rewriting 109 KiB whose ids are taken out, times generic",
        value=_ratio(rewriting.WALKED, GENERIC),
        limit=_is(2.0),
    ),
)
