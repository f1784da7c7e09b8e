"""The fixed reference: the null and the floor share no code with the sidecar, and speak as Envoy expects."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from envoy_data_plane.envoy.service.ext_proc.v3 import (
    BodyMutation,
    BodyResponse,
    CommonResponse,
    HeadersResponse,
    HttpBody,
    HttpHeaders,
    ProcessingRequest,
    ProcessingResponse,
    StreamedBodyResponse,
)

from tests.bench.messages import Request, streamed
from tests.bench.null import REPLIES

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["null", "floor"])
def test_reference_imports_nothing_of_the_sidecar(name: str) -> None:
    code = f"import sys, tests.bench.{name}; print([each for each in sys.modules if each.startswith('extproc')])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_fixed_replies_are_those_of_envoys_classes() -> None:
    headers, body = HeadersResponse(response=CommonResponse()), BodyResponse(response=CommonResponse())
    assert {
        "request_headers": bytes(ProcessingResponse(request_headers=headers)),
        "response_headers": bytes(ProcessingResponse(response_headers=headers)),
        "request_body": bytes(ProcessingResponse(request_body=body)),
    } == REPLIES


@pytest.mark.parametrize(("data", "is_last"), [(b"data: {}\n\n", False), (b"", True), (b"{}", True)])
def test_piece_is_that_of_envoys_classes(data: bytes, is_last: bool) -> None:
    mutation = BodyMutation(streamed_response=StreamedBodyResponse(body=data, end_of_stream=is_last))
    reply = BodyResponse(response=CommonResponse(body_mutation=mutation))
    assert streamed(data, is_last) == bytes(ProcessingResponse(response_body=reply))


def test_requests_are_read() -> None:
    for kind in ("request_headers", "response_headers"):
        message = ProcessingRequest(**{kind: HttpHeaders(end_of_stream=True)})
        assert Request.FromString(bytes(message)).WhichOneof("request") == kind
    for kind in ("request_body", "response_body"):
        request = Request.FromString(bytes(ProcessingRequest(**{kind: HttpBody(body=b"{}", end_of_stream=True)})))
        assert request.WhichOneof("request") == kind
        assert (getattr(request, kind).body, getattr(request, kind).end_of_stream) == (b"{}", True)
