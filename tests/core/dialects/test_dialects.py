"""The choice of a dialect for any spelling of a path, and the parts of all dialects."""

from __future__ import annotations

import pytest

from extproc.core.content.document import MAX_DEPTH, Document
from extproc.core.dialects.base import Dialect, running
from extproc.core.dialects.paths import DEFAULT, NAMES, _recall, normalise, pick
from extproc.core.dialects.rules import COMMON, Table
from extproc.core.refusal import OVERLOADED, blocked

# -- paths -------------------------------------------------------------------------------------------------------

SPELLINGS = [
    "/v1/chat/completions",
    "/v1/chat/completions/",
    "/v1/chat/completions///",
    "//v1//chat/completions",
    "///v1/chat//completions",
    "v1/chat/completions",
    "/V1/Chat/COMPLETIONS",
    "/v1/chat/completions?a=b",
    "/v1/chat/completions?",
    "/v1/chat/completions?x=/../..",
    "/v1/chat/completions/?a=b",
    "/v1/chat/completions#x",
    "/v1/chat/completions#x?y",
    "/v1/chat/completions?x#/y",
    "/v1/x/../chat/completions",
    "/v1/x/y/../../chat/completions",
    "/v1/./chat/./completions/.",
    "/../../v1/chat/completions",
    "/v1/x/%2e%2e/chat/completions",
    "/v1/x/%2E./chat/completions",
    "/v1/%2e/chat/completions",
    "/v1/chat%2Fcompletions",
    "/v1/chat%2fcompletions",
    "%2Fv1%2Fchat%2Fcompletions",
    "/v1/c%68at/completions",
    "/v1/chat/completions%2F",
    "/v1\\chat\\completions",
    "/v1/chat\\/completions\\",
    "/v1/chat%5Ccompletions",
    "/v1/x\\..\\chat/completions",
    "/v1/chat/completions;a=b",
    "/v1/chat/completions;",
    "/v1;x/chat;y=z/completions;a=b;c",
    "/v1/chat/completions%3Ba=b",
    "/v1/x/..;/chat/completions",
    "/v1/;/chat/completions",
    "/v1/chat/completions%20",
    "/v1/chat/completions ",
    "/v1/chat/completions%09",
    "/v1/chat/completions%0d%0A",
    "/v1/chat/completions%00",
    "/v1/chat/completions%00/",
    "/v1/chat%20/completions",
    "/v1/chat/completions%20;a=b",
    "/v1/x/..%20/chat/completions",
]


@pytest.mark.parametrize("path", SPELLINGS)
def test_spellings_of_one_path_have_the_same_dialect(path: str) -> None:
    assert normalise(path) == "/v1/chat/completions"
    found = pick("POST", path, {})
    assert found is not None
    assert found.name == "openai-chat"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("", "/"),
        ("/", "/"),
        ("*", "/*"),
        ("?x", "/"),
        ("#/v1/chat/completions", "/"),
        ("/..", "/"),
        ("/a/..", "/"),
        ("/a/../..//b", "/b"),
        ("/a/b/..", "/a"),
        ("/...", "/..."),
        ("/a/..b/c..", "/a/..b/c.."),
        ("/%252F", "/%2f"),
        ("/%252e%252e/a", "/%2e%2e/a"),
        ("/a%3Fb", "/a?b"),
        ("/a%23b", "/a#b"),
        ("/a%", "/a%"),
        ("/a%zz", "/a%zz"),
        ("/%C3%89", "/\u00e9"),
        ("/%ff", "/\ufffd"),
        ("/a+b", "/a+b"),
        ("/a%20b", "/a b"),
        ("/;a", "/"),
        ("/v1beta/models/Gemini:streamGenerateContent", "/v1beta/models/gemini:streamgeneratecontent"),
    ],
)
def test_path_is_normalised(path: str, expected: str) -> None:
    assert normalise(path) == expected


