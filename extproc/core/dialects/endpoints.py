"""The dialects, and the methods and paths on which each of them reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from extproc.core.dialects.anthropic_complete import AnthropicComplete
from extproc.core.dialects.anthropic_messages import AnthropicMessages
from extproc.core.dialects.base import Dialect
from extproc.core.dialects.batch_requests import AnthropicBatches, BatchJobs, FileUploads, GeminiBatches
from extproc.core.dialects.batch_results import AnthropicResults, FileContents
from extproc.core.dialects.bedrock_agents import BedrockAgents
from extproc.core.dialects.bedrock_converse import BedrockConverse, BedrockCountTokens
from extproc.core.dialects.bedrock_guardrails import BedrockGuardrails
from extproc.core.dialects.bedrock_invoke import BedrockAnthropic, BedrockAsyncInvoke, BedrockInvoke, BedrockTwoWay
from extproc.core.dialects.cohere_chat import CohereChat, CohereChatV1
from extproc.core.dialects.cohere_requests import CohereEmbed, CohereRerank, HuggingFaceEmbed, HuggingFaceRerank
from extproc.core.dialects.gemini import Gemini
from extproc.core.dialects.gemini_interactions import GeminiInteractions
from extproc.core.dialects.gemini_others import CodeAssist, GeminiCountTokens, GeminiEmbeddings, VertexPredict
from extproc.core.dialects.generic import Generic
from extproc.core.dialects.mcp import Mcp
from extproc.core.dialects.mistral_conversations import MistralConversations
from extproc.core.dialects.ollama import Ollama, OllamaEmbed
from extproc.core.dialects.openai_chat import OpenAIChat
from extproc.core.dialects.openai_completions import OpenAICompletions
from extproc.core.dialects.openai_requests import Embeddings, Images, Moderations, RealtimeSecrets, Rerank, Speech
from extproc.core.dialects.openai_responses import OpenAIResponses
from extproc.core.dialects.openai_threads import OpenAIThreads
from extproc.core.dialects.openai_transcriptions import OpenAITranscriptions
from extproc.core.dialects.openai_uploads import UploadParts, Uploads
from extproc.core.dialects.text_generation import VLLM, LlamaCpp, SGLang, TextGeneration

GENERIC = Generic()
"""The dialect that reads JSON on a path that no dialect knows."""

MCP = Mcp()
"""The dialect that reads JSON-RPC of MCP and A2A on such a path."""

_DIALECTS: tuple[Dialect, ...] = (
    OpenAIChat(),
    OpenAICompletions(),
    OpenAIResponses(),
    AnthropicMessages(),
    Gemini(),
    Embeddings(),
    Images(),
    Speech(),
    OpenAITranscriptions(),
    Rerank(),
    CohereChat(),
    CohereEmbed(),
    Ollama(),
    GeminiInteractions(),
    MistralConversations(),
    TextGeneration(),
    OpenAIThreads(),
    Moderations(),
    AnthropicComplete(),
    MCP,
    BedrockConverse(),
    BedrockInvoke(),
    GENERIC,
)

NAMES: Mapping[str, Dialect] = {dialect.name: dialect for dialect in _DIALECTS}
"""The dialects that the settings can name."""

VARIANTS: Mapping[str, Dialect] = {
    "bedrock-converse for token counts": BedrockCountTokens(),
    "bedrock-converse of agents": BedrockAgents(),
    "bedrock-converse of guardrails": BedrockGuardrails(),
    "bedrock-invoke of Anthropic": BedrockAnthropic(),
    "bedrock-invoke in the background": BedrockAsyncInvoke(),
    "bedrock-invoke in both directions": BedrockTwoWay(),
    "cohere-chat v1": CohereChatV1(),
    "cohere-embed of TEI": HuggingFaceEmbed(),
    "rerank of Cohere": CohereRerank(),
    "rerank of TEI": HuggingFaceRerank(),
    "ollama embeddings": OllamaEmbed(),
    "gemini of Code Assist": CodeAssist(),
    "gemini embeddings": GeminiEmbeddings(),
    "gemini for token counts": GeminiCountTokens(),
    "generic of Vertex": VertexPredict(),
    "openai-responses of realtime": RealtimeSecrets(),
    "openai-chat of batches": BatchJobs(),
    "openai-chat of uploads": FileUploads(),
    "openai-chat of uploads in parts": Uploads(),
    "openai-chat of parts of uploads": UploadParts(),
    "openai-chat of files": FileContents(),
    "anthropic-messages of batches": AnthropicBatches(),
    "anthropic-messages of results": AnthropicResults(),
    "gemini of batches": GeminiBatches(),
    "text-generation of llama.cpp": LlamaCpp(),
    "text-generation of SGLang": SGLang(),
    "text-generation of vLLM": VLLM(),
}
"""Further APIs of the same makers. In settings, metrics and records each has the name of its dialect."""

ALL: Mapping[str, Dialect] = {**NAMES, **VARIANTS}

DEFAULT: Dialect = _DIALECTS[0]
"""The dialect that shapes refusals on a path that no dialect knows."""


class Endpoint(NamedTuple):
    """Paths of one dialect.

    `paths` are patterns of normalised paths: `*` is any text, `{id}` one segment. `dialect` is a key of `ALL`. `keys`
    are for paths that are not specific to one API: the dialect reads only requests that have one of these keys.
    """

    method: str
    dialect: str
    paths: tuple[str, ...]
    keys: tuple[str, ...] = ()


_INVOCATIONS = ("*/invocations", "*/invocations-response-stream")
"""The second is SageMaker's."""

