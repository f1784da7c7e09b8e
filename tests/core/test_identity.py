"""Identities: their sources, the order of the sources, and characters that a header cannot contain."""

from __future__ import annotations

from typing import Any

import pytest

from extproc.core.events import HeadersReceived
from extproc.core.identity import MAX_VALUE, Identity, Source, find_attribute, first_value, own_headers
from extproc.core.vocabulary import Leg

REQUEST = HeadersReceived(
    Leg.REQUEST,
    (("x-empty", ""), ("x-user", "one@x.com"), ("x-user", "two@x.com"), ("x-blank", " \t "), ("x-late", "")),
    metadata={
        "envoy.filters.http.jwt_authn": {"payload": {"email": "jwt@x.com", "id": 7.0, "ratio": 0.5, "admin": True}},
        "flat": "value",
        "ns": {"list": ["a"], "none": None, "": "empty step", "integer": 12},
    },
    attributes={
        "envoy.filters.http.ext_proc": {"connection.uri_san_peer_certificate": "spiffe://a", "source.port": 80.0},
        "odd": "no mapping",
        "second": {"xds.route_name": "chat", "source.port": 81.0, "flag": False},
    },
)


@pytest.mark.parametrize(
    ("spec", "source"),
    [
        ("header:X-User", Source("header", "x-user")),
        ("header::authority", Source("header", ":authority")),
        (
            "metadata:envoy.filters.http.jwt_authn/payload/Email",
            Source("metadata", "envoy.filters.http.jwt_authn/payload/Email"),
        ),
        ("attribute:xds.Route_name", Source("attribute", "xds.Route_name")),
        ("static:Some: Value", Source("static", "Some: Value")),
    ],
)
def test_source_is_parsed(spec: str, source: Source) -> None:
    assert Source.parse(spec) == source


@pytest.mark.parametrize(
    "spec",
    [
        "",
        "header",
        "header:",
        ":x",
        "x-user",
        "static:",
        "metadata:ns",
        "metadata:ns/",
        "metadata:/ns",
        "Header:x",
        "env:X",
        "header:a b",
        "header: x",
        "header:x:",
        "header::",
        "header:x\n",
        "header:\xe9",
        "header:a,b",
    ],
)
def test_text_that_is_not_a_source_is_refused(spec: str) -> None:
    with pytest.raises(ValueError, match="source"):
        Source.parse(spec)


@pytest.mark.parametrize(
    ("spec", "value"),
    [
        ("static:a b", "a b"),
        ("header:x-user", "one@x.com"),
        ("header:X-USER", "one@x.com"),
        ("header:x-empty", None),
        ("header:x-missing", None),
        ("header:x-blank", " \t "),
        ("metadata:envoy.filters.http.jwt_authn/payload/email", "jwt@x.com"),
        ("metadata:envoy.filters.http.jwt_authn/payload/id", "7"),
        ("metadata:envoy.filters.http.jwt_authn/payload/ratio", "0.5"),
        ("metadata:envoy.filters.http.jwt_authn/payload/admin", None),
        ("metadata:envoy.filters.http.jwt_authn/payload", None),
        ("metadata:envoy.filters.http.jwt_authn/payload/missing", None),
        ("metadata:envoy.filters.http.jwt_authn/payload/email/deeper", None),
        ("metadata:missing/payload/email", None),
        ("metadata:flat/x", None),
        ("metadata:ns/list", None),
        ("metadata:ns/list/0", None),
        ("metadata:ns/none", None),
        ("metadata:ns/integer", "12"),
        ("attribute:connection.uri_san_peer_certificate", "spiffe://a"),
        ("attribute:xds.route_name", "chat"),
        ("attribute:source.port", "80"),
        ("attribute:flag", None),
        ("attribute:missing", None),
    ],
)
def test_source_is_read_from_the_request(spec: str, value: str | None) -> None:
    assert Source.parse(spec).read(REQUEST) == value


@pytest.mark.parametrize(
    ("value", "expected"), [(float("nan"), "nan"), (float("inf"), "inf"), (-3.0, "-3"), (1e21, str(10**21))]
)
def test_numbers_are_written_out(value: Any, expected: str) -> None:
    request = HeadersReceived(Leg.REQUEST, (), metadata={"ns": {"n": value}})
    assert Source("metadata", "ns/n").read(request) == expected


def test_empty_request_has_no_identity() -> None:
    empty = HeadersReceived(Leg.REQUEST, ())
    for spec in ("header:x", "metadata:ns/x", "attribute:x"):
        assert Source.parse(spec).read(empty) is None


def test_attributes_are_found_under_any_extension() -> None:
    assert find_attribute(REQUEST.attributes, "xds.route_name") == "chat"
    assert find_attribute(REQUEST.attributes, "missing") is None
    assert find_attribute({}, "x") is None


@pytest.mark.parametrize(
    ("specs", "value"),
    [
        ([], None),
        (["header:x-missing"], None),
        (["header:x-missing", "header:x-user", "static:s"], "one@x.com"),
        (["header:x-empty", "static:s"], "s"),
        (["header:x-blank", "static:s"], "s"),
        (["metadata:ns/none", "attribute:xds.route_name", "header:x-user"], "chat"),
        (["static:s", "header:x-user"], "s"),
    ],
)
def test_first_source_with_a_value_is_used(specs: list[str], value: str | None) -> None:
    assert first_value(map(Source.parse, specs), REQUEST) == value


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a\r\nx-evil: b", "ax-evil: b"),
        ("\0a\x1fb\x7fc\t", "abc"),
        ("  a b  ", "a b"),
        ("\r\n", None),
        ("x" * (MAX_VALUE + 1), "x" * MAX_VALUE),
        ("x" * (MAX_VALUE - 1) + " y", "x" * (MAX_VALUE - 1)),
    ],
)
def test_value_is_made_valid_for_a_header(value: str, expected: str | None) -> None:
    assert first_value([Source("static", value)], REQUEST) == expected


@pytest.mark.parametrize(
    ("raw", "expected"),
    [("jos\u00e9".encode(), "jos\u00e9"), (b"jos\xe9", "jos\u00e9"), ("\u05d0\u0085b".encode(), "\u05d0b")],
)
def test_header_is_decoded_as_utf8_if_possible(raw: bytes, expected: str) -> None:
    request = HeadersReceived(Leg.REQUEST, (("x", raw.decode("latin-1")),))
    assert first_value([Source.parse("header:x")], request) == expected


def test_own_headers_are_listed_for_removal() -> None:
    names = ("x-aim-user-email", "x-aimed", "accept", "x-cato-x", "x-aim-user-email", "x-aim-", "x-cat", "y-x-aim-z")
    assert own_headers(tuple((name, "value") for name in names)) == ("x-aim-user-email", "x-cato-x", "x-aim-")
    assert own_headers(()) == ()


def test_unknown_caller_has_an_empty_identity() -> None:
    assert Identity() == Identity(None, None, None)
