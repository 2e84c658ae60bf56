"""The Python SDK of Readahead: streams answers over gRPC. Light: no engine, no tensor library."""

from readahead.client.async_client import AsyncClient
from readahead.client.async_paced_reader import AsyncPacedReader
from readahead.client.async_stream import AsyncStream
from readahead.client.client import Client
from readahead.client.connection import Tls
from readahead.client.errors import (
    AccessError,
    BrokenStreamError,
    CancelledError_,
    DeadlineError,
    InvalidRequestError,
    NotFoundError,
    OverloadedError,
    ReadaheadClientError,
    ServerError,
    UnavailableError,
)
from readahead.client.events import (
    Completion,
    Decision,
    Delta,
    Event,
    Explanation,
    Finished,
    FinishReason,
    FirstToken,
    Model,
    ReadingState,
    Started,
    Usage,
)
from readahead.client.options import GenerateOptions
from readahead.client.paced_reader import PacedReader
from readahead.client.reading import ReadingBuffer, Stall
from readahead.client.retry import RetryPolicy
from readahead.client.slo import Slo, SloState
from readahead.client.stream import Stream

__all__ = [
    "AccessError",
    "AsyncClient",
    "AsyncPacedReader",
    "AsyncStream",
    "BrokenStreamError",
    "CancelledError_",
    "Client",
    "Completion",
    "DeadlineError",
    "Decision",
    "Delta",
    "Event",
    "Explanation",
    "FinishReason",
    "Finished",
    "FirstToken",
    "GenerateOptions",
    "InvalidRequestError",
    "Model",
    "NotFoundError",
    "OverloadedError",
    "PacedReader",
    "ReadaheadClientError",
    "ReadingBuffer",
    "ReadingState",
    "RetryPolicy",
    "ServerError",
    "Slo",
    "SloState",
    "Stall",
    "Started",
    "Stream",
    "Tls",
    "UnavailableError",
    "Usage",
]
