"""Blocks as answers (`refusal: {as: answer}`): which of them become one, in which form, and what else does not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from extproc.core.content.framing import Framing, decoder_of
from extproc.core.dry_run import DryRun
from extproc.core.errors import Reason
from extproc.core.events import HeadersReceived
from extproc.core.policy import Limits, Policy
from extproc.core.verdict import Anonymize, Block, Failed
from extproc.core.vocabulary import Leg
from tests.envoy import apis, bedrock_apis, other_apis
from tests.envoy.apis import CHAT, GEMINI, RESPONSES, Api
from tests.fakes.aws import event as frame_of
from tests.fakes.planted import Recording, own, units_of
from tests.fakes.world import World, policy

POLICY = policy(answers_blocks=True)
BLOCK = Block("Not that.")

ANSWERING: tuple[Api, ...] = (
    *apis.WITH_ANSWERS,
    *(api for api in other_apis.WITH_ANSWERS if api.name != "threads"),
    bedrock_apis.CONVERSE,
    bedrock_apis.CLAUDE,
)
REFUSING: tuple[Api, ...] = (
    *(api for api in other_apis.WITH_ANSWERS if api.name == "threads"),
    *other_apis.REQUESTS_ALONE,
    apis.IMAGES,
    apis.SPEECH,
    apis.RERANK,
    bedrock_apis.INVOKE,
    bedrock_apis.COUNT_TOKENS,
)
STREAMS = [each for each in own() if each.is_stream and each.dialect.block_answer(each.path)]
each_stream = pytest.mark.parametrize("recording", STREAMS, ids=lambda each: each.name)
each_api = pytest.mark.parametrize("api", ANSWERING, ids=lambda api: api.name)


def ask(api: Api, *, stream: bool = False, on: Policy = POLICY) -> World:
    """Return an exchange that waits for the verdict of its request, or for its answer."""
    body = api.request("Hello", stream=stream)
    return World(on).request(body, ("content-type", "application/json"), path=api.path_of(stream=stream))


def framing_of(content_type: str, body: bytes) -> Framing:
    return {
        "text/event-stream": Framing.EVENT_STREAM,
        "application/x-ndjson": Framing.JSON_LINES,
        "application/stream+json": Framing.JSON_LINES,
        "application/vnd.amazon.eventstream": Framing.AWS_EVENT_STREAM,
    }.get(content_type, Framing.JSON_ARRAY if body.startswith(b"[") else Framing.WHOLE)


def values_of(content_type: str, body: bytes) -> list[Any]:
    """Return the documents of a body."""
    framing = framing_of(content_type, body)
    if framing is Framing.WHOLE:
        return [json.loads(body)]
    decoder = decoder_of(framing, 2**24)
    units = [*decoder.feed(body), *decoder.finish()]
    return [json.loads(unit.data) for unit in units if unit.data and unit.data.strip() != "[DONE]"]


def replied(it: World) -> tuple[str, list[Any]]:
    """Return the content type and the documents of an immediate response, which must be an answer."""
    assert it.reply is not None
    assert it.reply.status == 200
    assert it.reply.details == "aim_content_policy_violation"
    assert it.record.outcome == "blocked"
    headers = dict(it.reply.headers)
    assert headers.keys() == {"content-type", "x-aim-call-id"}
    return headers["content-type"], values_of(headers["content-type"], it.reply.body)


@each_api
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_blocked_request_is_answered_in_the_form_that_it_asks_for(api: Api, stream: bool) -> None:
    content_type, values = replied(ask(api, stream=stream).judge(BLOCK))
    usual = {"application/stream+json": "application/x-ndjson"}.get(api.stream_type, api.stream_type)
    if api.name not in ("cohere v1 in events", "tgi in lines"):  # what a proxy makes of the API's own form
        assert content_type == (usual if stream else "application/json")
    assert '"Not that.' in json.dumps(values).replace('\\"', '"')
    assert framing_of(content_type, b"") is not Framing.WHOLE or len(values) == 1


@each_api
def test_blocked_answer_is_replaced_by_another(api: Api) -> None:
    it = ask(api).judge().head("application/json").body(api.answer("a secret"), end=True).judge(BLOCK)
    _, (value,) = replied(it)
    assert "Not that." in json.dumps(value)
    assert "secret" not in json.dumps(value)


@each_api
def test_blocked_beginning_of_a_stream_is_replaced_in_its_framing(api: Api) -> None:
    it = ask(api, stream=True).judge().head(api.stream_type).body(api.stream("a secret")).block("Not that.")
    _, values = replied(it)
    assert it.reply is not None
    assert framing_of(dict(it.reply.headers)["content-type"], it.reply.body) is framing_of(api.stream_type, b"")
    assert "Not that." in json.dumps(values)
    assert "secret" not in json.dumps(values)


@each_api
def test_running_stream_ends_in_good_order(api: Api) -> None:
    events = api.events("One", " two", " secret")
    it = ask(api, stream=True).judge().head(api.stream_type).body(b"".join(events[: api.head + 2]))
    it.verify_all().body(b"".join(events[api.head + 2 :])).block("Not that.")
    body = it.response.body
    assert body.startswith(b"".join(events[: api.head + 2]))
    assert it.response.is_ended
    assert (it.record.outcome, it.record.code) == ("blocked", "content_policy_violation")
    said = json.dumps(values_of(api.stream_type, body))
    assert "Not that." in said
    assert "secret" not in said
    assert it.held == 0
    assert it.is_closed


@each_stream
def test_recorded_stream_ends_with_the_message_wherever_it_is_cut(recording: Recording) -> None:
    """The released bytes are the upstream's own, then documents of the API; nothing of the rest leaves."""
    units = units_of(recording.body)
    for cut in range(1, len(units)):
        it = _of(recording).judge().head(recording.content_type)
        it.body(b"".join(unit.raw for unit in units[:cut])).verify_all()
        before = it.response.body
        it.body(b"".join(unit.raw for unit in units[cut:]))
        if it.session is None or not it.chunks or it.response.is_ended:
            continue
        it.block("Not that.")
        if it.reply is not None:
            replied(it)
            continue
        assert it.response.body.startswith(before)
        assert it.response.is_ended
        assert "Not that." in json.dumps(values_of(recording.content_type, it.response.body))


