"""Bedrock's InvokeModel and InvokeModelWithResponseStream: the body is that of the model's own API.

Sources: "Inference request parameters and response fields for foundation models" in the Amazon Bedrock user guide.
Models of Anthropic are read as Messages. One table has the places of all others: Nova's are those of Converse, those of
OpenAI, Mistral, Qwen and DeepSeek are those of a chat, the rest have a prompt and a text. A stream is an AWS event
stream; each frame has one event of the model's own API in base64.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from extproc.core.block_answers.base import BlockAnswer
from extproc.core.block_answers.messages import BedrockMessageAnswer
from extproc.core.content.document import Document, fields
from extproc.core.dialects.anthropic_messages import AnthropicMessages
from extproc.core.dialects.base import Running, answering, running
from extproc.core.dialects.bedrock import BedrockDialect
from extproc.core.dialects.bedrock_converse import BLOCK, DELTA, FILES, START, TRACE, block_place, result_speaker
from extproc.core.dialects.leaf import Kind, Leaf
from extproc.core.dialects.openai_requests import DataDialect
from extproc.core.dialects.rules import COMMON, arguments, below, inert, media, text, tokens, tools, url
from extproc.core.dialects.table import Table

_METRICS = "amazon-bedrock-invocationMetrics"
"""The key that the last event of every stream has, whatever its model."""

_ADDED = (inert("amazon-bedrock-guardrailAction"), *below("amazon-bedrock-trace", TRACE))
"""What Bedrock adds to an answer or event."""

_OPTIONS = inert(
    "amazon-bedrock-guardrailConfig.streamProcessingMode",
    "amazon-bedrock-guardrailConfig.tagSuffix",
)


_BUCKET = (
    url("s3OutputDataConfig.s3Uri"),
    inert("s3OutputDataConfig.kmsKeyId", "s3OutputDataConfig.bucketOwner"),
)
_CALL = (
    inert("invocationArn", "modelArn", "clientRequestToken", "submitTime", "lastModifiedTime", "endTime"),
    *below("outputDataConfig", _BUCKET),
)
"""What is known of a call in the background: among other things where its answer goes."""


class BedrockAnthropic(BedrockDialect, AnthropicMessages):
    """Models of Anthropic: the Messages API, with Bedrock's errors."""

    name = "bedrock-invoke"
    request = Table(*AnthropicMessages.request.rules, _OPTIONS)
    answer = Table(*AnthropicMessages.answer.rules, *_ADDED)
    event = Table(*AnthropicMessages.event.rules, *_ADDED)

    def block_answer(self, path: str) -> type[BlockAnswer] | None:
        """Return the answer of a block."""
        return BedrockMessageAnswer


_ROLES = {"assistant": "assistant", "chatbot": "assistant", "system": "system", "developer": "system"}


def _speaker(message: Mapping[str, Any], base: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the message that a message's texts become. Cohere writes roles in capital letters."""
    role = str(message.get("role")).lower()
    return answering(message.get("tool_call_id"), {"role": _ROLES.get(role, "user")})


_PICTURES = media(
    "**.base64",
    "**.image",
    "**.images",
    "**.init_image",
    "**.mask",
    "**.maskImage",
    "**.source_image",
)

_CHAT = (
    text("content", "reasoning", "reasoning_content", "refusal"),
    arguments("tool_calls[].function.arguments"),
    inert("tool_calls[].function.name", "tool_calls[].index"),
)
"""What a message of a chat holds, or its part in a stream."""

_SAID = (
    text("completion", "generation", "outputText", "text"),
    text("choices[].text", "completions[].data.text", "generations[].text", "outputs[].text", "results[].outputText"),
    *below("choices[].message", _CHAT),
    *below("choices[].delta", _CHAT),
    *below("output.message.content[]", BLOCK),
    tokens("choices[].logprobs"),
    inert("stopReason", "completionReason", "results[].completionReason", "finish_reason"),
    _PICTURES,
    *FILES,
    *_ADDED,
)
"""What an answer holds, or one event of a stream."""


class BedrockInvoke(BedrockDialect):
    """All other models; see `extproc.core.dialects.base.Dialect`."""

    name = "bedrock-invoke"
    is_repetitive = True
    request = Table(
        *COMMON,
        text("system", "system[].text", "preamble", role="system"),
        text("messages[]", "chat_history[]", speaker=_speaker),
        text("chat_history[].message"),
        *below("messages[]", _CHAT),
        *below("messages[].content[]", BLOCK),
        text("messages[].content[].toolResult", speaker=result_speaker),
        media("messages[].content[].image_url", "messages[].content[].image_url.url"),
        text("prompt", "inputText", "inputs", "message", "texts[]"),
        tools("tools[]", "toolConfig.tools[]", "response_format.json_schema"),
        inert(
            "embeddingTypes[]",
            "embedding_types[]",
            "input_type",
            "reasoning_effort",
            "schemaVersion",
            "singleEmbeddingParams.embeddingPurpose",
            "singleEmbeddingParams.text.truncationMode",
            "taskType",
            "toolConfig.toolChoice.tool.name",
            "truncate",
        ),
        _PICTURES,
        *FILES,
        _OPTIONS,
    )
    answer = Table(*COMMON, *_SAID)
    event = Table(
        *COMMON,
        *_SAID,
        *below("contentBlockDelta.delta", DELTA),
        *below("contentBlockStart", [START]),
        inert("messageStop.stopReason"),
        text("response.text"),
    )

    def place(self, root: Any, leaf: Leaf) -> Running:
        """Return a running text: of a block of Nova, or of a part of the event."""
        path = leaf.path
        if path[:1] == ("contentBlockDelta",):
            found = block_place(fields(fields(root)["contentBlockDelta"]), path[1:], leaf)
            return found or running(root, path)
        return ("text",) if path == ("response", "text") else running(root, path)

    def kind(self, root: Any, leaf: Leaf) -> Kind:
        """Return whether a leaf is new text or a repeat: Cohere's last event has the whole text."""
        return Kind.REPEAT if leaf.path == ("response", "text") else Kind.TEXT

    def is_final(self, data: str, document: Document | None) -> bool:
        """Return whether the event has the metrics of the call."""
        if document is None:
            return super().is_final(data, document)
        return _METRICS in fields(document.root)


class BedrockAsyncInvoke(DataDialect, BedrockDialect):
    """StartAsyncInvoke: the body of a model, whose answer goes to a bucket; and the state of such calls."""

    name = "bedrock-invoke"
    request = Table(
        *COMMON,
        *below("modelInput", BedrockInvoke.request.own),
        inert("modelId", "clientRequestToken"),
        *below("outputDataConfig", _BUCKET),
    )
    answer = event = Table(*COMMON, *_CALL, *below("asyncInvokeSummaries[]", _CALL), inert("nextToken"))


class BedrockTwoWay(BedrockInvoke):
    """InvokeModelWithBidirectionalStream: speech in both directions at once, which is refused."""

    is_two_way = True
    request = answer = event = Table(*COMMON)