def test_normalised_path_without_escapes_stays_the_same() -> None:
    for path in SPELLINGS:
        assert normalise(normalise(path)) == normalise(path)


@pytest.mark.parametrize(
    "path",
    [
        "/chat/completions",
        "/api/v1/chat/completions",
        "/openai/deployments/gpt-4o/chat/completions?api-version=2024-06-01",
        "/openai/deployments/my%2Fdeployment/chat/completions",
        "/v1beta/openai/chat/completions",
        "/a/very/long/prefix/chat/completions",
        "/compatible-mode/v1/chat/completions",
    ],
)
def test_path_may_have_any_prefix(path: str) -> None:
    found = pick("POST", path, {})
    assert found is NAMES["openai-chat"]


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/v1/models",
        "/v1/chat",
        "/v1/chat/completions/x",
        "/v1/chat/completions/chatcmpl-1/messages",
        "/v1/chat/completionsx",
        "/v1/chat/completions.json",
        "/v1/xchat/x",
        "/v1/chat/completions/../models",
        "/v1/chat/completions%252F..",
        "/v1/models?path=/chat/completions",
        "/v1/models#/chat/completions",
    ],
)
def test_other_paths_have_no_dialect(path: str) -> None:
    assert pick("POST", path, {}) is None


def test_longer_name_is_not_chat() -> None:
    assert pick("POST", "/v1/notchat/completions", {}) is not NAMES["openai-chat"]


@pytest.mark.parametrize("method", ["GET", "PUT", "HEAD", "OPTIONS", "DELETE", "PATCH", "", "POSTS", "CONNECT"])
def test_other_methods_have_no_dialect(method: str) -> None:
    assert pick(method, "/v1/chat/completions", {}) is None
    assert pick(method, "/llm/x", {"/llm/*": "openai-chat"}) is None


@pytest.mark.parametrize("method", ["POST", "post", "Post"])
def test_method_post_is_known_in_any_letter_case(method: str) -> None:
    assert pick(method, "/v1/chat/completions", {}) is NAMES["openai-chat"]


def test_paths_of_the_settings_have_their_dialect() -> None:
    chat = NAMES["openai-chat"]
    for path in ("/llm/x", "/LLM//x/y", "/a/../llm/%78", "/llm/x?y", "/llm/x/"):
        assert pick("POST", path, {"/llm/*": "openai-chat"}) is chat
    for path in ("/llm", "/llm/", "/x/llm/y", "/llmx/y"):
        assert pick("POST", path, {"/llm/*": "openai-chat"}) is None
    assert pick("POST", "/exact", {"/EXACT": "openai-chat"}) is chat
    assert pick("POST", "/v1/chat/completions", {"/llm/*": "openai-chat"}) is chat


def test_paths_of_the_settings_take_precedence_in_their_order() -> None:
    other = next(name for name in NAMES if name != "openai-chat")
    path = "/v1/chat/completions"
    assert pick("POST", path, {"*": other}) is NAMES[other]
    assert pick("POST", path, {"*/completions": other, "*": "openai-chat"}) is NAMES[other]
    assert pick("POST", path, {"*": "openai-chat", "*/completions": other}) is NAMES["openai-chat"]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/files", "/v1/chat/completions" + "/." * 400])
def test_path_is_cached_without_its_query(path: str) -> None:
    _recall.cache_clear()
    for query in ("", "?key=SECRET", "#SECRET", "?other=SECRET"):
        assert pick("POST", path + query, {}) is pick("POST", path, {})
    assert _recall.cache_info().currsize == (len(path) < 512)


def test_dialects_are_found_by_their_names() -> None:
    assert DEFAULT is NAMES["openai-chat"]
    assert all(dialect.name == name for name, dialect in NAMES.items())


# -- what is not said otherwise is as in OpenAI's APIs --------------------------------------------------------------


class Plain(Dialect):
    name = "plain"
    request = answer = event = Table(*COMMON)


