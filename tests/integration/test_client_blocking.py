"""The blocking client against a scripted server on loopback."""

from __future__ import annotations

import random
import subprocess
import threading
from pathlib import Path

import grpc
import pytest
from fake_inference import (
    LIMIT_S,
    Fail,
    FakeInference,
    Gate,
    answer,
    delta,
    finished,
    free_port,
    serving,
    started,
)

from readahead.client import (
    BrokenStreamError,
    CancelledError_,
    Client,
    DeadlineError,
    Delta,
    Finished,
    FinishReason,
    InvalidRequestError,
    NotFoundError,
    OverloadedError,
    RetryPolicy,
    ServerError,
    Started,
    Tls,
    UnavailableError,
)
from readahead.v1 import sampling_pb2

QUICK = RetryPolicy(retries_max=2, delay_s_min=0.001, delay_s_max=0.002)
BUSY = Fail(code=grpc.StatusCode.RESOURCE_EXHAUSTED, reason="OVERLOADED", retry_after_s=0.01)


def connect(address: str, *, retry: RetryPolicy = QUICK) -> Client:
    return Client(address, retry=retry, rng=random.Random(0))


def test_a_stream_gives_typed_events_in_order() -> None:
    """Started, deltas, finished; then the iteration ends."""
    with serving(FakeInference(answer("he", "llo"))) as address, connect(address) as client:
        stream = client.generate("hi", max_tokens=2)
        first, *deltas, last = list(stream)
        assert isinstance(first, Started)
        assert first.request_id == stream.request_id
        assert [event.text for event in deltas if isinstance(event, Delta)] == ["he", "llo"]
        assert isinstance(last, Finished)
        assert last.first_token.queue_s == pytest.approx(0.002)
        assert last.first_token.prefill_s is None
        assert stream.tokens_delivered == 2


def test_text_and_collect_say_the_same() -> None:
    """The pieces of text() joined are the completion's text."""
    service = FakeInference([started(), delta("a", 1, 2), delta(""), delta("b"), finished(4)])
    with serving(service) as address, connect(address) as client:
        assert list(client.generate("hi").text()) == ["a", "b"]
        whole = client.generate("hi").collect()
    assert (whole.text, whole.token_ids) == ("ab", (1, 2, 7, 7))
    assert whole.finish_reason is FinishReason.LENGTH
    assert (whole.usage.prompt_tokens, whole.usage.output_tokens) == (3, 4)
    assert whole.model == "fake"


def test_a_refusal_is_retried_after_the_servers_hint() -> None:
    """OVERLOADED twice, then an answer; each try is a new request."""
    service = FakeInference([BUSY], [BUSY], answer("ok"))
    with serving(service) as address, connect(address) as client:
        whole = client.generate("hi").collect()
    ids = [request.request_id for request in service.requests]
    assert whole.text == "ok"
    assert len(set(ids)) == 3
    assert whole.request_id == ids[-1]


def test_an_id_that_the_caller_chose_is_kept() -> None:
    """The caller may have told it to others already."""
    service = FakeInference([BUSY], answer("ok"))
    with serving(service) as address, connect(address) as client:
        assert client.generate("hi", request_id="mine").collect().request_id == "mine"
    assert [request.request_id for request in service.requests] == ["mine", "mine"]


def test_retries_end() -> None:
    """After the last allowed try the caller gets the error, with all that the server said."""
    service = FakeInference([BUSY])
    with (
        serving(service) as address,
        connect(address) as client,
        pytest.raises(OverloadedError) as caught,
    ):
        client.generate("hi").collect()
    assert len(service.requests) == 3
    assert caught.value.retry_after_s == pytest.approx(0.01)
    assert caught.value.request_id


def test_what_is_the_callers_fault_is_not_retried() -> None:
    """INVALID_REQUEST comes back at once, with the parameter's name."""
    fail = Fail(
        code=grpc.StatusCode.INVALID_ARGUMENT, reason="INVALID_REQUEST", parameter="temperature"
    )
    service = FakeInference([fail])
    with (
        serving(service) as address,
        connect(address) as client,
        pytest.raises(InvalidRequestError) as caught,
    ):
        client.generate("hi").collect()
    assert caught.value.parameter == "temperature"
    assert len(service.requests) == 1


