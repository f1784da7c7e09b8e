"""The request leg and whole answers keep every invariant, for any possible order of events of Envoy, Aim and clocks.

`World` raises AssertionError for a command that is not allowed at its time.
"""

from __future__ import annotations

import json
from collections.abc import Callable

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from extproc.core.errors import Reason
from extproc.core.events import BodyReceived, Event, HeadersReceived, RoomDemanded, TrailersReceived, VerdictReached
from extproc.core.policy import Limits
from extproc.core.verdict import Allow, Anonymize, Block, Failed, Monitor, Outcome
from extproc.core.vocabulary import BodyMode, Hook, Leg
from tests.fakes.rig import chat_answer
from tests.fakes.world import World, policy

SECRET = "SECRET"
MASKED = "[X]"
PROMPT = json.dumps({"messages": [{"role": "user", "content": f"{SECRET} one"}]}).encode()
TEXTS = (f"{SECRET} two", f"{SECRET} three")
ANSWER = chat_answer(*TEXTS)
LARGE = PROMPT + b" " * 4096
UNREADABLE = b'{"messages": [{"content": "SECRET"'

_HOOKS = (
    {Hook.PRE_CALL, Hook.OUTPUT},
    {Hook.PRE_CALL},
    {Hook.OUTPUT},
    {Hook.MODERATION, Hook.OUTPUT},
    {Hook.PRE_CALL, Hook.MODERATION, Hook.OUTPUT},
)
_WORDS: dict[str, Outcome] = {
    "allow": Allow(),
    "monitor": Monitor(),
    "block": Block("no"),
    "fail": Failed(Reason.TIMEOUT),
}


