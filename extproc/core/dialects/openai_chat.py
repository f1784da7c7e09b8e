"""OpenAI's Chat Completions API, and the many APIs that copy it.

Source: OpenAI's API reference, "Chat completions". Other servers add to it: `reasoning`, `reasoning_content` and
`reasoning_details` are OpenRouter's, vLLM's and DeepSeek's, `thinking` is Mistral's, `thinking_blocks` LiteLLM's,
`thought_signature` Google's, and `channel` Groq's.
"""

from __future__ import annotations

from typing import Any

from extproc.core.block_answers.base import BlockAnswer
from extproc.core.block_answers.chat import ChatAnswer
from extproc.core.content.document import Document, fields
from extproc.core.dialects.base import Dialect, Running, running
from extproc.core.dialects.flat_chat import flat_answer, flat_chunk, flat_request
from extproc.core.dialects.leaf import Leaf, Prompt
from extproc.core.dialects.rules import (
    COMMON,
    MODEL,
    arguments,
    below,
    inert,
    media,
    message,
    opaque,
    seal,
    text,
    tokens,
    tools,
    unreadable,
    url,
)
from extproc.core.dialects.table import Table
from extproc.core.vocabulary import MAX_CHOICE

SAID = (
    text("content", "content[].text", "content[].refusal", "refusal", "reasoning", "reasoning_content"),
    text("reasoning[].text", "reasoning_details[].text", "reasoning_details[].summary"),
    text("content[].thinking", "content[].thinking[].text", "thinking_blocks[].thinking"),
    seal("reasoning_details[].signature", "thinking_blocks[].signature"),
    opaque(
        "reasoning_details[].data",
        "reasoning_details[].encrypted_content",
        "reasoning_signature",
        "thinking_blocks[].data",
        "thought_signature",
        "extra_content.google.thought_signature",
        "tool_calls[].extra_content.google.thought_signature",
        "tool_calls[].thought_signature",
    ),
    arguments("tool_calls[].function.arguments", "function_call.arguments"),
    text("tool_calls[].custom.input"),
    text("audio.transcript", fixed=True),
    media("audio.data", "images[].image_url", "images[].image_url.url"),
    inert("role", "channel", "tool_calls[].function.name", "tool_calls[].custom.name", "function_call.name"),
)
"""What a message holds: of a request, of an answer, or its part in a chunk."""

CHAT_MESSAGES = (
    message("messages[]"),
    *below("messages[]", SAID),
    media(
        "messages[].content[].input_audio.data",
        "messages[].content[].file.file_data",
        "messages[].content[].image_url",
        "messages[].content[].image_url.url",
        "messages[].content[].video_url",
        "messages[].content[].video_url.url",
        "messages[].content[].audio_url",
        "messages[].content[].audio_url.url",
    ),
    inert(
        "messages[].cache_control.*",
        "messages[].content[].cache_control.*",
        "messages[].content[].image_url.detail",
        "messages[].content[].input_audio.format",
        "messages[].content[].prompt_cache_breakpoint.mode",
        "messages[].name",
    ),
)

OPTIONS = (
    unreadable("prompt_embeds", "prompt_token_ids", "nvext.token_data"),
    tools("tools[]", "functions[]", "response_format.json_schema", "response_format.schema", "response_format.grammar"),
    inert(
        "audio.voice",
        "function_call",
        "function_call.name",
        "modalities[]",
        "models[]",
        "prompt_cache_key",
        "prompt_cache_options.*",
        "prompt_cache_retention",
        "provider.*",
        "provider.order[]",
        "reasoning.context",
        "reasoning.effort",
        "reasoning.mode",
        "reasoning.summary",
        "reasoning_effort",
        "reasoning_format",
        "route",
        "safety_identifier",
        "service_tier",
        "thinking.type",
        "tool_choice",
        "tool_choice.allowed_tools.mode",
        "tool_choice.allowed_tools.tools[].function.name",
        "tool_choice.custom.name",
        "tool_choice.function.name",
        "transforms[]",
        "user",
        "verbosity",
        "web_search_options.search_context_size",
        "web_search_options.user_location.approximate.country",
        "web_search_options.user_location.approximate.timezone",
    ),
)
"""Settings of a request."""

