"""Renders docs/reference/errors.md from the table in core/errors.py.

python tools/render_errors.py            writes it
python tools/render_errors.py --check    fails iff it would change
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from readahead.core.errors import REASONS, Reason

PAGE = Path(__file__).resolve().parents[1] / "docs/reference/errors.md"

HEAD = """\
# Errors

<!-- Made by tools/render_errors.py from core/readahead/core/errors.py. -->

Every error has a *reason* from this closed set; programs switch on it, people read the message.

| reason | happens when | blame | gRPC | HTTP | retry | `error.type` |
|---|---|---|---|---|---|---|
"""

TAIL = """
*Retry*: the same request may succeed if it is sent again, after the delay that is hinted, if any.
An answer of which text has been delivered is not retried by anybody but the caller.

## Over gRPC

The status carries, in the standard `grpc-status-details-bin` trailing metadata:

- `google.rpc.ErrorInfo` with `domain` "readahead", the `reason` as above, and facts in `metadata`,
  whose keys carry units, as in `queue_requests_max`;
- `google.rpc.RetryInfo` where a delay is hinted;
- `google.rpc.BadRequest` with the field's name where one field is to blame.

## Over HTTP

```json
{"error": {"message": "temperature must be in [0, 2], got 3.", "type": "invalid_request_error",
           "param": "temperature", "code": "invalid_request"}}
```

`code` is the reason in lower case, `param` the field to blame, or null.
The headers `x-request-id` and `x-should-retry` come with every error,
`retry-after-ms` and `retry-after` (whole seconds, rounded up) where a delay is hinted;
OpenAI's clients honour all three. The door itself is described in [http.md](http.md).

An INVALID_REQUEST has status 400, except where HTTP has a status of its own:

| status | happens when |
|---|---|
| 404 | there is nothing at that path |
| 405 | the path takes other methods; `allow` lists them |
| 408 | no part of the body has come for `doors.client_stall_s_max` |
| 413 | the body is larger than `doors.body_bytes_max` |
| 415 | the body is not `application/json` |

An error after the first text of a stream is a last frame `data: {"error": {…}}`,
and no `data: [DONE]` follows it: that mark means that the answer is complete.
OpenAI's clients raise `APIError` on such a frame.
"""

HAPPENS: dict[Reason, str] = {
    Reason.INVALID_REQUEST: "a field is missing, unknown, of the wrong type or out of bounds",
    Reason.CONTEXT_TOO_LONG: "prompt and output do not fit into the model's context",
    Reason.UNAUTHENTICATED: "the caller does not say who it is",
    Reason.FORBIDDEN: "the caller may not do this",
    Reason.MODEL_NOT_FOUND: "no such model is served",
    Reason.REQUEST_NOT_FOUND: "the request's id is not known, or not any more",
    Reason.QUOTA_EXCEEDED: "the caller has used up what it is granted",
    Reason.OVERLOADED: "a queue of the router is full",
    Reason.NO_WORKER: "no worker could be had in time, or the router shuts down",
    Reason.WORKER_LOST: "workers were lost before the first token, on every attempt",
    Reason.STREAM_BROKEN: "a worker was lost after the first token",
    Reason.KV_EXPIRED: "a KV cache was gone before it could be pulled",
    Reason.STALE_INCARNATION: "a message was meant for an earlier start of a worker",
    Reason.DEADLINE_EXCEEDED: "the caller's own time limit has passed",
    Reason.CANCELLED: "the caller cancelled the request",
    Reason.ENGINE_FAILED: "an engine gave up on the request",
    Reason.UNSUPPORTED: "the request asks for something that is not built",
    Reason.BUG: "something is wrong on our side; the log has the request's id",
}


def page() -> str:
    """The whole page."""
    rows = [
        f"| `{reason}` | {HAPPENS[reason]} | {spec.blame} | {spec.grpc_status} "
        f"| {spec.http_status} | {'yes' if spec.is_retryable else 'no'} | `{spec.openai_type}` |\n"
        for reason, spec in REASONS.items()
    ]
    return HEAD + "".join(rows) + TAIL


def main() -> int:
    """Writes the page, or compares it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing")
    if not parser.parse_args().check:
        PAGE.write_text(page(), encoding="utf-8")
        return 0
    if PAGE.read_text(encoding="utf-8") == page():
        return 0
    print(f"{PAGE} is out of date: run python tools/render_errors.py", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
