"""Any JSON: every string is a text, except where a common name and the string's shape say that it is none."""

from __future__ import annotations

from typing import Any

import pytest

from extproc.core.content.document import PlainText
from extproc.core.dialects.endpoints import DEFAULT
from extproc.core.dialects.generic import Generic
from extproc.core.errors import MalformedBody
from extproc.core.redaction import edits
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


def test_unnamed_texts_of_an_event_behind_the_first_32_are_one() -> None:
    body = {"rows": [f"hi {number}" for number in range(300)]}
    texts = heard(GENERIC, body)
    assert (len(texts), texts[-1]) == (33, "\n".join(f"hi {number}" for number in range(32, 300)))
    assert redacted_event(GENERIC, body) == masked(body)
    assert len(heard(GENERIC, {"rows": [*map(str, range(32)), *[""] * 44]})) == 32


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


def test_escapes_of_what_is_no_json_are_decoded() -> None:
    raw = r'{"a":"x","a":"\u0042ob, \"hi\""}'
    document = GENERIC.parse(raw)
    (leaf,) = GENERIC.answers(document)
    assert leaf.text == '{"a":"x","a":"Bob, "hi""}'
    (prompt,) = GENERIC.prompts(document, tools=False)
    assert prompt.message == {"role": "user", "content": leaf.text}
    assert [each.text for each in GENERIC.deltas(document)] == [raw]  # the queue decodes pieces
    after = document.rewrite(edits([(prompt.leaf, leaf.text.replace("Bob", "[N]"))]))
    assert after == r'{"a":"x","a":"[N], \"hi\""}'


def test_what_may_be_utf_16_is_unreadable() -> None:
    with pytest.raises(MalformedBody):
        GENERIC.parse('{"a":"b"}'.encode("utf-16-le").decode())