_INVOKE = ("*/model/*/invoke", "*/model/*/invoke-with-response-stream")

ENDPOINTS: tuple[Endpoint, ...] = (
    # A model's name may be an ARN, whose slashes are encoded.
    Endpoint("POST", "bedrock-converse", ("*/model/*/converse", "*/model/*/converse-stream")),
    Endpoint("POST", "bedrock-converse for token counts", ("*/model/*/count-tokens",)),
    Endpoint("POST", "bedrock-invoke of Anthropic", _INVOKE, ("anthropic_version",)),
    Endpoint("POST", "bedrock-invoke", _INVOKE),
    Endpoint("POST", "bedrock-invoke in the background", ("*/async-invoke",), ("modelInput",)),
    Endpoint(
        "POST", "bedrock-converse of guardrails", ("*/guardrail/*/version/{id}/apply", "*/guardrail-checks/invoke")
    ),
    Endpoint(
        "POST",
        "bedrock-converse of agents",
        (
            "*/agents/{id}/agentaliases/{id}/sessions/{id}/text",
            "*/knowledgebases/*/retrieve",
            "*/retrieveandgenerate",
            "*/retrieveandgeneratestream",
            "*/agenticretrievestream",
            "*/generatequery",
            "*/flows/*/aliases/*",
        ),
    ),
    Endpoint("POST", "bedrock-invoke in both directions", ("*/model/*/invoke-with-bidirectional-stream",)),
    Endpoint("POST", "openai-chat", ("*/chat/completions", "*/agents/completions", "*/prompts/{id}/completions")),
    Endpoint("POST", "openai-completions", ("*/completions",)),
    Endpoint(
        "POST",
        "openai-responses",
        (
            "*/responses",
            "*/responses/compact",
            "*/responses/input_tokens",
            "*/responses/{id}/cancel",
            "*/conversations/{id}/items",
        ),
    ),
    Endpoint(
        "POST",
        "mistral-conversations",
        ("*/conversations", "*/conversations/{id}", "*/conversations/{id}/restart"),
        ("inputs",),
    ),
    Endpoint("POST", "openai-responses", ("*/conversations",), ("items",)),
    Endpoint("POST", "openai-responses", ("*/v1/conversations",)),
    Endpoint("POST", "mistral-conversations", ("*/v1/agents",), ("instructions",)),
    Endpoint("PATCH", "mistral-conversations", ("*/v1/agents/{id}",), ("instructions",)),
    Endpoint("POST", "mistral-conversations", ("*/v1/ocr",)),
    Endpoint("POST", "bedrock-converse of agents", ("*/agents/{id}",), ("foundationModel",)),
    Endpoint("POST", "bedrock-converse of agents", ("*/optimize-prompt",), ("targetModelId",)),
    Endpoint(
        "POST",
        "anthropic-messages",
        (
            "*/v1/messages",
            "*/v1/messages/count_tokens",
            "*/publishers/anthropic/models/*:rawpredict",
            "*/publishers/anthropic/models/*:streamrawpredict",
        ),
    ),
    Endpoint("POST", "anthropic-messages of batches", ("*/v1/messages/batches", "*/v1/messages/batches/{id}/cancel")),
    Endpoint("POST", "gemini of batches", ("*:batchgeneratecontent",)),
    Endpoint(
        "POST",
        "openai-chat of batches",
        ("*/v1/batches", "*/openai/batches", "*/v1/batches/{id}/cancel", "*/openai/batches/{id}/cancel"),
    ),
    Endpoint("POST", "openai-chat of uploads", ("*/v1/files", "*/openai/files")),
    Endpoint(
        "POST",
        "openai-chat of uploads in parts",
        (
            "*/v1/uploads",
            "*/openai/uploads",
            "*/v1/uploads/{id}/complete",
            "*/openai/uploads/{id}/complete",
            "*/v1/uploads/{id}/cancel",
            "*/openai/uploads/{id}/cancel",
        ),
    ),
    Endpoint("POST", "openai-chat of parts of uploads", ("*/v1/uploads/{id}/parts", "*/openai/uploads/{id}/parts")),
    Endpoint("POST", "gemini of Code Assist", ("*/v1internal:generatecontent", "*/v1internal:streamgeneratecontent")),
    Endpoint("POST", "gemini", ("*:generatecontent", "*:streamgeneratecontent")),
    Endpoint("POST", "gemini embeddings", ("*:embedcontent", "*:batchembedcontents")),
    Endpoint("POST", "gemini for token counts", ("*:counttokens",)),
    Endpoint("POST", "anthropic-messages", ("*:rawpredict", "*:streamrawpredict"), ("anthropic_version",)),
    Endpoint("POST", "openai-chat", ("*:rawpredict", "*:streamrawpredict"), ("messages",)),
    Endpoint("POST", "openai-completions", ("*:rawpredict", "*:streamrawpredict"), ("prompt",)),
    Endpoint("POST", "generic of Vertex", ("*:rawpredict", "*:streamrawpredict")),
    Endpoint("POST", "generic of Vertex", ("*:predict", "*:predictlongrunning"), ("instances",)),
    Endpoint("POST", "openai-chat", ("*/cortex/inference:complete",)),
    Endpoint("POST", "openai-chat", _INVOCATIONS, ("messages",)),
    Endpoint("POST", "openai-completions", _INVOCATIONS, ("prompt",)),
    Endpoint("POST", "text-generation", _INVOCATIONS, ("inputs",)),
    Endpoint("POST", "openai-responses", _INVOCATIONS, ("input",)),
    Endpoint("POST", "ollama embeddings", ("*/api/embeddings",), ("prompt",)),
    Endpoint("POST", "openai-embeddings", ("*/embeddings",)),
    Endpoint("POST", "openai-images", ("*/images/generations", "*/images/edits", "*/images/variations")),
    Endpoint("POST", "openai-images", ("*/videos", "*/videos/{id}/remix"), ("prompt",)),
    Endpoint("POST", "openai-moderations", ("*/moderations",), ("input",)),
    Endpoint("POST", "openai-responses of realtime", ("*/realtime/client_secrets", "*/realtime/sessions")),
    Endpoint("POST", "openai-speech", ("*/audio/speech",)),
    Endpoint("POST", "openai-transcriptions", ("*/audio/transcriptions", "*/audio/translations")),
    Endpoint("POST", "cohere-chat", ("*/v2/chat",)),
    Endpoint("POST", "cohere-chat v1", ("*/v1/chat",), ("message", "chat_history")),
    Endpoint("POST", "cohere-embed", ("*/v1/embed", "*/v2/embed")),
    Endpoint("POST", "ollama embeddings", ("*/api/embed",), ("input",)),
    Endpoint("POST", "cohere-embed of TEI", ("*/embed", "*/embed_all", "*/embed_sparse"), ("inputs",)),
    Endpoint("POST", "cohere-embed", ("*/embed",), ("texts",)),
    Endpoint("POST", "rerank of Cohere", ("*/v2/rerank",)),
    Endpoint("POST", "bedrock-converse of agents", ("*/rerank",), ("rerankingConfiguration",)),
    Endpoint("POST", "rerank of TEI", ("*/rerank",), ("texts",)),
    Endpoint("POST", "rerank", ("*/rerank",)),
    Endpoint("POST", "ollama", ("*/api/chat",), ("messages",)),
    Endpoint("POST", "ollama", ("*/api/generate",), ("prompt",)),
    Endpoint("POST", "text-generation of vLLM", ("*/inference/v1/generate",)),
    Endpoint("POST", "text-generation", ("*/generate", "*/generate_stream"), ("inputs",)),
    Endpoint("POST", "text-generation of SGLang", ("*/generate",), ("text", "prompt", "input_ids", "input_embeds")),
    Endpoint("POST", "text-generation of llama.cpp", ("*/completion",), ("prompt",)),
    Endpoint("POST", "text-generation of llama.cpp", ("*/infill",), ("input_prefix", "input_suffix")),
    Endpoint("POST", "anthropic-complete", ("*/v1/complete",)),
    Endpoint("POST", "openai-threads", ("*/threads",), ("messages", "tool_resources")),
    Endpoint("POST", "openai-threads", ("*/threads/runs", "*/threads/{id}/runs"), ("assistant_id",)),
    Endpoint("POST", "openai-threads", ("*/threads/{id}/messages",), ("content",)),
    Endpoint("POST", "openai-threads", ("*/threads/{id}/runs/{id}/submit_tool_outputs",), ("tool_outputs",)),
    Endpoint("POST", "openai-threads", ("*/threads/{id}/runs/{id}/cancel",)),
    Endpoint("POST", "openai-threads", ("*/assistants", "*/assistants/{id}"), ("model", "instructions", "tools")),
    Endpoint("POST", "gemini-interactions", ("*/v1beta*/interactions", "*/v1beta*/interactions/{id}/cancel")),
    Endpoint("POST", "gemini-interactions", ("*/interactions",), ("input",)),
    # Stored and background answers are answers of the dialect that made them.
    Endpoint(
        "GET",
        "openai-threads",
        (
            "*/threads/{id}/messages",
            "*/threads/{id}/messages/{id}",
            "*/threads/{id}/runs",
            "*/threads/{id}/runs/{id}",
            "*/threads/{id}/runs/{id}/steps",
            "*/threads/{id}/runs/{id}/steps/{id}",
            "*/assistants",
            "*/assistants/{id}",
        ),
    ),
    Endpoint(
        "GET",
        "bedrock-converse of agents",
        (
            "*/agents/{id}/agentaliases/{id}/memories",
            "*/flows/*/aliases/*/executions/{id}",
            "*/flows/*/aliases/*/executions/{id}/events",
        ),
    ),
    Endpoint("GET", "bedrock-invoke in the background", ("*/async-invoke", "*/async-invoke/*")),
    Endpoint("GET", "openai-images", ("*/v1/videos/{id}",)),
    Endpoint("GET", "anthropic-messages of batches", ("*/v1/messages/batches", "*/v1/messages/batches/{id}")),
    Endpoint("GET", "anthropic-messages of results", ("*/v1/messages/batches/{id}/results",)),
    Endpoint(
        "GET",
        "openai-chat of batches",
        ("*/v1/batches", "*/v1/batches/{id}", "*/openai/batches", "*/openai/batches/{id}"),
    ),
    Endpoint("GET", "openai-chat of files", ("*/v1/files/{id}/content", "*/openai/files/{id}/content")),
    Endpoint("GET", "mistral-conversations", ("*/conversations/{id}/history", "*/conversations/{id}/messages")),
    Endpoint("GET", "gemini-interactions", ("*/v1beta*/interactions/{id}",)),
    Endpoint("GET", "openai-chat", ("*/chat/completions/{id}", "*/chat/completions/{id}/messages")),
    Endpoint(
        "GET",
        "openai-responses",
        (
            "*/responses/{id}",
            "*/responses/{id}/input_items",
            "*/conversations/{id}/items",
            "*/conversations/{id}/items/{id}",
        ),
    ),
)
"""The first match wins; on paths that are not specific to one API, the first whose keys the request has."""
