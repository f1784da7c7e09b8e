"""AWS's SDK through Envoy and the sidecar, with signatures that the model verifies.

The client gets the same objects as without them, and exceptions that its users know. Anthropic's client for Bedrock,
which signs as well, is tested with it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from typing import Any

import pytest

from tests.conformance import models
from tests.conformance.harness import MESSAGE, blocks_answers, blocks_requests, is_down, same_with_and_without
from tests.envoy.case import redacts
from tests.fakes.envoy import needs_envoy
from tests.fakes.rig import Rig, rig

boto3 = pytest.importorskip("boto3", reason="no boto3 here")
exceptions = pytest.importorskip("botocore.exceptions")
config = pytest.importorskip("botocore.config")

pytestmark = [*needs_envoy, pytest.mark.asyncio(loop_scope="package")]

_MODEL = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/ab12"
_HELLO: Any = [{"role": "user", "content": [{"text": "Hello"}]}]
_TOOLS: Any = {
    "tools": [{"toolSpec": {"name": "weather", "inputSchema": {"json": {"type": "object", "properties": {}}}}}]
}
_CLAUDE = json.dumps(
    {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 64, "messages": [{"role": "user", "content": "Hello"}]}
)
_LLAMA = json.dumps({"prompt": "Hello"})


@asynccontextmanager
async def client(url: str, service: str = "bedrock-runtime") -> AsyncIterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_PROXY", "127.0.0.1")
        patch.delenv("AWS_BEARER_TOKEN_BEDROCK", raising=False)
        opened = boto3.session.Session().client(
            service,
            region_name="us-east-1",
            endpoint_url=url,
            aws_access_key_id="AKIDEXAMPLE",
            aws_secret_access_key=models.AWS_SECRET,
            config=config.Config(retries={"total_max_attempts": 1}),
        )
        yield opened
        opened.close()


@pytest.fixture(autouse=True)
def _model(chain: Rig) -> None:
    chain.upstream.answer = models.bedrock


def _plain(answer: Any) -> Any:
    return {key: value for key, value in answer.items() if key != "ResponseMetadata"}


def _converse(client: Any, messages: Any = _HELLO, **more: Any) -> Any:
    return _plain(client.converse(modelId=_MODEL, messages=messages, **more))


def _converse_stream(client: Any, messages: Any = _HELLO, **more: Any) -> list[Any]:
    with closing(client.converse_stream(modelId=_MODEL, messages=messages, **more)["stream"]) as stream:
        return list(stream)


def _invoke(client: Any, body: str) -> Any:
    return json.loads(client.invoke_model(modelId=_MODEL, body=body)["body"].read())


def _invoke_stream(client: Any, body: str) -> list[Any]:
    with closing(client.invoke_model_with_response_stream(modelId=_MODEL, body=body)["body"]) as stream:
        return [json.loads(event["chunk"]["bytes"]) for event in stream]


async def _talk(client: Any) -> list[Any]:
    """Ask, call a tool, tell its result, whole and streamed; then invoke two models; then count."""

    def talk() -> list[Any]:
        asked = _converse(client, system=[{"text": "Be kind."}], toolConfig=_TOOLS)
        result = {"toolResult": {"toolUseId": "tooluse_1", "content": [{"json": {"sky": "rain"}}]}}
        said = [*_HELLO, asked["output"]["message"], {"role": "user", "content": [result]}]
        return [
            asked,
            _converse(client, said, toolConfig=_TOOLS),
            _converse_stream(client, said, toolConfig=_TOOLS),
            _converse_stream(client, toolConfig=_TOOLS),
            *(_invoke(client, body) for body in (_CLAUDE, _LLAMA)),
            *(_invoke_stream(client, body) for body in (_CLAUDE, _LLAMA)),
            _plain(client.count_tokens(modelId=_MODEL, input={"converse": {"messages": _HELLO}})),
            _plain(client.count_tokens(modelId=_MODEL, input={"invokeModel": {"body": _CLAUDE.encode()}})),
        ]

    return await asyncio.to_thread(talk)


async def test_answers_are_the_same(chain: Rig, guarded: Any, direct: Any) -> None:
    called, told, streamed, calls, claude, llama, *_, count, _ = await same_with_and_without(_talk, guarded, direct)
    assert called["output"]["message"]["content"][0]["toolUse"]["input"] == {"city": "Oslo"}
    assert told["output"]["message"]["content"] == [{"text": "It rains in Oslo."}]
    deltas = [event["contentBlockDelta"]["delta"] for event in streamed if "contentBlockDelta" in event]
    assert [delta["text"] for delta in deltas] == ["It ", "rains in", " Oslo."]
    inputs = [
        event["contentBlockDelta"]["delta"]["toolUse"]["input"] for event in calls if "contentBlockDelta" in event
    ]
    assert json.loads("".join(inputs)) == {"city": "Oslo"}
    assert claude["content"][0]["text"] == llama["generation"] == "It rains in Oslo."
    assert count == {"inputTokens": 11}
    assert len(chain.aim.asked("pre_call")) == 10
    assert len([session for session in chain.aim.sessions if session.is_done]) == 4


def _say(text: str) -> Any:
    return [{"role": "user", "content": [{"text": text}]}]


_CALLS: Any = {
    "converse": lambda client, text: _converse(client, _say(text)),
    "converse_stream": lambda client, text: _converse_stream(client, _say(text)),
    "invoke_model": lambda client, text: _invoke(client, json.dumps({"prompt": text})),
    "invoke_model of claude": lambda client, text: _invoke(client, _CLAUDE.replace("Hello", text)),
    "invoke_model_with_response_stream": lambda client, text: _invoke_stream(client, json.dumps({"prompt": text})),
    "count_tokens": lambda client, text: client.count_tokens(
        modelId=_MODEL, input={"converse": {"messages": _say(text)}}
    ),
}
_each_call = pytest.mark.parametrize("call", _CALLS.values(), ids=_CALLS)


@_each_call
async def test_blocked_request(chain: Rig, guarded: Any, call: Any) -> None:
    blocks_requests(chain)
    with pytest.raises(guarded.exceptions.ValidationException) as caught:
        await asyncio.to_thread(call, guarded, "the secret")
    response = caught.value.response
    assert response["Error"] == {"Message": MESSAGE, "Code": "ValidationException"}
    assert response["ResponseMetadata"]["HTTPStatusCode"] == 400
    assert response["ResponseMetadata"]["HTTPHeaders"]["x-aim-call-id"]
    assert chain.upstream.requests == []


@_each_call
async def test_aim_is_down(chain: Rig, guarded: Any, call: Any) -> None:
    is_down(chain)
    with pytest.raises(guarded.exceptions.ServiceUnavailableException):
        await asyncio.to_thread(call, guarded, "Hello")


@pytest.mark.parametrize("call", [_CALLS[name] for name in ("converse", "invoke_model", "invoke_model of claude")])
async def test_blocked_answer(chain: Rig, guarded: Any, call: Any) -> None:
    blocks_answers(chain)
    with pytest.raises(guarded.exceptions.ValidationException, match=MESSAGE):
        await asyncio.to_thread(call, guarded, "Hello")


@pytest.mark.parametrize(
    ("operation", "arguments", "key"),
    [
        ("converse_stream", {"messages": _HELLO}, "stream"),
        ("invoke_model_with_response_stream", {"body": _LLAMA}, "body"),
        ("invoke_model_with_response_stream", {"body": _CLAUDE}, "body"),
    ],
)
async def test_block_in_mid_stream(chain: Rig, guarded: Any, operation: str, arguments: Any, key: str) -> None:
    blocks_answers(chain)
    got: list[Any] = []

    def read() -> None:
        with closing(getattr(guarded, operation)(modelId=_MODEL, **arguments)[key]) as stream:
            got.extend(stream)

    with pytest.raises(exceptions.EventStreamError, match=r"\(validationException\).*: Not that\."):
        await asyncio.to_thread(read)
    assert got != []
    assert "rains" not in str(got)


async def test_redactions_of_signed_exchanges() -> None:
    async with rig(aim={"api": "firewall"}) as chain, client(chain.envoy.url) as guarded:
        chain.upstream.answer = models.bedrock
        redacts("Tom", "[NAME]")(chain.aim)
        for call in _CALLS.values():
            with pytest.raises(guarded.exceptions.ValidationException, match="could not be redacted"):
                await asyncio.to_thread(call, guarded, "I am Tom")
        assert chain.upstream.requests == []
        redacts("Oslo", "[CITY]")(chain.aim)
        answer = await asyncio.to_thread(_converse, guarded)
        assert answer["output"]["message"]["content"] == [{"text": "It rains in [CITY]."}]
        events = await asyncio.to_thread(_converse_stream, guarded)
        deltas = [event["contentBlockDelta"]["delta"]["text"] for event in events if "contentBlockDelta" in event]
        assert deltas == ["It ", "rains in", " [CITY]."]


# -- agents, knowledge bases, flows and guardrails ---------------------------------------------------------------------

_AGENT: Any = {"agentId": "AB12", "agentAliasId": "TSTALIASID", "sessionId": "s-1"}
_FLOW: Any = {"flowIdentifier": "ABCDEFGHIJ", "flowAliasIdentifier": "ABCDEFGHIJ"}


def _events(answer: Any, key: str) -> list[Any]:
    with closing(answer[key]) as stream:
        return list(stream)


def _ask_agent(client: Any, text: str) -> list[Any]:
    return _events(client.invoke_agent(**_AGENT, inputText=text), "completion")


def _ask_base(client: Any, text: str) -> list[Any]:
    return _events(client.retrieve_and_generate_stream(input={"text": text}), "stream")


def _ask_flow(client: Any, text: str) -> list[Any]:
    inputs = [{"content": {"document": text}, "nodeName": "FlowInputNode", "nodeOutputName": "document"}]
    return _events(client.invoke_flow(**_FLOW, inputs=inputs), "responseStream")


_STREAMS: Any = {"agent": _ask_agent, "knowledge base": _ask_base, "flow": _ask_flow}
_WHOLE: Any = {
    "retrieve": lambda client, text: client.retrieve(knowledgeBaseId="ABCDEFGHIJ", retrievalQuery={"text": text}),
    "retrieve and generate": lambda client, text: client.retrieve_and_generate(input={"text": text}),
}


@asynccontextmanager
async def _agents(chain: Rig, url: str = "") -> AsyncIterator[Any]:
    chain.upstream.answer = models.bedrock_agents
    async with client(url or chain.envoy.url, "bedrock-agent-runtime") as opened:
        yield opened


async def test_agents_answer_the_same(chain: Rig) -> None:
    async def talk(client: Any) -> list[Any]:
        def ask() -> list[Any]:
            streams = [ask(client, "Hello") for ask in _STREAMS.values()]
            return [*streams, *(_plain(ask(client, "Hello")) for ask in _WHOLE.values())]

        return await asyncio.to_thread(ask)

    async with _agents(chain) as guarded, _agents(chain, f"http://127.0.0.1:{chain.upstream.port}") as direct:
        agent, base, flow, found, generated = await same_with_and_without(talk, guarded, direct)
    assert b"".join(each["chunk"]["bytes"] for each in agent if "chunk" in each) == b"It rains in Oslo."
    assert agent[-1]["chunk"]["attribution"]["citations"]
    assert [each["output"]["text"] for each in base if "output" in each] == ["It ", "rains in", " Oslo."]
    assert flow[0]["flowOutputEvent"]["content"] == {"document": "It rains in Oslo."}
    assert found["retrievalResults"][0]["content"]["text"] == "It is wet."
    assert generated["output"] == {"text": "It rains in Oslo."}
    assert len(chain.aim.asked("pre_call")) == 5
    assert len([session for session in chain.aim.sessions if session.is_done]) == 3


@pytest.mark.parametrize("call", [*_STREAMS.values(), *_WHOLE.values()], ids=[*_STREAMS, *_WHOLE])
async def test_agents_are_refused(chain: Rig, call: Any) -> None:
    async with _agents(chain) as guarded:
        blocks_requests(chain)
        with pytest.raises(guarded.exceptions.ValidationException, match=MESSAGE):
            await asyncio.to_thread(call, guarded, "the secret")
        assert chain.upstream.requests == []
        is_down(chain)
        with pytest.raises(exceptions.ClientError, match="ServiceUnavailableException"):
            await asyncio.to_thread(call, guarded, "Hello")


@pytest.mark.parametrize("call", [_ask_agent, _ask_base])
async def test_agent_is_blocked_in_mid_stream(chain: Rig, call: Any) -> None:
    blocks_answers(chain)
    async with _agents(chain) as guarded:
        with pytest.raises(exceptions.EventStreamError, match=r"\(validationException\).*: Not that\."):
            await asyncio.to_thread(call, guarded, "Hello")


async def test_guardrail(chain: Rig) -> None:
    def apply(client: Any, text: str = "Hello") -> Any:
        content = [{"text": {"text": text}}]
        answer = client.apply_guardrail(
            guardrailIdentifier="g1", guardrailVersion="DRAFT", source="INPUT", content=content
        )
        return _plain(answer)

    chain.upstream.answer = models.bedrock_agents
    async with client(chain.envoy.url) as guarded, client(f"http://127.0.0.1:{chain.upstream.port}") as direct:
        through = await asyncio.to_thread(apply, guarded)
        assert through == await asyncio.to_thread(apply, direct)
        assert through["outputs"] == [{"text": "It rains in Oslo."}]
        blocks_requests(chain)
        with pytest.raises(guarded.exceptions.ValidationException, match=MESSAGE):
            await asyncio.to_thread(apply, guarded, "the secret")


# -- SageMaker ---------------------------------------------------------------------------------------------------------


async def test_stream_of_sagemaker(chain: Rig) -> None:
    def read(client: Any) -> bytes:
        body = json.dumps({"messages": [{"role": "user", "content": "Hello"}], "stream": True})
        answer = client.invoke_endpoint_with_response_stream(
            EndpointName="e", Body=body, ContentType="application/json"
        )
        with closing(answer["Body"]) as stream:
            return b"".join(event["PayloadPart"]["Bytes"] for event in stream)

    chain.upstream.answer = models.sagemaker
    async with (
        client(chain.envoy.url, "sagemaker-runtime") as guarded,
        client(f"http://127.0.0.1:{chain.upstream.port}", "sagemaker-runtime") as direct,
    ):
        through = await asyncio.to_thread(read, guarded)
        assert through == await asyncio.to_thread(read, direct)
        assert b"rains in" in through
        blocks_answers(chain)
        with pytest.raises(exceptions.EventStreamError, match=r"Not that\."):
            await asyncio.to_thread(read, guarded)


# -- Anthropic's client for Bedrock ------------------------------------------------------------------------------------


@asynccontextmanager
async def _anthropic(url: str) -> AsyncIterator[Any]:
    anthropic = pytest.importorskip("anthropic")
    async with anthropic.DefaultAsyncHttpxClient(trust_env=False) as http:
        yield anthropic.AsyncAnthropicBedrock(
            aws_access_key="AKIDEXAMPLE",
            aws_secret_key=models.AWS_SECRET,
            aws_region="us-east-1",
            base_url=url,
            http_client=http,
            max_retries=0,
        )


async def test_anthropics_client_for_bedrock(chain: Rig) -> None:
    async def talk(client: Any) -> list[Any]:
        hello: Any = [{"role": "user", "content": "Hello"}]
        said = await client.messages.create(model="claude", max_tokens=64, messages=hello)
        events = await client.messages.create(model="claude", max_tokens=64, messages=hello, stream=True)
        return [said.model_dump(), *[event.model_dump() async for event in events]]

    async with _anthropic(chain.envoy.url) as guarded, _anthropic(f"http://127.0.0.1:{chain.upstream.port}") as direct:
        said, *events = await same_with_and_without(talk, guarded, direct)
        assert said["content"][0]["text"] == "It rains in Oslo."
        assert events[-1]["type"] == "message_stop"
        assert chain.upstream.requests[0].header("accept-encoding") is not None  # it is signed
        blocks_requests(chain)
        with pytest.raises(pytest.importorskip("anthropic").BadRequestError) as caught:
            await guarded.messages.create(
                model="claude", max_tokens=64, messages=[{"role": "user", "content": "the secret"}]
            )
    assert caught.value.body == {"message": MESSAGE}
