"""The native APIs of servers that generate text: Hugging Face's TGI, llama.cpp, SGLang, vLLM.

Sources: the API references of Text Generation Inference ("/generate", "/generate_stream"), of llama.cpp's server
("/completion", "/infill"), of SGLang ("/generate") and of vLLM ("/inference/v1/generate"). They stream events, some
behind proxies that make lines of them.
"""

from __future__ import annotations

from typing import Any

from extproc.core.block_answers.base import BlockAnswer
from extproc.core.block_answers.text_generation import LlamaCppAnswer, SGLangAnswer, TextGenerationAnswer
from extproc.core.content.document import Document, fields, items
from extproc.core.dialects.base import Dialect, Running, running
from extproc.core.dialects.cohere_requests import huggingface_error
from extproc.core.dialects.leaf import Kind, Leaf
from extproc.core.dialects.rules import COMMON, MODEL, inert, media, opaque, text, tokens, tools, unreadable
from extproc.core.dialects.several import asks_for_several, numbered
from extproc.core.dialects.table import Table
from extproc.core.refusal import Refusal


class TextGeneration(Dialect):
    """TGI; see `extproc.core.dialects.base.Dialect`."""

    name = "text-generation"
    is_repetitive = True
    request = Table(
        *COMMON,
        text("inputs"),
        tools("parameters.grammar.value"),
        inert("parameters.adapter_id", "parameters.grammar.type"),
    )
    answer = event = Table(
        *COMMON,
        text("generated_text", "token.text"),
        tokens(
            "details.prefill",
            "details.tokens",
            "details.top_tokens",
            "details.best_of_sequences[].prefill",
            "details.best_of_sequences[].tokens",
            "details.best_of_sequences[].top_tokens",
            "top_tokens",
            everywhere=True,
        ),
        inert("error_type"),
    )

    def block_answer(self, path: str) -> type[BlockAnswer] | None:
        """Return the answer of a block."""
        return TextGenerationAnswer

    def streams(self, document: Document, path: str) -> bool:
        """Return whether the path or the request asks for a stream."""
        return "generate_stream" in path.lower() or super().streams(document, path)

    def place(self, root: Any, leaf: Leaf) -> Running:
        """Return a running text: the last event repeats the whole text."""
        return ("text",) if leaf.path in (("token", "text"), ("generated_text",)) else running(root, leaf.path)

    def kind(self, root: Any, leaf: Leaf) -> Kind:
        """Return whether a leaf is new text or a repeat."""
        return Kind.REPEAT if leaf.path == ("generated_text",) else Kind.TEXT

    def is_final(self, data: str, document: Document | None) -> bool:
        """Return whether the event has the whole text."""
        if document is None:
            return super().is_final(data, document)
        return isinstance(fields(document.root).get("generated_text"), str)

    def refuse(self, refusal: Refusal) -> bytes:
        """Return the servers' error object."""
        return huggingface_error(refusal)

    def refuse_stream(self, refusal: Refusal, sequence: int) -> bytes:
        """Return the error object as an event."""
        return b"data: " + self.refuse(refusal) + b"\n\n"


class LlamaCpp(Dialect):
    """llama.cpp's server. Its error object has the fields of OpenAI's. Events have the number of their prompt."""

    name = "text-generation"
    request = Table(
        *COMMON,
        text("prompt", "prompt.prompt_string", "prompt[].prompt_string", "input_prefix", "input_suffix"),
        text("input_extra[]"),
        text("system_prompt", "system_prompt.prompt", role="system"),
        tools("json_schema", "grammar"),
        media("image_data[].data", "prompt.multimodal_data[]", "prompt[].multimodal_data[]"),
        inert("samplers[]", "response_fields[]"),
        unreadable("prompt.prompt_tokens", "prompt[].prompt_tokens"),
    )
    answer = event = Table(
        *COMMON,
        text("content"),
        tokens("tokens", "completion_probabilities", "probs", everywhere=True),
        inert("stop_type", "generation_settings.samplers[]", "generation_settings.chat_format"),
    )

    def block_answer(self, path: str) -> type[BlockAnswer] | None:
        """Return the answer of a block."""
        return LlamaCppAnswer

    def after(self, request: Document, *, tools: bool) -> Dialect:
        """Return the dialect of the answer, in which one of several texts may end before another."""
        return _SEVERAL if asks_for_several(request.root) else self

    def place(self, root: Any, leaf: Leaf) -> Running:
        """Return the identity of the running text that a leaf continues."""
        return numbered(root, leaf)

    def is_final(self, data: str, document: Document | None) -> bool:
        """Return whether the event is the last one."""
        if document is None:
            return super().is_final(data, document)
        return fields(document.root).get("stop") is True

    def refuse_stream(self, refusal: Refusal, sequence: int) -> bytes:
        """Return the error object as an event."""
        return b"data: " + self.refuse(refusal) + b"\n\n"


class _Several(LlamaCpp):
    """llama.cpp's answer to several prompts: it ends with its last byte."""

    def is_final(self, data: str, document: Document | None) -> bool:
        """Return whether an event is a mark of the end."""
        return Dialect.is_final(self, data, document)


_SEVERAL = _Several()


class SGLang(Dialect):
    """SGLang, and servers like it. Its error object has the fields of OpenAI's. Events have the number of their prompt.

    Each event repeats the whole text so far, unless the server is told to send pieces: then it has fewer tokens than
    the count says.
    """

    name = "text-generation"
    is_repetitive = True
    request = Table(
        *COMMON,
        text("text", "prompt"),
        unreadable("input_ids", "input_embeds"),
        media("image_data", "image_data[]", "audio_data", "audio_data[]", "video_data", "video_data[]"),
        tools("sampling_params.json_schema", "sampling_params.regex", "sampling_params.ebnf"),
        inert("lora_path", "bootstrap_host", "stream_options.*"),
    )
    answer = event = Table(
        *COMMON,
        text("text"),
        tokens(
            "output_ids",
            "meta_info.input_token_logprobs",
            "meta_info.output_token_logprobs",
            "meta_info.input_top_logprobs",
            "meta_info.output_top_logprobs",
            "meta_info.input_token_ids_logprobs",
            "meta_info.output_token_ids_logprobs",
            everywhere=True,
        ),
        inert("meta_info.finish_reason.type", "meta_info.weight_version"),
        opaque("meta_info.hidden_states"),
    )

    def block_answer(self, path: str) -> type[BlockAnswer] | None:
        """Return the answer of a block."""
        return SGLangAnswer

    def kind(self, root: Any, leaf: Leaf) -> Kind:
        """Return whether a leaf is a new piece, or all of the text so far."""
        event = fields(root)
        count = fields(event.get("meta_info")).get("completion_tokens")
        given = len(items(event.get("output_ids")))
        is_piece = isinstance(count, int) and 0 < given < count
        return Kind.TEXT if is_piece or leaf.path[:1] != ("text",) else Kind.REPEAT

    def place(self, root: Any, leaf: Leaf) -> Running:
        """Return the identity of the running text that a leaf continues."""
        return numbered(root, leaf)


class VLLM(Dialect):
    """vLLM's generation without a tokenizer: token numbers in, token numbers out. Aim can read neither."""

    name = "text-generation"
    request = Table(*COMMON, MODEL, unreadable("token_ids"))
    answer = event = Table(*COMMON, unreadable("choices[].token_ids"))
