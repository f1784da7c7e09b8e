"""Requests that are forms: their texts are judged and rewritten, their media stay."""

from __future__ import annotations

import pytest

from extproc.core.policy import Limits
from extproc.core.verdict import Anonymize, Block
from extproc.core.vocabulary import BodyMode
from tests.fakes.forms import PNG, form, part
from tests.fakes.world import World, policy

KIND = "multipart/form-data; boundary=xYz-1"
BODY = form(
    part("prompt", b"Ask Tom"),
    part("image", PNG, "Content-Type: image/png", more='; filename="a.png"'),
    part("input", b'{"q": "Who is Tom?"}\n', "Content-Type: application/jsonl", more='; filename="b.jsonl"'),
)


def sent(
    body: bytes, kind: str = KIND, mode: BodyMode = BodyMode.BUFFERED, path: str = "/form", **limits: int
) -> World:
    it = World(policy(paths={"/form": "generic"}), Limits(**limits), mode)
    return it.request(body, ("content-type", kind), path=path)


def texts(it: World) -> list[object]:
    return [message["content"] for message in it.asked[0].inputs[0].messages]


@pytest.mark.parametrize("mode", list(BodyMode))
def test_texts_of_a_form_are_judged(mode: BodyMode) -> None:
    it = sent(BODY, mode=mode)
    assert texts(it) == ["Ask Tom", "Who is Tom?"]
    it.judge()
    if mode is BodyMode.BUFFERED:
        assert it.upstream.buffered is not None
        assert it.upstream.buffered.body is None
    else:
        assert it.upstream.body == BODY


@pytest.mark.parametrize("mode", list(BodyMode))
def test_redaction_changes_the_texts_alone(mode: BodyMode) -> None:
    it = sent(BODY, mode=mode).judge(Anonymize(("Ask [N]", "Who is Tom?")))
    expected = BODY.replace(b"Ask Tom", b"Ask [N]")
    released = it.upstream.buffered.body if it.upstream.buffered is not None else it.upstream.body
    assert released == expected
    it = sent(BODY).judge(Anonymize(("Ask Tom", "Who is [N]?")))
    assert it.upstream.buffered is not None
    assert it.upstream.buffered.body == BODY.replace(b"is Tom", b"is [N]")
    assert ("content-length", str(len(BODY))) in it.upstream.buffered.set


@pytest.mark.parametrize("more", ["", '; filename="a.jsonl"', '; filename="a.txt"'])
@pytest.mark.parametrize("kind", ["application/json", "application/jsonl", "text/plain"])
def test_escapes_of_a_part_that_repeats_a_key_are_decoded(kind: str, more: str) -> None:
    body = form(part("input", b'{"q":"\\u0054om","q":""}', f"Content-Type: {kind}", more=more))
    it = sent(body)
    assert texts(it) == ['{"q":"Tom","q":""}']
    it.judge(Anonymize(('{"q":"[N]","q":""}',)))
    assert it.upstream.buffered is not None
    assert it.upstream.buffered.body == body.replace(b"\\u0054om", b"[N]")


def test_blocked_form_is_refused() -> None:
    assert sent(BODY).judge(Block("No.")).code == "content_policy_violation"


def test_name_of_a_file_is_judged_but_cannot_be_redacted() -> None:
    it = sent(form(part("image", PNG, more='; filename="Tom at home.png"')))
    assert texts(it) == ["Tom at home.png"]
    assert it.judge(Anonymize(("[N] at home.png",))).code == "redaction_failed"


LATIN = ("Content-Type: text/plain; charset=ISO-8859-1", "Content-Transfer-Encoding: 8bit")
CLIENTS = {
    "apache": (
        f"{KIND}; charset=ISO-8859-1",
        part(
            "image",
            PNG,
            "Content-Type: image/png",
            "Content-Transfer-Encoding: binary",
            more='; filename="caf\udce9.png"',
        ),
        part("prompt", b"Ask Tom", *LATIN),
        "caf\ufffd.png\ncafé.png",
    ),
    "cxf": (
        KIND,
        part("image", PNG, "Content-Type: image/png", "Content-ID: <image>", more="; filename=a.png"),
        part("prompt", b"Ask Tom", "Content-Type: text/plain", "Content-ID: <1.a@cxf.apache.org>"),
        None,
    ),
    "curl": (
        KIND,
        part("image", PNG, "Content-Type: image/png", more='; filename="a\\"b.png"'),
        part("prompt", b"Ask Tom"),
        'a"b.png',
    ),
    "browser": (
        KIND,
        part("image", PNG, "Content-Type: image/png", more='; filename="a%22b.png"'),
        part("prompt", b"Ask Tom"),
        None,
    ),
    ".net": (
        KIND,
        part("image", PNG, more="; filename=\"=?utf-8?B?w6k=?=\"; filename*=utf-8''%C3%A9.png"),
        part("prompt", b"Ask Tom"),
        "=?utf-8?B?w6k=?=\né.png",
    ),
}
"""Forms as clients write them: their type, an image, a prompt, and the name of the file if it is inspected."""


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("mode", list(BodyMode))
def test_forms_of_clients_are_read(client: str, mode: BodyMode) -> None:
    kind, image, prompt, name = CLIENTS[client]
    body = form(image, prompt)
    named = [] if name is None else [name]
    it = sent(body, kind, mode, "/v1/images/edits")
    assert texts(it) == [*named, "Ask Tom"]
    it.judge()
    assert (it.upstream.buffered.body or body if it.upstream.buffered is not None else it.upstream.body) == body
    it = sent(body, kind, mode, "/v1/images/edits").judge(Anonymize((*named, "Ask [N]")))
    released = it.upstream.buffered.body if it.upstream.buffered is not None else it.upstream.body
    assert released == body.replace(b"Tom", b"[N]")


