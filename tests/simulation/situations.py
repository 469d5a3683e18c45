"""What has to have happened in many seeds, or they show less than they seem to."""

from typing import Final

REQUIRED: Final = (
    # deaths
    "died at a random moment",
    "met a call sent",
    "met after a commit",
    "met before a commit",
    "died with a claimed run that had not begun",
    "died with an upstream call under way",
    "accepted, and its client never learned of it",
    "ended failed worker_lost",
    "resumed after a restart",
    # drains and reloads
    "drain interrupted runs",
    "drain let runs end",
    "drained",
    "killed while draining",
    "caller revoked",
    "refused: shutting_down",
    # the disk
    "disk full at commit",
    "disk locked",
    "disk unreadable",
    "started on a sick disk",
    "reserve given up",
    "refused: storage_full",
    "refused: store_unavailable",
    # races and limits
    "cancel came too late",
    "cancelled again",
    "cancelled running",
    "cancelled waiting",
    "deleted ended",
    "deleted unfinished",
    "reader left",
    "refused: queue_full",
    # Idempotency-Key
    "key gave the same run",
    "key repeated after a restart",
    "key repeated, outcome unknown",
    "refused: idempotency_key_expired",
    "refused: idempotency_key_reused",
    # the upstream
    "another attempt",
    "called again after 429",
    "called again after 503",
    "called again after unreachable",
    "ended cancelled",
    "ended completed",
    "ended failed upstream_ended_early",
    "ended failed upstream_protocol_error",
    "ended failed upstream_stalled",
    "ended incomplete",
    # time
    "wall clock jumped",
)
