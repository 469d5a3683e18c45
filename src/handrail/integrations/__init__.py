"""The guardrails inside other programs, without a server. Each module needs its own extra."""
