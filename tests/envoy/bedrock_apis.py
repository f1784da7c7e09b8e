"""The wire formats of Bedrock's APIs, by hand like those in `tests.envoy.apis`; frames by their specification."""

from __future__ import annotations

import json
from typing import Any, ClassVar

from tests.envoy.apis import ANTHROPIC, Api, js
from tests.fakes.aws import event, frame, string, wrapped

_PAD = "abcdefghijklmnop"


class Bedrock(Api):
    """What the APIs share."""

    stream_type = "application/vnd.amazon.eventstream"
    model = "anthropic.claude-v2%3A1"
    operations = ("converse", "converse-stream")

    def path_of(self, *, stream: bool) -> str:
        return f"/model/{self.model}/{self.operations[stream]}"

    def refusal(self, status: int, code: str, message: str) -> Any:
        return {"message": message}

    def refusal_headers(self, status: int) -> dict[str, str]:
        named = {400: "ValidationException", 413: "ValidationException", 503: "ServiceUnavailableException"}
        return {"x-amzn-errortype": named.get(status, "InternalServerException")}

    exceptions: ClassVar = {400: "validationException", 503: "serviceUnavailableException"}

    def ending(self, status: int, code: str, message: str, sequence: int) -> bytes:
        return frame(
            js({"message": message}),
            string(":exception-type", self.exceptions.get(status, "internalServerException")),
            string(":content-type", "application/json"),
            string(":message-type", "exception"),
        )

    def said_at(self, ending: bytes) -> Any:
        return json.loads(ending[ending.index(b"{") : -4])

    def message_in(self, said: Any) -> Any:
        return said["message"]


class Converse(Bedrock):
    name = "bedrock converse"
    head = 1
    tail = 3

    def request(self, *texts: str, stream: bool = False) -> bytes:
        return js({"messages": [{"role": "user", "content": [{"text": text} for text in texts]}], "system": []})

    def answer(self, *texts: str) -> bytes:
        message = {"role": "assistant", "content": [{"text": text} for text in texts]}
        return js({"output": {"message": message}, "stopReason": "end_turn", "usage": {"inputTokens": 3}})

    @staticmethod
    def delta(index: int, **delta: Any) -> bytes:
        return event("contentBlockDelta", {"contentBlockIndex": index, "delta": delta, "p": _PAD})

    def events(self, *texts: str) -> list[bytes]:
        return [
            event("messageStart", {"p": _PAD, "role": "assistant"}),
            *(self.delta(0, text=text) for text in texts),
            event("contentBlockStop", {"contentBlockIndex": 0, "p": "ab"}),
            event("messageStop", {"p": "abc", "stopReason": "end_turn"}),
            event("metadata", {"metrics": {"latencyMs": 7}, "p": "a", "usage": {"inputTokens": 3}}),
        ]


class Invoke(Bedrock):
    """Llama, whose events have one text."""

    name = "bedrock invoke"
    operations = ("invoke", "invoke-with-response-stream")
    model = "arn%3Aaws%3Abedrock%3Aus-east-1%3A123456789012%3Aapplication-inference-profile%2Fab12"
    tail = 1

    def request(self, *texts: str, stream: bool = False) -> bytes:
        return js({"messages": [{"role": "user", "content": [{"text": text} for text in texts]}]})

    def answer(self, *texts: str) -> bytes:
        return js({"generation": "".join(texts), "prompt_token_count": 3, "stop_reason": "stop"})

    def piece(self, text: str, **more: Any) -> bytes:
        return wrapped(json.dumps({"generation": text, "stop_reason": None, **more}), p="abcd")

    def events(self, *texts: str) -> list[bytes]:
        metrics = {"amazon-bedrock-invocationMetrics": {"inputTokenCount": 3}}
        return [*map(self.piece, texts), self.piece("", **metrics)]