@pytest.mark.parametrize(
    ("kind", "raw"),
    [
        (f"{KIND}; charset=utf-7", part("prompt", b"+AEEAcwBr-")),
        (f"{KIND}; boundary*0=abc", part("image", PNG + b"--abc\r\n" + part("prompt"), more="; filename=a.png")),
        (KIND, part("image", PNG, more="; filename=a.png; name*0=prompt")),
        (KIND, part("image", PNG, more='; filename="a.png; name=prompt"')),
        (KIND, part("prompt", b"\x01Ask Tom\xff", more="; filename*=utf-8''a.png")),
    ],
)
def test_form_with_a_text_that_only_some_servers_see_is_refused(kind: str, raw: bytes) -> None:
    assert sent(form(raw), kind, path="/v1/images/edits").code == "invalid_body"


@pytest.mark.parametrize("text", ["--xYz-1", "a\r\n--xYz-1\r\n"])
def test_redaction_with_the_boundary_fails(text: str) -> None:
    assert sent(form(part())).judge(Anonymize((text,))).code == "redaction_failed"


def test_form_of_media_asks_nothing() -> None:
    it = sent(form(part("image", PNG, more="; filename=a.png")))
    assert not it.asked
    assert it.upstream.buffered is not None


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (BODY[:-3], KIND),
        (b"x" + BODY, KIND),
        (BODY, "multipart/form-data"),
        (BODY, f"{KIND}, {KIND}"),
        (form(part("a", b"x", "Content-Transfer-Encoding: base64")), KIND),
    ],
)
def test_form_that_cannot_be_read_is_refused(body: bytes, kind: str) -> None:
    assert sent(body, kind).code == "invalid_body"


def test_form_with_too_many_values_is_refused() -> None:
    many = form(part("a", b'["x"' + b', "x"' * 500 + b"]", "Content-Type: application/json"))
    assert sent(many, values=100).code == "request_too_large"
    assert texts(sent(many, values=1000))


def test_form_on_the_path_of_an_api_without_forms_is_refused() -> None:
    assert sent(BODY, path="/v1/chat/completions").code == "invalid_body"


def test_form_on_an_unknown_path_passes() -> None:
    it = sent(BODY, path="/upload")
    assert not it.asked
    assert it.record.outcome == "unmatched"


OPTIONS = (
    part("model", b"gpt-image-1"),
    part("n", b"2"),
    part("size", b"1024x1024"),
    part("stream", b"true"),
    part("image[]", PNG, "Content-Type: image/png", more='; filename="a.png"'),
    part("mask", PNG, "Content-Type: image/png", more='; filename="b.png"'),
)


@pytest.mark.parametrize("path", ["/v1/images/edits", "/v1/videos", "/v1/videos/video_1/remix"])
@pytest.mark.parametrize("mode", list(BodyMode))
def test_prompt_beside_images_is_judged_and_redacted(path: str, mode: BodyMode) -> None:
    body = form(*OPTIONS, part("prompt", b"Draw Tom"))
    it = sent(body, path=path, mode=mode)
    assert texts(it) == ["Draw Tom"]
    assert it.record.dialect == "openai-images"
    it.judge(Anonymize(("Draw [N]",)))
    released = it.upstream.buffered.body if it.upstream.buffered is not None else it.upstream.body
    assert released == body.replace(b"Tom", b"[N]")


@pytest.mark.parametrize("path", ["/v1/images/edits", "/v1/images/variations"])
def test_form_of_images_without_a_prompt_asks_nothing(path: str) -> None:
    it = sent(form(*OPTIONS), path=path)
    assert not it.asked
    assert it.record.outcome == "allowed"


def test_form_of_another_api_passes_on_a_path_of_several() -> None:
    it = sent(form(part("title", b"Tom"), part("video", PNG, more="; filename=a.mp4")), path="/v1/videos")
    assert not it.asked
    assert it.record.outcome == "unmatched"
    assert it.upstream.buffered is not None


@pytest.mark.parametrize("name", ["prompt", "Prompt", "prompt[]", "prompt[text]"])
def test_name_of_a_field_chooses_in_every_spelling(name: str) -> None:
    it = sent(form(part(name, b"Draw Tom")), path="/v1/videos")
    assert it.record.code == "invalid_body" if name == "Prompt" else texts(it) == ["Draw Tom"]


@pytest.mark.parametrize("body", [form(part("prompt"))[:-9], form(part("title"), end=b"x")])
def test_form_that_cannot_be_read_is_refused_on_a_path_of_several(body: bytes) -> None:
    assert sent(body, path="/v1/videos").code == "invalid_body"


def test_body_of_json_that_is_called_a_form_is_chosen_by_its_keys() -> None:
    assert sent(b'{"title": "Tom"}', path="/v1/videos").record.outcome == "unmatched"
    assert sent(b"", path="/v1/videos").record.outcome == "unmatched"


def test_form_passes_where_no_api_of_the_path_takes_forms() -> None:
    assert sent(BODY, path="/invocations").record.outcome == "unmatched"


def test_json_file_may_be_lines() -> None:
    it = sent(
        form(part("a", b'{"q": "Tom"}\n{"q": "Eve"}', "Content-Type: application/json", more="; filename=a.json"))
    )
    assert texts(it) == ["Tom", "Eve"]
