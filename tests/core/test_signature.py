"""Requests that a client of AWS has signed: what of them cannot be changed, and what is refused for it."""

from __future__ import annotations

import pytest

from extproc.core.signature import signature_of
from extproc.core.verdict import Allow, Anonymize
from extproc.core.vocabulary import BodyMode
from tests.fakes.world import World, policy

PATH = "/model/m/converse"
BODY = b'{"messages": [{"role": "user", "content": [{"text": "I am Tom"}]}]}'
SCOPE = "Credential=AKID/20260101/us-east-1/bedrock/aws4_request"


def signed(*headers: str, scheme: str = "AWS4-HMAC-SHA256") -> tuple[str, str]:
    return "authorization", f"{scheme} {SCOPE}, SignedHeaders={';'.join(('host', *headers))}, Signature=ab12"


def presigned(*headers: str) -> str:
    return f"{PATH}?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-SignedHeaders={'%3B'.join(headers)}&X-Amz-Signature=ab12"


@pytest.mark.parametrize(
    ("headers", "names"),
    [
        ([signed("content-type", "x-amz-date")], {"host", "content-type", "x-amz-date"}),
        ([signed("X-Amz-Date")], {"host", "x-amz-date"}),
        ([signed(scheme="AWS4-ECDSA-P256-SHA256")], {"host"}),
        ([signed(scheme="  aws4-hmac-sha256")], {"host"}),
        ([("authorization", "AWS4-HMAC-SHA256 Signature=1,SignedHeaders = a;b")], {"a", "b"}),
        ([("authorization", "AWS4-HMAC-SHA256 Signature=1")], set()),
        ([("authorization", "Bearer k"), signed("x")], {"host", "x"}),
        ([(":path", presigned("host", "x-a"))], {"host", "x-a"}),
        ([(":path", f"{PATH}?x-amz-signature=1")], set()),
    ],
)
def test_signed_headers(headers: list[tuple[str, str]], names: set[str]) -> None:
    found = signature_of(tuple(headers))
    assert found is not None
    assert found.headers == names


@pytest.mark.parametrize(
    "headers",
    [
        (),
        (("authorization", "Bearer AWS4-HMAC-SHA256"),),
        ((":path", "/x-amz-signature?a=b"),),
        ((":path", "/a?b=x-amz-signature"),),
        (("x-other", "AWS4-HMAC-SHA256 SignedHeaders=host"),),
    ],
)
def test_other_requests_are_not_signed(headers: tuple[tuple[str, str], ...]) -> None:
    assert signature_of(headers) is None


def sent(*headers: tuple[str, str], path: str = PATH, mode: BodyMode = BodyMode.BUFFERED, **profile: object) -> World:
    it = World(policy(**profile), mode=mode)  # type: ignore[arg-type]
    return it.request(BODY, ("content-type", "application/json"), *headers, path=path)


@pytest.mark.parametrize("mode", list(BodyMode))
@pytest.mark.parametrize(("headers", "path"), [([signed()], PATH), ([], presigned("host"))])
def test_signed_request_is_not_redacted(headers: list[tuple[str, str]], path: str, mode: BodyMode) -> None:
    it = sent(*headers, path=path, mode=mode).judge(Anonymize(("I am [N]",)))
    assert it.status == 400
    assert (it.record.code, it.record.reason) == ("redaction_failed", "signed_request")
    assert b"Tom" not in it.upstream.body
    assert it.upstream.buffered is None


def test_other_requests_are_redacted() -> None:
    it = sent(("authorization", "Bearer bedrock-api-key-1")).judge(Anonymize(("I am [N]",)))
    assert it.upstream.buffered is not None
    assert it.upstream.buffered.body == BODY.replace(b"Tom", b"[N]")


def test_signed_request_passes_as_it_came() -> None:
    it = sent(signed("content-type")).judge(Allow())
    assert it.upstream.buffered is not None
    assert it.upstream.buffered.body is None


@pytest.mark.parametrize("is_signed", [False, True])
def test_signed_accept_encoding_stays(is_signed: bool) -> None:
    it = sent(signed(*["accept-encoding"] * is_signed), ("accept-encoding", "gzip"))
    assert it.upstream.headers is not None
    assert ("accept-encoding" in it.upstream.headers.remove) is not is_signed


@pytest.mark.parametrize("name", ["x-aim-user-email", "x-cato-user-email"])
@pytest.mark.parametrize("path", [PATH, "/other"])
def test_header_of_our_own_must_not_be_signed(name: str, path: str) -> None:
    it = sent(signed(name), (name, "ann@example.com"), path=path)
    assert it.status == 400
    assert it.record.code == "signed_header"
    assert it.asked == []
    it = sent(signed(), (name, "ann@example.com"), path=path)
    assert it.upstream.headers is not None
    assert name in it.upstream.headers.remove
