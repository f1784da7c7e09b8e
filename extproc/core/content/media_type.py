"""The media types of a body (RFC 9110, 8.3), in lower case and without parameters."""

from __future__ import annotations

import re

from extproc.core.vocabulary import Headers

_JSON_LINES = frozenset(
    {
        "application/json-lines",
        "application/json-seq",
        "application/jsonl",
        "application/jsonlines",
        "application/ndjson",
        "application/stream+json",
        "application/x-json-lines",
        "application/x-jsonl",
        "application/x-jsonlines",
        "application/x-ndjson",
        "text/ndjson",
        "text/x-ndjson",
    }
)

_JSON_LINES_SUFFIXES = ("+json-seq", "+jsonl", "+ndjson")
"""The suffix of RFC 8091, and others like it, which are not registered."""

_JSON = re.compile(r"application/(?:x-)?json|text/(?:x-)?json|application/x-amz-json-[0-9.]+|.+\+json").fullmatch
"""The registered type, the suffix of RFC 6839 (3.1), and types that AWS and older software use."""


def media_types(headers: Headers) -> tuple[str, ...]:
    """Return the media types that the content-type headers name."""
    named = [value for name, value in headers if name == "content-type"]
    types = [part.split(";", 1)[0].strip().lower() for value in named for part in value.split(",")]
    return tuple(filter(None, types))


def is_json(media_type: str) -> bool:
    """Return whether a body of this type is one JSON document."""
    return _JSON(media_type) is not None and media_type not in _JSON_LINES


def is_json_lines(media_type: str) -> bool:
    """Return whether each line of a body of this type is a JSON document."""
    return media_type in _JSON_LINES or media_type.endswith(_JSON_LINES_SUFFIXES)


def is_event_stream(media_type: str) -> bool:
    """Return whether a body of this type is an event stream."""
    return media_type == "text/event-stream"


def is_aws_event_stream(media_type: str) -> bool:
    """Return whether a body of this type is an AWS event stream."""
    return media_type == "application/vnd.amazon.eventstream"


def is_form(media_type: str) -> bool:
    """Return whether a body of this type is a form of several parts."""
    return media_type == "multipart/form-data"


def is_media(media_type: str) -> bool:
    """Return whether a body of this type is a sound or an image."""
    return media_type.startswith(("audio/", "image/"))