def _of(recording: Recording) -> World:
    return World(POLICY).request(recording.request, ("content-type", "application/json"), path=recording.path)


# -- what stays an error -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("api", REFUSING, ids=lambda api: api.name)
def test_api_without_an_answer_of_text_gets_the_error(api: Api) -> None:
    it = ask(api).judge(BLOCK)
    assert it.status == 400
    assert it.reply is not None
    assert api.message_in(json.loads(it.reply.body)) == "Not that."


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/responses/compact", RESPONSES.request("Hello")),
        ("/v1/responses/input_tokens", RESPONSES.request("Hello")),
        ("/v1/conversations/c1/items", b'{"items": [{"role": "user", "content": "Hello"}]}'),
        ("/v1/messages/count_tokens", apis.ANTHROPIC.request("Hello")),
        ("/v1/agents", b'{"instructions": "Hello"}'),
        ("/v1/agents/a1", b'{"instructions": "Hello"}'),
        ("/unknown", b'{"text": "Hello"}'),
        ("/v1beta/models/m:countTokens", b'{"contents": "Hello"}'),
    ],
)
def test_path_without_an_answer_of_text_gets_the_error(path: str, body: bytes) -> None:
    method = "PATCH" if path.endswith("/a1") else "POST"
    on = policy(answers_blocks=True, inspect=("embeddings",))
    it = World(on).request(body, ("content-type", "application/json"), path=path, method=method).judge(BLOCK)
    assert it.status == 400


def test_stored_answer_gets_the_error() -> None:
    it = World(POLICY).request(None, path="/v1/responses/resp_1", method="GET").head("application/json")
    assert it.body(RESPONSES.answer("a secret"), end=True).judge(BLOCK).status == 400


def test_error_answer_gets_the_error() -> None:
    it = ask(CHAT).judge().head("application/json", "404", ("content-length", "40"))
    it.body(b'{"error": {"message": "a secret"}}      ', end=True).judge(BLOCK)
    assert it.reply is None
    assert json.loads(it.response.body)["error"]["code"] == "content_policy_violation"


def test_failure_stays_an_error() -> None:
    assert ask(CHAT).judge(Failed(Reason.TIMEOUT)).status == 503
    assert ask(CHAT, on=policy(hooks=["moderation"], answers_blocks=True)).judge(Anonymize(("x",))).status == 400
    it = ask(CHAT, stream=True).judge().head().body(b"".join(CHAT.events("One", " two")[:2])).verify_all()
    it.body(b"".join(CHAT.events("One", " two")[2:])).lose()
    assert json.loads(it.response.body.split(b"data: ")[-2])["error"]["code"] == "guardrail_unavailable"


def test_block_is_an_error_unless_the_settings_say_otherwise() -> None:
    assert ask(CHAT, on=policy()).judge(BLOCK).status == 400
    it = ask(CHAT, stream=True, on=policy()).judge().head().body(CHAT.stream("One", " two"))
    it.verify("One").block()
    assert b'"error"' in it.response.body


# -- in which form -----------------------------------------------------------------------------------------------------


def test_model_and_time_are_those_of_the_request() -> None:
    it = World(POLICY)
    it.exchange = type(it.exchange)("call-1", POLICY, Limits(), began=1_700_000_000)
    it.request(CHAT.request("Hello"), path=CHAT.path).judge(BLOCK)
    _, (value,) = replied(it)
    assert (value["id"], value["created"], value["model"]) == ("chatcmpl-call-1", 1_700_000_000, "m")