def test_defaults_of_a_dialect() -> None:
    document = Document('{"choices":[{"delta":{"content":"a"}}]}')
    assert not Plain().is_submitted_whole(document)
    assert Plain().opt_in is None
    assert Plain.clients_skip_comments
    assert not Plain.is_repetitive
    assert not Plain.answers_media
    (leaf,) = Plain().deltas(document)
    assert (leaf.place, leaf.index) == (("choices", 0, "delta", "content"), None)


@pytest.mark.parametrize(
    ("text", "streams"),
    [
        ('{"stream":true}', True),
        *((f'{{"stream":{odd}}}', False) for odd in ("false", '"true"', "1", "null", "[true]", "{}")),
        *((text, False) for text in ("{}", "[true]", '"stream"', "null")),
    ],
)
def test_field_stream_asks_for_a_stream(text: str, streams: bool) -> None:
    assert Plain().streams(Document(text), "/v1/chat/completions") is streams


@pytest.mark.parametrize("data", ["[DONE]", " [DONE]", "[DONE]\n"])
def test_done_mark_ends_a_stream(data: str) -> None:
    assert Plain().is_final(data, None)


@pytest.mark.parametrize("data", ["", "{}", "[done]", '"[DONE]"', "[DONE][DONE]"])
def test_other_data_does_not_end_a_stream(data: str) -> None:
    assert not Plain().is_final(data, None)


def test_parsed_event_does_not_end_a_stream() -> None:
    assert not Plain().is_final("[1]", Document("[1]"))


def test_refusal_has_these_exact_bytes() -> None:
    body = (
        b'{"error": {"message": "said \\"no\\" \\u00e9", "type": "invalid_request_error", "param": null, '
        b'"code": "content_policy_violation"}}'
    )
    refusal = blocked('said "no" é')
    assert Plain().refuse(refusal) == body
    assert Plain().refuse_stream(refusal, 7) == b"data: " + body + b"\n\ndata: [DONE]\n\n"


def test_message_of_a_refusal_cannot_break_out_of_its_event() -> None:
    events = Plain().refuse_stream(blocked("a\r\n\r\ndata: b\n\n"), 0)
    assert len(events.split(b"\n\n")) == 3
    assert b"\r" not in events


def test_failure_has_these_exact_bytes() -> None:
    assert Plain().refuse(OVERLOADED) == (
        b'{"error": {"message": "The AI security guardrail is overloaded.", "type": "api_error", "param": null, '
        b'"code": "guardrail_overloaded"}}'
    )


# -- running texts -----------------------------------------------------------------------------------------------


def test_entries_of_a_list_are_identified_by_their_own_index() -> None:
    root = {"a": [{"index": 7, "b": ["x"]}, {"index": "z", "b": "x"}, {"index": [1], "b": "x"}, {"b": "x"}]}
    assert [running(root, ("a", number, "b")) for number in range(4)] == [
        ("a", 7, "b"),
        ("a", "z", "b"),
        ("a", 2, "b"),
        ("a", 3, "b"),
    ]
    assert running(root, ("a", 0, "b", 0)) == ("a", 7, "b", 0)


@pytest.mark.parametrize("dialect", NAMES.values(), ids=NAMES)
def test_deepest_document_is_read(dialect: Dialect) -> None:
    depth = MAX_DEPTH - 1
    document = Document('{"a":' * depth + '{"note":"hi"}' + "}" * depth)
    assert [leaf.text for leaf in dialect.answers(document)] == ["hi"]
    assert [leaf.text for leaf in dialect.deltas(document)] == ["hi"]
    assert [prompt.message["content"] for prompt in dialect.prompts(document, tools=False)] == ["hi"]


@pytest.mark.parametrize("dialect", NAMES.values(), ids=NAMES)
def test_key_that_is_a_sentence_is_read(dialect: Dialect) -> None:
    document = Document('{"my password is hi":1}')
    (leaf,) = dialect.answers(document, locates=True)
    assert (leaf.text, leaf.fixed) == ("my password is hi", True)