class InvokeClaude(Bedrock):
    name = "bedrock invoke of claude"
    operations = ("invoke", "invoke-with-response-stream")
    head = 3
    tail = 3

    def request(self, *texts: str, stream: bool = False) -> bytes:
        messages = [{"role": "user", "content": text} for text in texts]
        return js({"anthropic_version": "bedrock-2023-05-31", "max_tokens": 64, "messages": messages})

    def answer(self, *texts: str) -> bytes:
        return ANTHROPIC.answer(*texts)

    def events(self, *texts: str) -> list[bytes]:
        return [wrapped(_data(each), p="abcd") for each in ANTHROPIC.events(*texts)]


def _data(server_sent: bytes) -> str:
    return next(line for line in server_sent.decode().splitlines() if line.startswith("data: ")).removeprefix("data: ")


class CountTokens(Bedrock):
    name = "bedrock token counts"
    operations = ("count-tokens", "count-tokens")

    def request(self, *texts: str, stream: bool = False) -> bytes:
        return js({"input": {"converse": json.loads(CONVERSE.request(*texts))}})

    def answer(self, *texts: str) -> bytes:
        return js({"inputTokens": 11})


class KnowledgeBase(Bedrock):
    """RetrieveAndGenerate and its stream."""

    name = "bedrock knowledge bases"
    tail = 1
    exceptions: ClassVar = {400: "validationException"}

    def path_of(self, *, stream: bool) -> str:
        return "/retrieveAndGenerateStream" if stream else "/retrieveAndGenerate"

    def request(self, *texts: str, stream: bool = False) -> bytes:
        first, *others = texts
        templates = [{"promptTemplate": {"textPromptTemplate": text}} for text in others]
        base = {"knowledgeBaseId": "KB12", "generationConfiguration": templates[0] if templates else {}}
        configured = {"type": "KNOWLEDGE_BASE", "knowledgeBaseConfiguration": base}
        return js({"input": {"text": first}, "retrieveAndGenerateConfiguration": configured})

    def answer(self, *texts: str) -> bytes:
        return js({"sessionId": "s-1", "output": {"text": "".join(texts)}, "citations": []})

    def events(self, *texts: str) -> list[bytes]:
        return [*(event("output", {"text": text}) for text in texts), event("guardrail", {"action": "NONE"})]


class Agent(KnowledgeBase):
    """InvokeAgent, which answers with a stream alone."""

    name = "bedrock agents"
    tail = 0

    def path_of(self, *, stream: bool) -> str:
        return "/agents/AB12/agentAliases/TSTALIASID/sessions/s-1/text"

    def request(self, *texts: str, stream: bool = False) -> bytes:
        first, *others = texts
        named = {f"key-{number}": text for number, text in enumerate(others)}
        return js({"inputText": first, "sessionState": {"promptSessionAttributes": named}})

    def events(self, *texts: str) -> list[bytes]:
        return [wrapped(text) for text in texts]


class Guardrail(KnowledgeBase):
    """ApplyGuardrail, which does not stream."""

    name = "bedrock guardrails"

    def path_of(self, *, stream: bool) -> str:
        return "/guardrail/g1/version/DRAFT/apply"

    def request(self, *texts: str, stream: bool = False) -> bytes:
        return js({"source": "INPUT", "content": [{"text": {"text": text}} for text in texts]})

    def answer(self, *texts: str) -> bytes:
        return js({"action": "GUARDRAIL_INTERVENED", "outputs": [{"text": "".join(texts)}], "assessments": []})


class Background(Bedrock):
    """StartAsyncInvoke."""

    name = "bedrock in the background"

    def path_of(self, *, stream: bool) -> str:
        return "/async-invoke"

    def request(self, *texts: str, stream: bool = False) -> bytes:
        asked = {f"text-{number}": text for number, text in enumerate(texts)}
        return js({"modelId": "amazon.nova-reel-v1:0", "modelInput": {"textToVideoParams": asked}})

    def answer(self, *texts: str) -> bytes:
        return js({"invocationArn": "arn:aws:bedrock:us-east-1:123456789012:async-invoke/ab12"})


KNOWLEDGE_BASE, AGENT, GUARDRAIL, BACKGROUND = KnowledgeBase(), Agent(), Guardrail(), Background()
CONVERSE, INVOKE, CLAUDE, COUNT_TOKENS = Converse(), Invoke(), InvokeClaude(), CountTokens()