@pytest.mark.parametrize(
    "fail",
    [
        Fail(code=grpc.StatusCode.UNAVAILABLE, reason="WORKER_LOST"),
        Fail(code=grpc.StatusCode.RESOURCE_EXHAUSTED, reason="OVERLOADED", retry_after_s=0),
        Fail(code=grpc.StatusCode.UNAVAILABLE),
    ],
)
def test_nothing_is_retried_once_the_answer_has_begun(fail: Fail) -> None:
    """Whatever the error, a second answer is the caller's decision."""
    service = FakeInference([started(), delta("a"), fail])
    with serving(service) as address, connect(address) as client:
        stream = client.generate("hi")
        with pytest.raises((UnavailableError, OverloadedError, BrokenStreamError)) as caught:
            stream.collect()
        assert list(stream) == []
    assert len(service.requests) == 1
    assert caught.value.metadata["tokens_delivered"] == "1"


def test_a_stream_without_its_end_is_broken() -> None:
    """OK without the last event is no answer."""
    service = FakeInference([started(), delta("a")])
    with serving(service) as address, connect(address) as client, pytest.raises(BrokenStreamError):
        client.generate("hi").collect()


def test_an_unknown_ending_is_an_error() -> None:
    """A finish reason that this build does not know is not taken for success."""
    service = FakeInference([started(), finished(0, reason=sampling_pb2.FINISH_REASON_UNSPECIFIED)])
    with serving(service) as address, connect(address) as client, pytest.raises(ServerError):
        client.generate("hi").collect()


def test_cancel_ends_the_request_at_the_server_and_the_iteration_here() -> None:
    """The caller's own cancel is no error; what had come is kept."""
    service = FakeInference([started(), delta("a"), Gate()])
    with serving(service) as address, connect(address) as client:
        stream = client.generate("hi")
        events = iter(stream)
        assert isinstance(next(events), Started)
        assert isinstance(next(events), Delta)
        stream.cancel()
        assert stream.collect().finish_reason is FinishReason.CANCELLED
        assert service.ended.get(timeout=LIMIT_S) == stream.request_id


def test_cancel_from_another_thread_wakes_the_reader() -> None:
    """A reader that waits for the next token is let go."""
    gate = Gate()
    service = FakeInference([started(), delta("a"), gate])
    with serving(service) as address, connect(address) as client:
        stream = client.generate("hi")

        def cancel_when_reached() -> None:
            gate.reached.wait(LIMIT_S)
            stream.cancel()

        thread = threading.Thread(target=cancel_when_reached)
        events = []
        for event in stream:
            events.append(event)
            if isinstance(event, Delta):
                thread.start()
        thread.join(LIMIT_S)
    assert len(events) == 2


def test_cancel_during_the_wait_for_a_retry_ends_the_wait() -> None:
    """Nobody waits for a hint of half a minute after having cancelled."""
    service = FakeInference(
        [Fail(code=grpc.StatusCode.UNAVAILABLE, reason="NO_WORKER", retry_after_s=30)]
    )
    with serving(service) as address, connect(address) as client:
        stream = client.generate("hi")
        timer = threading.Timer(0.05, stream.cancel)
        timer.start()
        assert list(stream) == []
        timer.join()


def test_leaving_the_with_block_cancels() -> None:
    """A reader that breaks off does not leave the engine working."""
    service = FakeInference([started(), delta("a"), Gate()])
    with serving(service) as address, connect(address) as client:
        with client.generate("hi") as stream:
            for event in stream:
                if isinstance(event, Delta):
                    break
        assert service.ended.get(timeout=LIMIT_S) == stream.request_id


def test_a_cancel_by_others_is_an_error() -> None:
    """The answer is not whole, and the caller did not ask for that."""
    fail = Fail(code=grpc.StatusCode.CANCELLED, reason="CANCELLED")
    service = FakeInference([started(), delta("a"), fail])
    with serving(service) as address, connect(address) as client, pytest.raises(CancelledError_):
        client.generate("hi").collect()


def test_the_deadline_bounds_everything_and_is_sent_along() -> None:
    """timeout_s becomes the call's deadline; when it passes, the caller is told."""
    service = FakeInference([started(), Gate()])
    given_s: list[float] = []
    with serving(service) as address, connect(address) as client:
        call = client._stub.Generate

        def generate(request: object, *, timeout: float, metadata: object) -> object:
            given_s.append(timeout)
            return call(request, timeout=timeout, metadata=metadata)  # type: ignore[arg-type]

        client._stub.Generate = generate  # type: ignore[assignment]
        with pytest.raises(DeadlineError):
            client.generate("hi", timeout_s=0.2).collect()
    assert [0 < timeout_s <= 0.2 for timeout_s in given_s] == [True]
    # The server's own reckoning is gRPC's: for a bare call of 0.2 s it says up to 0.9 ms more.
    (time_left_s,) = service.time_left_s
    assert time_left_s is not None
    assert time_left_s == pytest.approx(0.2, abs=0.1)


