"""Whether a request is read, by which dialect, and under the profile of which model."""

from __future__ import annotations

import json
from typing import Any

import pytest

from extproc.core.commands import ReportDialect, UseProfile
from extproc.core.context import Context
from extproc.core.errors import ContentError
from extproc.core.policy import Limits
from extproc.core.reading import Reading
from extproc.core.request_reader import RequestReader
from extproc.core.vocabulary import Headers
from extproc.core.whole_request import WholeRequest
from tests.fakes.rig import chat_request
from tests.fakes.world import policy

BODY = json.dumps(chat_request("Hello")).encode()


def reader(path: str, *headers: tuple[str, str], length: int = -1, **profile: Any) -> tuple[RequestReader, Context]:
    """Return the reader of a POST to `path`, whose dialect was looked up."""
    context = Context("call-1", policy(**profile), Limits())
    context.path = path
    context.inspection.pick_dialect("POST", path)
    it = RequestReader(context)
    it.headers = ((":method", "POST"), (":path", path), *headers)
    it.length = length
    return it, context


def read(it: RequestReader, data: bytes) -> WholeRequest:
    body = WholeRequest(Limits().request_bytes)
    body.buffer.add(data)
    it.read(body)
    return body


@pytest.mark.parametrize(
    ("path", "headers", "expected"),
    [
        ("/v1/chat/completions", (), Reading.WHOLE),
        ("/other", (("content-type", "application/json"),), Reading.WHOLE),
        ("/other", (("content-type", "text/plain"),), Reading.UNDECIDED),
        ("/other", (("content-type", "image/png"),), Reading.UNREAD),
    ],
)
def test_path_and_content_type_tell_how_a_request_is_read(path: str, headers: Headers, expected: Reading) -> None:
    it, _ = reader(path, *headers, length=9)
    assert it.reading(end_of_stream=False) is expected


def test_unmatched_request_without_a_body_is_unread() -> None:
    it, _ = reader("/other", ("content-type", "application/json"))
    assert it.reading(end_of_stream=True) is Reading.UNREAD


def test_texts_of_the_body_are_found() -> None:
    it, context = reader("/v1/chat/completions")
    assert [message["content"] for message in read(it, BODY).messages] == ["Hello"]
    assert context.inspection.was_read


def test_unreadable_body_is_an_error() -> None:
    it, _ = reader("/v1/chat/completions")
    with pytest.raises(ContentError):
        read(it, b"{")


def test_body_chooses_the_dialect_of_a_path_with_several() -> None:
    it, context = reader("/invocations")
    assert context.inspection.choices
    read(it, BODY)
    assert not context.inspection.choices
    assert context.inspection.dialect is not None
    assert ReportDialect(context.inspection.dialect.name) in context.take_commands()


def test_profile_of_the_model_may_read_nothing() -> None:
    it, context = reader("/v1/chat/completions", models={"*": policy(name="none", hooks=())})
    assert read(it, BODY).messages == ()
    assert UseProfile("none") in context.take_commands()
    assert not context.inspection.was_read


def test_request_without_a_body_follows_the_model_of_its_path() -> None:
    path = "/v1beta/models/gemini-pro:generateContent"
    it, context = reader(path, models={"gemini*": policy(name="of gemini")})
    it.read_nothing()
    assert UseProfile("of gemini") in context.take_commands()
