"""Exchanges whose profile depends on the model that the request names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from extproc.core.commands import UseProfile
from extproc.core.errors import Reason
from extproc.core.events import BodyReceived, HeadersReceived
from extproc.core.policy import Policy
from extproc.core.verdict import Block, Failed
from extproc.core.vocabulary import Hook, Leg
from tests.fakes.rig import chat_answer, chat_request, chat_stream
from tests.fakes.world import World, policy

OPEN = policy(name="open", hooks=["output"], failure_mode_allow=True, block_message="Not here.")
STRICT = policy(name="strict", hooks=["pre_call", "moderation"], inspect=["tools", "embeddings"])
NOTHING = policy(name="nothing", hooks=[])


def world(models: Mapping[str, Policy], **profile: Any) -> World:
    return World(policy(models=models, **profile))


def chat(model: object, *, stream: bool = False) -> bytes:
    return json.dumps(chat_request("Hello", stream=stream) | {"model": model}).encode()


def hooks(it: World) -> list[Hook]:
    return [each.hook for each in it.asked]


def test_hooks_and_failure_policy_are_those_of_the_models_profile() -> None:
    it = world({"gpt-4*": OPEN}).request(chat("gpt-4o"))
    assert it.asked == []
    assert it.upstream.buffered is not None
    it.head("application/json").body(chat_answer("Hi"), end=True)
    assert hooks(it) == [Hook.OUTPUT]
    it.judge(Failed(Reason.TIMEOUT))
    assert it.response.body == chat_answer("Hi")
    assert (it.record.profile, it.record.outcome) == ("open", "failed_open")


def test_block_message_is_that_of_the_models_profile() -> None:
    it = world({"gpt-4*": OPEN}).request(chat("gpt-4o")).head("application/json").body(chat_answer("Hi"), end=True)
    it.judge(Block("Aim's words."))
    assert it.reply is not None
    assert b"Not here." in it.reply.body


@pytest.mark.parametrize("model", ["gpt-3.5", "my-gpt-4", None, 4, {"gpt-4": 1}])
def test_other_models_keep_the_profile_of_the_mesh(model: object) -> None:
    it = world({"gpt-4*": OPEN}).request(chat(model))
    assert hooks(it) == [Hook.PRE_CALL]
    assert it.record.profile == "default"


def test_first_matching_glob_wins_whatever_the_letter_case() -> None:
    it = world({"GPT-4o*": STRICT, "gpt-4*": NOTHING}).request(chat("gpt-4O-mini"))
    assert it.record.profile == "strict"


def test_first_model_of_a_list_that_matches_decides() -> None:
    it = world({"a": STRICT, "b": NOTHING}).request(chat(["c", "b", "a"]))
    assert it.record.profile == "nothing"


def test_profile_is_used_before_the_first_detection() -> None:
    it = world({"*": STRICT})
    it.send(HeadersReceived(Leg.REQUEST, ((":method", "POST"), (":path", "/v1/chat/completions"))))
    commands = it.send(BodyReceived(Leg.REQUEST, chat("x"), end_of_stream=True))
    kinds = [type(each).__name__ for each in commands]
    assert kinds.index("UseProfile") < kinds.index("ReportOutcome") < kinds.index("Detect")
    assert UseProfile("strict") in commands
    assert it.record.take_untold()["profile"] == "strict"


def test_model_in_the_path_decides() -> None:
    it = world({"strict-*": STRICT})
    it.request(chat("other"), path="/openai/deployments/strict-1/chat/completions?api-version=1")
    assert it.record.profile == "strict"


def test_profile_without_hooks_releases_both_legs_unread() -> None:
    it = world({"*": NOTHING}).request(chat("x")).head("application/json").body(chat_answer("Hi"), end=True)
    assert it.asked == []
    assert it.response.body == chat_answer("Hi")
    assert it.response.headers is not None
    assert not it.response.headers.set
    assert (it.record.profile, it.record.outcome) == ("nothing", "unmatched")


def test_stream_is_carried_under_the_models_profile() -> None:
    it = world({"x": OPEN}).request(chat("x", stream=True))
    assert it.session is not None
    it.head().body(b"".join(chat_stream("Hi")))
    it.lose()
    assert b"Hi" in it.response.body


def test_session_is_not_opened_if_the_models_profile_has_no_output_hook() -> None:
    it = world({"x": STRICT}).request(chat("x", stream=True)).judge()
    assert it.session is None


def test_moderation_of_the_models_profile_follows_its_pre_call() -> None:
    it = world({"x": STRICT}, hooks=["output"]).request(chat("x")).judge()
    assert hooks(it) == [Hook.PRE_CALL, Hook.MODERATION]


EMBEDDING = json.dumps({"model": "e", "input": "Hello"}).encode()


def test_models_profile_may_switch_an_inspection_on() -> None:
    it = world({"e": STRICT}).request(EMBEDDING, path="/v1/embeddings")
    assert hooks(it) == [Hook.PRE_CALL]
    assert it.record.outcome == "allowed"


def test_inspection_stays_off_for_other_models() -> None:
    it = world({"other": STRICT}).request(EMBEDDING, path="/v1/embeddings")
    it.head("application/json").body(b"{}", end=True)
    assert it.asked == []
    assert it.upstream.buffered is not None
    assert it.response.headers is not None
    assert not it.response.headers.set
    assert it.record.outcome == "unmatched"


def test_models_profile_may_switch_an_inspection_off() -> None:
    it = world({"e": OPEN}, inspect=["embeddings"]).request(EMBEDDING, path="/v1/embeddings")
    assert it.asked == []
    assert it.record.outcome == "unmatched"


def test_unknown_paths_follow_the_model_too() -> None:
    it = world({"x": OPEN}).request(chat("x"), ("content-type", "application/json"), path="/custom")
    assert it.asked == []
    assert (it.record.profile, it.record.dialect, it.record.outcome) == ("open", "generic", "allowed")


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/api/chat"])
@pytest.mark.parametrize("names", [{"model": "lax", "Model": "x"}, {"MODEL": "x"}])
def test_model_in_another_letter_case_is_unreadable_because_some_servers_read_it(
    names: dict[str, str], path: str
) -> None:
    it = World().request(json.dumps(chat_request("Hello") | names).encode(), path=path)
    assert it.asked == []
    assert it.reply is not None
    assert (it.reply.status, it.record.code) == (400, "invalid_body")


def test_unknown_paths_refuse_a_model_in_another_letter_case_too() -> None:
    body = json.dumps({"Model": "x", "zq": "Hello"}).encode()
    it = world({"x": STRICT}).request(body, ("content-type", "application/json"), path="/custom")
    assert it.asked == []
    assert it.code == "invalid_body"


def test_unreadable_request_meets_the_failure_policy_of_the_mesh() -> None:
    it = world({"*": OPEN}).request(b'{"model": "x"')
    assert it.code == "invalid_body"


def test_request_without_a_body_follows_its_path() -> None:
    it = world({"g*": OPEN}).request(None, path="/v1beta/models/g-1:generateContent")
    assert (it.record.profile, it.record.outcome) == ("open", "allowed")


class TestStoredAnswer:
    PATH = "/v1/responses/resp_1"
    BODY = json.dumps({"id": "resp_1", "model": "m-1", "output": [{"content": [{"text": "Hi there"}]}]}).encode()

    def stored(self, models: Mapping[str, Policy], **profile: Any) -> World:
        return world(models, **profile).request(None, path=self.PATH, method="GET").head("application/json")

    def test_its_own_model_decides(self) -> None:
        it = self.stored({"m-*": OPEN}).body(self.BODY, end=True).judge(Failed(Reason.TIMEOUT))
        assert it.response.body == self.BODY
        assert it.record.profile == "open"

    def test_another_profile_than_that_of_the_mesh_may_read_it(self) -> None:
        it = self.stored({"m-*": OPEN}, hooks=["pre_call"]).body(self.BODY, end=True)
        assert hooks(it) == [Hook.OUTPUT]

    @pytest.mark.parametrize("models", [{"other": OPEN}, {"m-*": STRICT}, {"m-*": NOTHING}])
    def test_it_passes_without_the_hook(self, models: dict[str, Policy]) -> None:
        it = self.stored({"x": OPEN} | models, hooks=["pre_call"]).body(self.BODY, end=True)
        assert it.asked == []
        assert it.response.body == self.BODY

    @pytest.mark.parametrize("hooks", [["pre_call"], ["output"]])
    def test_stream_is_verified_under_the_profile_of_the_mesh(self, hooks: list[str]) -> None:
        """Its model is known too late, so it is enough that the profile of some model demands it."""
        it = world({"other": OPEN}, hooks=hooks).request(None, path=self.PATH, method="GET").head()
        it.body(b'data: {"type": "x", "zq": "a text"}\n\n')
        assert len(it.opened) == 1
        assert it.record.profile == "default"
        it.lose()
        assert b"a text" not in it.response.body
        assert it.code == "guardrail_unavailable"

    def test_stream_passes_if_no_profile_demands_its_verification(self) -> None:
        it = world({"*": STRICT}, hooks=["pre_call"]).request(None, path=self.PATH, method="GET").head()
        it.body(b'data: {"type": "x", "zq": "a text"}\n\n', end=True)
        assert it.opened == []
        assert b"a text" in it.response.body


class TestCancelledAnswer:
    """The answer to a cancellation is what was made so far; the request names no model."""

    BODY = TestStoredAnswer.BODY

    def cancelled(self, models: Mapping[str, Policy], request: bytes | None = None, **profile: Any) -> World:
        it = world(models, **profile).request(request, path="/v1/responses/resp_1/cancel")
        return it.head("application/json").body(self.BODY, end=True)

    @pytest.mark.parametrize("request_", [None, b"{}", b'{"model": "lax"}'])
    def test_its_own_model_decides(self, request_: bytes | None) -> None:
        it = self.cancelled({"m-*": OPEN, "lax": NOTHING}, request_, hooks=["pre_call"])
        assert hooks(it) == [Hook.OUTPUT]
        assert it.record.profile == "open"

    def test_it_passes_without_the_hook(self) -> None:
        it = self.cancelled({"x": OPEN, "m-*": STRICT}, hooks=["pre_call"])
        assert it.asked == []
        assert it.response.body == self.BODY