def test_no_retry_beyond_the_deadline() -> None:
    """A hint that is longer than the time left ends the request at once."""
    service = FakeInference(
        [Fail(code=grpc.StatusCode.UNAVAILABLE, reason="NO_WORKER", retry_after_s=5)]
    )
    with serving(service) as address, connect(address) as client, pytest.raises(UnavailableError):
        client.generate("hi", timeout_s=1.0).collect()
    assert len(service.requests) == 1


def test_nobody_there() -> None:
    """An address without a server is a clear error."""
    with connect(f"127.0.0.1:{free_port()}") as client:
        with pytest.raises(UnavailableError) as caught:
            client.generate("hi").collect()
        assert caught.value.reason == "UNREACHABLE"
        with pytest.raises(UnavailableError, match="not ready after"):
            client.wait_ready(0.3)


def test_wait_ready_waits_for_a_server_that_starts() -> None:
    """A server without models is not ready; one that has some is."""
    service = FakeInference()
    service.models = []
    with serving(service) as address, connect(address) as client:
        with pytest.raises(UnavailableError, match="serves no model"):
            client.wait_ready(0.2)
        service.models = ["late"]
        client.wait_ready(LIMIT_S)


def test_the_other_calls() -> None:
    """Models, explain, cancel and reading reports."""
    service = FakeInference()
    with serving(service) as address, connect(address) as client:
        (model,) = client.models()
        assert (model.name, model.context_tokens_max, model.engine) == ("fake", 2048, "emulated")
        explanation = client.explain("r1")
        (decision,) = explanation.decisions
        assert (explanation.request_id, explanation.stage) == ("r1", "decoding")
        assert (decision.at_s, decision.worker_id) == (1.5, "d0")
        assert decision.costs == {"d0": 0.5, "d1": 2.0}
        client.cancel("r1")
        stream = client.generate("hi")
        stream.collect()
        stream.report_reading(1)
        assert service.cancels == ["r1"]
        assert service.readings == [(stream.request_id, 1)]


def test_other_calls_fail_by_the_same_tree_and_are_retried() -> None:
    """They are idempotent: unreachable is tried again, not found is not."""
    service = FakeInference()
    service.unary_failures = [
        Fail(code=grpc.StatusCode.UNAVAILABLE),
        Fail(code=grpc.StatusCode.NOT_FOUND, reason="REQUEST_NOT_FOUND"),
    ]
    with (
        serving(service) as address,
        connect(address) as client,
        pytest.raises(NotFoundError) as caught,
    ):
        client.explain("gone")
    assert caught.value.request_id == "gone"
    assert service.unary_calls == 2


def test_headers_travel() -> None:
    """Trace context reaches the server."""
    service = FakeInference()
    traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    with serving(service) as address, connect(address) as client:
        client.generate("hi", headers={"traceparent": traceparent}).collect()
    assert service.metadata[0]["traceparent"] == traceparent


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A self-signed certificate for localhost, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    certificate_file, key_file = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-days", "1", "-subj", "/CN=localhost", "-addext",
         "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", key_file,
         "-out", certificate_file],
        check=True,
        capture_output=True,
    )  # fmt: skip
    return certificate_file, key_file


@pytest.mark.parametrize("is_mutual", [False, True])
def test_tls(certificate: tuple[Path, Path], is_mutual: bool) -> None:
    """A server's certificate is checked; a client's own is shown."""
    certificate_file, key_file = certificate
    credentials = grpc.ssl_server_credentials(
        [(key_file.read_bytes(), certificate_file.read_bytes())],
        root_certificates=certificate_file.read_bytes() if is_mutual else None,
        require_client_auth=is_mutual,
    )
    own = (str(certificate_file), str(key_file)) if is_mutual else ("", "")
    tls = Tls(authority_file=str(certificate_file), certificate_file=own[0], key_file=own[1])
    with serving(FakeInference(answer("ok")), credentials=credentials) as address:
        with Client(address, tls=tls) as client:
            assert client.generate("hi").collect().text == "ok"
        with connect(address) as plain, pytest.raises(UnavailableError):
            plain.generate("hi").collect()