class Machine(RuleBasedStateMachine):
    """One exchange with a whole answer, and a record of what was allowed."""

    @initialize(
        hooks=st.sampled_from(_HOOKS),
        is_open=st.booleans(),
        mode=st.sampled_from(BodyMode),
        path=st.sampled_from(["/v1/chat/completions", "/v1/chat/completions", "/v1/chat/completions", "/other"]),
        body=st.sampled_from([PROMPT, PROMPT, PROMPT, LARGE, UNREADABLE, b""]),
        has_trailers=st.booleans(),
        answer=st.sampled_from([ANSWER, ANSWER, UNREADABLE, b"{}", b""]),
    )
    def begin(
        self,
        hooks: set[Hook],
        is_open: bool,
        mode: BodyMode,
        path: str,
        body: bytes,
        has_trailers: bool,
        answer: bytes,
    ) -> None:
        self.policy = policy(hooks=hooks, failure_mode_allow=is_open)
        self.world = World(self.policy, Limits(request_bytes=2048, response_bytes=2048), mode)
        self.is_open = is_open
        self.is_inspected = path != "/other"
        self.has_trailers = has_trailers
        self.request, self.answer = body, answer
        self.unsent: dict[Leg, bytes | None] = {Leg.REQUEST: body, Leg.RESPONSE: None}
        self.verdicts: dict[Hook, list[str]] = {}
        self.response_state = "none"
        self.send(HeadersReceived(Leg.REQUEST, ((":method", "POST"), (":path", path))))

    def send(self, event: Event) -> None:
        assert len(self.world.send(event)) <= 16

    @rule(data=st.data())
    def step(self, data: st.DataObject) -> None:
        """Perform one of the steps that are possible now. With separate rules, verdicts would be rare."""
        sizes, flags = st.sampled_from([40, 1000, 3000]), st.booleans()
        steps: list[Callable[[], None]] = [self.late_verdict]
        if self.world.detections:
            words, others = st.sampled_from([*_WORDS, "anonymize"]), st.sampled_from(list(_WORDS))
            steps += [lambda: self.verdict(data.draw(words), data.draw(others))] * 2
        if self.unsent[Leg.REQUEST] is not None:
            steps += [lambda: self.request_body(data.draw(sizes))] * 3
        if self.unsent[Leg.RESPONSE] is not None:
            steps += [lambda: self.response_body(data.draw(sizes), data.draw(flags))] * 3
        if self.response_state == "none" and self.is_upstream_asked:
            steps += [lambda: self.response_headers(data.draw(st.sampled_from(["200", "200", "200", "500"])))] * 2
        elif self.response_state == "none" and data.draw(st.integers(0, 9)) == 9:
            steps = [self.local_reply]
        data.draw(st.sampled_from(steps))()

    # -- Envoy ------------------------------------------------------------------------------------------------------

    def pieces(self, leg: Leg, size: int) -> tuple[bytes, bool]:
        """Return the next bytes of a leg, and whether they are its last."""
        left = self.unsent[leg]
        assert left is not None
        is_whole = leg is Leg.REQUEST and self.world.mode is BodyMode.BUFFERED
        piece, rest = (left, b"") if is_whole else (left[:size], left[size:])
        self.unsent[leg] = rest or None
        return piece, not rest

    def request_body(self, size: int) -> None:
        upstream = self.world.upstream
        if upstream.headers is not None and upstream.headers.replace_body:
            self.unsent[Leg.REQUEST] = None  # it bypasses the sidecar
            return
        piece, is_last = self.pieces(Leg.REQUEST, size)
        self.send(BodyReceived(Leg.REQUEST, piece, end_of_stream=is_last and not self.has_trailers))
        if is_last and self.has_trailers:
            self.send(TrailersReceived(Leg.REQUEST))

    @property
    def is_upstream_asked(self) -> bool:
        """Return whether the whole request was released: only then the upstream answers."""
        out = self.world.upstream
        if out.headers is None or self.unsent[Leg.REQUEST] is not None:
            return False
        return out.headers.replace_body or out.is_ended or out.buffered is not None

    def response_headers(self, status: str) -> None:
        self.status = status
        self.unsent[Leg.RESPONSE] = self.answer
        self.response_state = "begun"
        self.send(HeadersReceived(Leg.RESPONSE, ((":status", status), ("content-type", "application/json"))))

    def local_reply(self) -> None:
        """Let Envoy answer itself while the request is held."""
        self.status = "504"
        self.unsent = {Leg.REQUEST: None, Leg.RESPONSE: b"late"}
        self.response_state = "begun"
        self.send(HeadersReceived(Leg.RESPONSE, ((":status", "504"), ("content-type", "text/plain"))))

    def response_body(self, size: int, has_trailers: bool) -> None:
        piece, is_last = self.pieces(Leg.RESPONSE, size)
        self.send(BodyReceived(Leg.RESPONSE, piece, end_of_stream=is_last and not has_trailers))
        if is_last and has_trailers:
            self.send(TrailersReceived(Leg.RESPONSE))
        if is_last:
            self.response_state = "ended"

    # -- Aim --------------------------------------------------------------------------------------------------------

    def verdict(self, word: str, other: str) -> None:
        detection = next(iter(self.world.detections.values()))
        count = len(detection.inputs)
        words = [word, *[other] * (count - 1)]
        self.verdicts.setdefault(detection.hook, []).extend(words)
        outcomes = [
            _WORDS[one]
            if one in _WORDS
            else Anonymize((*(MASKED for _ in asked.messages), *([MASKED] if asked.output is not None else [])))
            for one, asked in zip(words, detection.inputs, strict=True)
        ]
        before = len(self.world.reports)
        self.world.judge(*outcomes)
        assert len(self.world.reports) - before <= count + 1

    def late_verdict(self) -> None:
        """Deliver a verdict of a detection that no longer matters, and demand room of an exchange without a stream."""
        assert self.world.exchange.handle(RoomDemanded(), self.world.now) == []
        assert self.world.exchange.handle(VerdictReached(99, (Block("no"),)), self.world.now) == []

    # -- the promises ------------------------------------------------------------------------------------------------

    @property
    def passing(self) -> set[str]:
        """The outcomes with which a text is released unchanged."""
        return {"allow", "monitor"} | ({"fail"} if self.is_open else set())

    def allows(self, hook: Hook) -> bool:
        """Return whether Aim's verdict for a hook, or the policy without a verdict, releases the texts unchanged."""
        words = self.verdicts.get(hook, [])
        return bool(words) and set(words) <= self.passing

    @invariant()
    def nothing_of_the_request_leaves_before_its_verdict(self) -> None:
        if not hasattr(self, "world") or not self.is_inspected or Hook.PRE_CALL not in self.policy.hooks:
            return
        out = self.world.upstream
        released = out.body + (out.buffered.body or b"" if out.buffered is not None else b"")
        is_as_it_came = out.buffered is not None and out.buffered.body is None and SECRET.encode() in self.request
        has_passed_by = out.headers is not None and out.headers.replace_body
        if SECRET.encode() in released or is_as_it_came or has_passed_by:
            is_unread = self.is_open and self.request in (LARGE, UNREADABLE)
            assert self.allows(Hook.PRE_CALL) or is_unread

    @invariant()
    def nothing_of_the_answer_leaves_before_its_verdict(self) -> None:
        if not hasattr(self, "world") or not self.is_inspected or self.response_state == "none":
            return
        if self.status != "504" and Hook.OUTPUT in self.policy.hooks:
            words = self.verdicts.get(Hook.OUTPUT, [])
            for number, text in enumerate(TEXTS):
                if text.encode() in self.world.response.body:
                    assert "block" not in words
                    assert words[number] in self.passing
            if UNREADABLE in self.world.response.body:
                assert self.is_open
        if self.world.response.headers is not None and Hook.MODERATION in self.policy.hooks and self.status != "504":
            assert not any(asked.hook is Hook.MODERATION for asked in self.world.detections.values())

    @invariant()
    def an_end_is_an_end(self) -> None:
        if not hasattr(self, "world"):
            return
        world = self.world
        assert world.reset is None
        assert not (world.reply is not None and world.response.headers is not None)
        if world.is_closed:
            assert world.reply is not None or world.response.is_ended
            assert world.held == 0
            assert not world.detections
            for event in (BodyReceived(Leg.REQUEST, b"x"), TrailersReceived(Leg.RESPONSE)):
                assert world.exchange.handle(event, world.now) == []
        if world.is_complete:
            assert world.held == 0

    @property
    def is_replaced(self) -> bool:
        """Return whether the answer is an error that cannot be read, so that another body takes its place."""
        is_read = self.is_inspected and Hook.OUTPUT in self.policy.hooks and not self.is_open
        return is_read and self.status == "500" and self.answer == UNREADABLE

    @invariant()
    def what_aim_lets_pass_leaves_as_it_came(self) -> None:
        if not hasattr(self, "world") or not self.world.is_complete or self.world.reply is not None:
            return
        words = {word for said in self.verdicts.values() for word in said}
        if words <= self.passing and self.response_state != "none" and not self.is_replaced:
            assert self.world.response.body == (b"late" if self.status == "504" else self.answer)

    def teardown(self) -> None:
        """Check that the exchange ends with the last verdict and the last byte."""
        if not hasattr(self, "world"):
            return
        for _ in range(20):
            if self.world.detections:
                self.verdict("allow", "allow")
            elif self.world.is_closed:
                break
            elif self.unsent[Leg.REQUEST] is not None:
                self.request_body(3000)
            elif self.response_state == "none":
                self.response_headers("200") if self.is_upstream_asked else self.local_reply()
            elif self.unsent[Leg.RESPONSE] is not None:
                self.response_body(3000, False)
            else:
                break
        assert self.world.is_complete
        self.an_end_is_an_end()
        assert self.world.exchange.deadline is None
        assert self.world.session is None


def test_every_order_of_events_keeps_the_promises() -> None:
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=300, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
