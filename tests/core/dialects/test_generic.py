"""Any JSON: every string is a text, except where a common name and the string's shape say that it is none."""

from __future__ import annotations

from typing import Any

import pytest

from extproc.core.content.document import PlainText
from extproc.core.dialects.generic import Generic
from extproc.core.dialects.paths import DEFAULT
from extproc.core.errors import MalformedBody
from tests.fakes.reading import asked, heard, masked, redacted_answer, redacted_event, redacted_request, said

GENERIC = Generic()
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGNgYGD4DwABBAEAX+XDSwAAAABJRU5ErkJggg=="


@pytest.mark.parametrize(
    ("body", "texts"),
    [
        ({"note": "hi"}, ["hi"]),
        ({"rows": [["hi a", {"x": {"y": "hi b"}}], "hi c"]}, ["hi a", "hi b", "hi c"]),
        (["hi a", {"x": "hi b"}], ["hi a", "hi b"]),
        ({"stream": True, "n": 1, "x": None, "y": [1, 2.5, True, None], "z": "", "e": [[], {}]}, []),
        ({"id": "a", "user_id": "b", "type": "c", "model": "d/e:f", "role": "user", "status": "ok", "index": "0"}, []),
        ({"createTime": "2026-05-28T14:45:17.041985Z", "mimeType": "image/png", "created_at": "2026-05-28"}, []),
        ({"url": "https://a.example/b?c=d", "image_url": "s3://a/b", "fileUri": "gs://a"}, []),
        ({"signature": "c2ln" * 300, "next_page_token": "abc-_", "data": {"b64_json": PNG}}, []),
        ({"id": "hi to all", "type": "to say hi"}, ["hi to all", "to say hi"]),
        ({"user_id": "hi@example.com"}, ["hi@example.com"]),
        ({"id": "\u65e5\u672c hi"}, ["\u65e5\u672c hi"]),
        ({"id": ["hi a", {"x": "hi"}]}, ["hi a", "hi"]),
        ({"url": "javascript:hi()"}, ["javascript:hi()"]),
        ({"url": "https://a.example/ hi"}, ["https://a.example/ hi"]),
        ({"signature": "signed, hi"}, ["signed, hi"]),
        ({"b64_json": "hi to all"}, ["hi to all"]),
        ({"b64_json": "i", "": "hi"}, ["i", "hi"]),
        ({"my name": "hi"}, ["my name", "hi"]),
    ],
)
def test_texts_of_any_document(body: Any, texts: list[str]) -> None:
    assert asked(GENERIC, body) == [("user", text) for text in texts]
    assert said(GENERIC, body) == (["\n".join(texts)] if texts else [])
    assert heard(GENERIC, body) == texts
    after = masked(body)
    assert redacted_request(GENERIC, body) == after
    assert redacted_answer(GENERIC, body) == redacted_event(GENERIC, body) == after


def test_inert_value_may_have_256_characters() -> None:
    for key in ("id", "type"):
        assert said(GENERIC, {key: "a" * 256}) == []
        assert said(GENERIC, {key: "a" * 257}) == ["a" * 257]


def test_document_may_be_one_text() -> None:
    assert asked(GENERIC, '"hi"') == [("user", "hi")]
    assert said(GENERIC, '"hi"') == heard(GENERIC, '"hi"') == ["hi"]


def test_number_alone_has_no_text() -> None:
    assert asked(GENERIC, "7") == []


def test_texts_of_an_event_behind_the_first_256_of_a_list_are_one() -> None:
    body = {"rows": [f"hi {number}" for number in range(300)]}
    texts = heard(GENERIC, body)
    assert (len(texts), texts[-1]) == (257, "\n".join(f"hi {number}" for number in range(256, 300)))
    assert redacted_event(GENERIC, body) == masked(body)
    assert len(heard(GENERIC, {"rows": [*map(str, range(256)), *[""] * 44]})) == 256


def test_answer_of_many_keys_is_one_text() -> None:
    body = {"rows": [{f"key{number}": "hi", f"{number}_id": "a"} for number in range(1200)]}
    assert said(GENERIC, body) == ["\n".join(["hi"] * 1200)]
    assert redacted_answer(GENERIC, body) == masked(body)


def test_answer_of_many_texts_is_one_text() -> None:
    body = {"rows": [{"note": f"hi {number}", "id": str(number)} for number in range(1000)]}
    assert said(GENERIC, body) == ["\n".join(f"hi {number}" for number in range(1000))]
    assert redacted_answer(GENERIC, body) == masked(body)


def test_only_the_generic_dialect_takes_what_is_no_json() -> None:
    assert isinstance(GENERIC.parse("{"), PlainText)
    assert isinstance(DEFAULT.parse("{", is_foreign=True), PlainText)
    assert DEFAULT.parse("{}").root == {}
    with pytest.raises(MalformedBody):
        DEFAULT.parse("{")
