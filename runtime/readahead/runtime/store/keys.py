"""Names of everything kept in Redis. docs/reference/redis.md describes each."""

from __future__ import annotations

WORKER_LEASES = "{readahead}:worker-leases"
"""Sorted set: worker id by the end of its lease, milliseconds of the server's clock."""
WORKER_RECORDS = "{readahead}:worker-records"
"""Hash: worker id to its record, as JSON."""

ALL = (WORKER_LEASES, WORKER_RECORDS)