@pytest.mark.parametrize(
    ("path", "content_type"),
    [
        ("/v1beta/models/m:streamGenerateContent", "application/json"),
        ("/v1beta/models/m:streamGenerateContent?key=k&alt=sse", "text/event-stream"),
        ("/v1beta/models/m:streamGenerateContent?$alt=sse", "text/event-stream"),
        ("/v1beta/models/m:streamGenerateContent?alt=json", "application/json"),
    ],
)
def test_query_decides_how_gemini_streams(path: str, content_type: str) -> None:
    it = World(POLICY).request(GEMINI.request("Hello"), path=path).judge(BLOCK)
    found, (value,) = replied(it)
    assert found == content_type
    assert value["candidates"][0]["finishReason"] == "SAFETY"


def test_array_goes_on() -> None:
    path = "/v1beta/models/m:streamGenerateContent"
    it = World(POLICY).request(GEMINI.request("Hello"), path=path).judge().head("application/json")
    it.body(b"[" + GEMINI.answer("Hi")).verify_all().body(b",\n" + GEMINI.answer(" secret") + b"]").block("Not that.")
    first, second = json.loads(it.response.body)
    assert first == json.loads(GEMINI.answer("Hi"))
    assert second["candidates"][0]["content"]["parts"] == [{"text": "Not that."}]


def test_sagemaker_streams_in_parts() -> None:
    path = "/endpoints/m/invocations-response-stream"
    it = World(POLICY).request(CHAT.request("Hello", stream=True), path=path).judge(BLOCK)
    content_type, values = replied(it)
    assert content_type == "application/vnd.amazon.eventstream"
    assert values[0]["choices"][0]["delta"]["content"] == "Not that."


@pytest.mark.parametrize("lines", [False, True], ids=["events", "lines"])
def test_parts_of_sagemaker_go_on_in_their_framing(lines: bool) -> None:
    path = "/endpoints/m/invocations-response-stream"
    api: Any = next(each for each in other_apis.WITH_ANSWERS if each.name == ("tgi in lines" if lines else "tgi"))
    parts = [frame_of("PayloadPart", each) for each in api.events("Hi", " secret")]
    it = World(POLICY).request(b'{"inputs": "Hello", "stream": true}', path=path).judge()
    it.head("application/vnd.amazon.eventstream").body(parts[0]).verify_all().body(b"".join(parts[1:])).block()
    values = values_of("application/vnd.amazon.eventstream", it.response.body)
    assert [value["token"]["text"] for value in values] == ["Hi", "Not that."]
    assert values[-1]["generated_text"] == "HiNot that."


def test_ping_may_precede_the_answer() -> None:
    on = policy(answers_blocks=True, stream_ping_seconds=1, stream_head_seconds=1)
    it = ask(CHAT, stream=True, on=on).judge().head().body(b"".join(CHAT.events("a secret")[1:2])).wait(3)
    assert it.response.body.startswith(b": ping")
    it.block("Not that.")
    values = values_of("text/event-stream", it.response.body)
    assert values[0]["choices"][0]["delta"] == {"role": "assistant", "content": "Not that."}


def test_redacted_text_is_what_the_last_event_repeats() -> None:
    it = ask(RESPONSES, stream=True).judge().head()
    events = RESPONSES.events("Jane", " and more")
    it.body(b"".join(events[:4]))
    chunk = it.chunks.pop()
    chunk["choices"][0]["delta"]["content"] = "[NAME_1]"
    it.verify_chunk(chunk).body(events[4]).block("Not that.")
    assert b"Jane" not in it.response.body
    last = values_of("text/event-stream", it.response.body)[-1]
    assert last["response"]["output"][0]["content"][0]["text"] == "[NAME_1]"


def test_late_block_of_the_request_is_answered_as_the_request_asks() -> None:
    on = policy(hooks=["moderation"], answers_blocks=True)
    it = ask(CHAT, stream=True, on=on).head().body(CHAT.stream("Hi"), end=True).judge(BLOCK)
    assert replied(it)[0] == "text/event-stream"
    it = ask(CHAT, on=on).head("application/json", "503").judge(BLOCK)
    assert replied(it)[0] == "application/json"


def test_trailers_follow_the_answer() -> None:
    it = ask(CHAT, stream=True).judge().head().body(b"".join(CHAT.events("One", " two")[:2])).verify_all()
    it.body(b"".join(CHAT.events("One", " two")[2:])).trailers().block("Not that.")
    assert it.response.is_ended
    assert b"content_filter" in it.response.body


def test_kept_texts_count_as_held_until_the_stream_ends() -> None:
    events = RESPONSES.events("One", " two")
    it, without = (ask(RESPONSES, stream=True, on=on).judge().head() for on in (POLICY, policy()))
    for each in (it, without):
        each.body(b"".join(events[:4])).verify_all()
    assert it.held > without.held
    it.body(b"".join(events[4:]), end=True).verify_all().done()
    assert it.is_complete
    assert it.held == 0


def test_dry_run_knows_its_time() -> None:
    dry = DryRun("call-1", POLICY, Limits(), began=7)
    assert dry.handle(HeadersReceived(Leg.REQUEST, ((":method", "GET"), (":path", "/"))), 0.0)
