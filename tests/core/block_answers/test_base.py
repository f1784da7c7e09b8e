"""What the answers of blocks are made of, and the bounds of what they keep."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.core.block_answers.base import DONE, MOST_KEPT, BlockAnswer, Choices, Facts, Pieces, name, number
from extproc.core.block_answers.chat import ChatAnswer, CompletionAnswer
from extproc.core.block_answers.cohere import CohereAnswer, CohereAnswerV1
from extproc.core.block_answers.conversations import ConversationAnswer
from extproc.core.block_answers.converse import ConverseAnswer
from extproc.core.block_answers.gemini import CodeAssistAnswer, GeminiAnswer, InteractionAnswer
from extproc.core.block_answers.messages import BedrockMessageAnswer, MessageAnswer, TextCompletionAnswer
from extproc.core.block_answers.ollama import OllamaChatAnswer, OllamaGenerateAnswer
from extproc.core.block_answers.responses import ResponseAnswer
from extproc.core.block_answers.text_generation import LlamaCppAnswer, SGLangAnswer, TextGenerationAnswer

FACTS = Facts("call-1", "m", 1_700_000_000)

KINDS: tuple[type[BlockAnswer], ...] = (
    BedrockMessageAnswer,
    ChatAnswer,
    CodeAssistAnswer,
    CohereAnswer,
    CohereAnswerV1,
    CompletionAnswer,
    ConversationAnswer,
    ConverseAnswer,
    GeminiAnswer,
    InteractionAnswer,
    LlamaCppAnswer,
    MessageAnswer,
    OllamaChatAnswer,
    OllamaGenerateAnswer,
    ResponseAnswer,
    SGLangAnswer,
    TextCompletionAnswer,
    TextGenerationAnswer,
)

_KEYS = """
choices candidates content_index contentBlockIndex conversation_id created delta event_type finish_reason id index
interaction item meta_info model output_ids output_index part response sequence_number summary_index text token type
usage item_id completion_tokens created_at arguments
""".split()  # noqa: SIM905 - a list of so many words is hard to read
_WORDS = """
response.output_item.added response.output_item.done response.content_part.added response.content_part.done
response.output_text.delta response.output_text.done response.reasoning_summary_part.added response.created
response.function_call_arguments.delta content_block_start content_block_stop message_start content-start content-end
citation-start tool-call-start text-generation step.start step.stop x
""".split()  # noqa: SIM905
_values = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 200) | st.floats() | st.sampled_from(_WORDS) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_KEYS), inner, max_size=5),
    max_leaves=12,
)


@given(st.sampled_from(KINDS), st.lists(_values, max_size=6))
def test_any_documents_can_be_followed(kind: type[BlockAnswer], documents: list[Any]) -> None:
    answer = kind(FACTS)
    for each in documents:
        answer.follow(json.loads(json.dumps(each)))
        assert answer.kept >= 0
    events = answer.rest("No.")
    assert "No." in json.dumps(events)
    assert json.loads(json.dumps(answer.whole("No.")))


@given(st.integers(0, 253_402_300_799))
def test_time_is_written_as_rfc_3339_says(seconds: int) -> None:
    expected = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert Facts("", "", seconds).created_at == expected.rjust(20, "0")


def test_names_and_numbers_of_the_upstream_are_bounded() -> None:
    assert [name(value, "x") for value in ("a", "", None, 7, "a" * 513)] == ["a", "x", "x", "x", "x"]
    assert [number(value) for value in (0, 7, -1, True, 2**60, "1", None)] == [0, 7, None, None, None, None, None]


def test_number_of_choices_is_bounded() -> None:
    choices = Choices()
    for index in range(1000):
        choices.see(index, has_ended=index != 5)
    choices.see(5, has_ended=True)
    choices.see(5, has_ended=False)
    assert choices.open == list(range(128)), "all have ended, so all get the message"


def test_text_that_is_too_long_is_not_kept() -> None:
    pieces = Pieces()
    pieces.add("a")
    pieces.add(None)
    assert (pieces.text, pieces.kept > 0) == ("a", True)
    pieces.add("b" * MOST_KEPT)
    pieces.add("c")
    assert (pieces.text, pieces.kept) == ("", 0)
    pieces.replace("d")
    assert pieces.text == "d"


# -- single shapes ----------------------------------------------------------------------------------------------------


def test_every_open_choice_gets_the_message() -> None:
    answer = ChatAnswer(FACTS)
    for index, finish in ((0, None), (1, "stop"), (2, None)):
        choices = [{"index": index, "delta": {"content": "Hi"}, "finish_reason": finish}]
        answer.follow({"id": "c1", "created": 9, "model": "n", "choices": choices})
    chunks = [value for _, value in answer.rest("No.") if value != DONE]
    assert {(each["id"], each["created"], each["model"]) for each in chunks} == {("c1", 9, "n")}
    choices = [each["choices"][0] for each in chunks]
    assert [(each["index"], each["delta"], each["finish_reason"]) for each in choices] == [
        (0, {"content": "No."}, None),
        (0, {}, "content_filter"),
        (2, {"content": "No."}, None),
        (2, {}, "content_filter"),
    ]


def test_sglang_repeats_the_text_so_far_unless_the_server_sends_pieces() -> None:
    def said(*texts: str, **more: Any) -> str:
        answer = SGLangAnswer(FACTS)
        for count, text in enumerate(texts, 2):
            answer.follow({"text": text, "output_ids": [7], **more, "meta_info": {"completion_tokens": count}})
        (_, value), _ = answer.rest("No.")
        return str(value["text"])

    assert said("Hi", " you") == "No."
    assert said("Hi", "Hi you", output_ids=[]) == "Hi youNo."
    assert said("Hi", "a" * (MOST_KEPT + 1), output_ids=[]) == "No."


def test_sglang_numbers_its_texts_if_the_server_does() -> None:
    answer = SGLangAnswer(FACTS)
    answer.follow({"index": 1, "meta_info": {}})
    answer.follow({"index": 1, "text": "Hi", "meta_info": {"id": "a"}})
    assert answer.rest("No.")[0] == (
        "",
        {"text": "HiNo.", "meta_info": {"id": "a", "finish_reason": {"type": "content_filter"}}, "index": 1},
    )
    assert answer.kept == 2


@pytest.mark.parametrize("kind", [CohereAnswerV1, TextGenerationAnswer])
def test_last_event_repeats_the_text(kind: type[BlockAnswer]) -> None:
    answer = kind(FACTS)
    answer.follow({"event_type": "text-generation", "text": "Hi ", "token": {"text": "Hi "}})
    answer.follow({"token": {"text": "</s>", "special": True}})
    last = answer.rest("No.")[-1][1]
    assert last.get("generated_text", last.get("response", {}).get("text")) == "Hi No."
    assert answer.kept > 0


def test_conversation_of_the_path_goes_on() -> None:
    answer = ConversationAnswer(Facts("call-1", "m", 0, "/v1/conversations/conv_7/restart?x=y"))
    assert answer.whole("No.")["conversation_id"] == "conv_7"


def test_open_parts_of_cohere_end_first() -> None:
    answer = CohereAnswer(FACTS)
    for kind, index in (("content-start", 0), ("citation-start", 3), ("citation-end", 3), ("tool-call-start", 1)):
        answer.follow({"type": kind, "index": index})
    assert [(kind, value.get("index")) for kind, value in answer.rest("No.")][:3] == [
        ("tool-call-end", 1),
        ("content-end", 0),
        ("content-start", 1),
    ]


class TestResponses:
    def test_items_that_are_too_large_are_forgotten(self) -> None:
        answer = ResponseAnswer(FACTS)
        answer.follow({"type": "response.created", "response": {"id": "r1", "tools": ["t" * 2 * MOST_KEPT]}})
        assert answer.kept == 0
        for index in range(3):
            item = {"id": f"i{index}", "type": "x", "result": "a" * MOST_KEPT}
            answer.follow({"type": "response.output_item.done", "output_index": index, "item": item})
            assert answer.kept < 2 * MOST_KEPT
        response = answer.rest("No.")[-1][1]["response"]
        assert (response["id"], [item["type"] for item in response["output"]]) == ("r1", ["message"])
        assert answer.rest("No.")[0][1]["output_index"] == 3

    def test_texts_that_are_too_long_are_forgotten(self) -> None:
        answer = ResponseAnswer(FACTS)
        answer.follow({"type": "response.output_item.added", "output_index": 0, "item": {"id": "i", "type": "x"}})
        delta = {"type": "response.custom_tool_call_input.delta", "output_index": 0, "delta": "a" * 1000}
        for _ in range(5000):
            answer.follow(delta)
            assert answer.kept < 3 * MOST_KEPT
        assert answer.kept < MOST_KEPT * 2

    def test_unknown_texts_end_with_their_item(self) -> None:
        answer = ResponseAnswer(FACTS)
        item = {"id": "i", "type": "shell_call", "action": {"commands": []}}
        answer.follow({"type": "response.output_item.added", "output_index": 0, "item": item})
        answer.follow({"type": "response.shell_call_command.delta", "output_index": 0, "delta": "ls"})
        answer.follow({"type": "response.output_text.delta", "output_index": 0, "delta": "of no part"})
        kinds = [kind for kind, _ in answer.rest("No.")]
        assert kinds[:2] == ["response.output_text.done", "response.output_item.done"]

    def test_what_follows_an_item_that_is_done_or_unknown_changes_nothing(self) -> None:
        answer = ResponseAnswer(FACTS)
        answer.follow({"type": "response.output_item.done", "output_index": 0, "item": {"id": "i", "type": "x"}})
        for index in (0, 1):
            answer.follow({"type": "response.output_text.delta", "output_index": index, "delta": "Hi"})
        output = answer.rest("No.")[-1][1]["response"]["output"]
        assert [each["id"] for each in output] == ["i", "msg_call-1"]

    def test_arguments_end_with_the_name_of_the_call(self) -> None:
        answer = ResponseAnswer(FACTS)
        item = {"id": "i", "type": "function_call", "name": "f", "arguments": ""}
        answer.follow({"type": "response.output_item.added", "output_index": 0, "item": item})
        answer.follow({"type": "response.function_call_arguments.delta", "output_index": 0, "delta": '{"a'})
        _, done = answer.rest("No.")[0]
        assert (done["type"], done["arguments"], done["name"]) == ("response.function_call_arguments.done", '{"a', "f")