ADDED = tokens(
    "__verbose.completion_probabilities",
    "__verbose.tokens",
    "nvext.engine_data.completion_token_ids",
    "prompt[].logprobs",
    everywhere=True,
)
"""What llama.cpp, Dynamo and Together add to answers of the APIs of others."""

FACTS = (
    inert(
        "choices[].native_finish_reason",
        "error.code",
        "error.metadata.provider_name",
        "error.param",
        "metadata.*",
        "provider",
        "search_results[].date",
        "search_results[].last_updated",
        "service_tier",
        "system_fingerprint",
        "x_groq.*",
        "**.severity",
    ),
    url("citations[]"),
    opaque("obfuscation"),
    ADDED,
    tokens(
        "prompt_logprobs",
        "prompt_token_ids",
        "choices[].logprobs",
        "choices[].prompt_logprobs",
        "choices[].prompt_token_ids",
        "choices[].raw_output.completion_logprobs",
        "choices[].raw_output.completion_token_ids",
        "choices[].token_ids",
        "choices[].message.token_ids",
        "choices[].message.prompt_token_ids",
        "choices[].delta.token_ids",
    ),
)
"""What is around the texts of an answer or a chunk."""

_SENT = Table(
    *COMMON,
    MODEL,
    *CHAT_MESSAGES,
    *OPTIONS,
    text("prediction.content", "prediction.content[].text"),
    url("citations[]"),
)

_GIVEN = Table(
    *COMMON,
    *FACTS,
    *below("choices[].message", SAID),
    *below("choices[].delta", SAID),
    text("choices[].text"),
)
"""Some servers put whole messages into a stream, and deltas into an answer."""


class OpenAIChat(Dialect):
    """The dialect; see `extproc.core.dialects.base.Dialect`."""

    name = "openai-chat"
    request = _SENT
    answer = event = _GIVEN

    def block_answer(self, path: str) -> type[BlockAnswer] | None:
        """Return the answer of a block."""
        return ChatAnswer

    def prompts(self, document: Document, *, tools: bool, locates: bool = False) -> list[Prompt]:
        """Return the request's messages."""
        found = flat_request(document.root, self.request)
        return super().prompts(document, tools=tools, locates=locates) if found is None else found

    def answers(self, document: Document, *, locates: bool = False) -> list[Leaf]:
        """Return the texts of a whole answer."""
        leaf = flat_answer(document.root)
        return super().answers(document, locates=locates) if leaf is None else [leaf]

    def deltas(self, document: Document, *, locates: bool = False) -> list[Leaf]:
        """Return the texts of one event, and its tokens and signatures."""
        leaf = flat_chunk(document.root)
        return super().deltas(document, locates=locates) if leaf is None else [leaf]

    def place(self, root: Any, leaf: Leaf) -> Running:
        """Return a running text. A choice without an index is choice 0, as for Aim and every client."""
        return choice_place(root, leaf)

    def chunk_index(self, root: Any, leaf: Leaf, place: Running) -> int | None:
        """Return the choice index of a delta's content."""
        path = leaf.path
        if len(path) == 4 and path[0] == "choices" and path[2:] == ("delta", "content"):
            index = place[1]
            return index if type(index) is int and 0 <= index <= MAX_CHOICE else None
        return None

    def is_submitted_whole(self, document: Document) -> bool:
        """Return whether the event is a chunk in the shape that Aim reads."""
        choices = fields(document.root).get("choices")
        if not isinstance(choices, list):
            return False
        for choice in choices:
            if not isinstance(choice, dict):
                return False
            said = fields(choice.get("delta")).get("content")
            if said is not None and not isinstance(said, str):
                return False
        return True


def choice_place(root: Any, leaf: Leaf) -> Running:
    """Return the running text of a leaf in a chunk."""
    place = running(root, leaf.path)
    if len(place) > 1 and place[0] == "choices":
        choices, position = root["choices"], leaf.path[1]
        choice = choices[position] if isinstance(choices, list) and isinstance(position, int) else choices
        index = fields(choice).get("index", 0)
        return ("choices", index if isinstance(index, int | str) else 0, *place[2:])
    return place
