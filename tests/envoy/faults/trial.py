"""A trial of one fault on one leg under one policy: cause the fault, check the outcome, and look for leftovers."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from extproc.core.errors import ContentError
from extproc.core.vocabulary import Hook
from tests.envoy.apis import CHAT
from tests.envoy.faults.chain import SECONDS, Chain, Count
from tests.envoy.faults.fault import Fault, Leg, Outcome, Whole
from tests.fakes.aim import AimSession, Answer, Question, allow, text_of
from tests.fakes.client import Got, exchange
from tests.fakes.upstream import pieces, whole

JSON = (("content-type", "application/json"),)
PROMPT = "prompt-7f3a"
TEXTS = ("One", " two-7f3a", " three-7f3a")
EVENT_STREAM = (("content-type", "text/event-stream"), ("transfer-encoding", "chunked"))

_CONTENT_ERRORS: tuple[type[ContentError], ...] = (ContentError, *ContentError.__subclasses__())
_BODY_REASONS = {error.reason for error in _CONTENT_ERRORS}
_HOOKS = {Leg.REQUEST: Hook.PRE_CALL, Leg.ANSWER: Hook.OUTPUT, Leg.STREAM: Hook.OUTPUT}

_QUESTIONS = {
    Leg.REQUEST: b"POST /detect/openai",
    Leg.ANSWER: b"POST /detect/output",
    Leg.STREAM: b"GET /detect/output/ws",
}

Act = Callable[["Trial"], Awaitable[object]]
Client = Callable[["Trial"], Awaitable[Got | None]]


async def usual_client(trial: Trial) -> Got | None:
    """Send the request and read the answer to its end."""
    return await exchange(trial.chain.url, "POST", trial.path, trial.headers, trial.request, on_data=trial.hear)


def in_the_middle(act: Act) -> Callable[[Trial], None]:
    """Perform `act` while Aim is silent on the leg."""

    def arrange(trial: Trial) -> None:
        trial.hold()

        async def client(trial: Trial) -> Got | None:
            async with asyncio.TaskGroup() as group:
                answered = group.create_task(usual_client(trial))
                await trial.reached.wait()
                await act(trial)
            return answered.result()

        trial.client = client

    return arrange


class Trial:
    """The parts of an exchange that a row may change before it is sent; the others have defaults."""

    def __init__(self, chain: Chain, leg: Leg, profile: str) -> None:
        self.chain = chain
        self.leg = leg
        self.profile = profile
        self.headers: tuple[tuple[str, str], ...] = JSON
        self.request: Any = CHAT.request(PROMPT, stream=leg is Leg.STREAM)
        self.texts = (PROMPT, *TEXTS)
        self.events = CHAT.events(*TEXTS)
        self.said = b"".join(self.events) if leg is Leg.STREAM else CHAT.answer("".join(TEXTS))
        self.client: Client = usual_client
        self.heard = asyncio.Event()
        self.reached = asyncio.Event()
        self.let_go = asyncio.Event()
        self.given_up = asyncio.Event()
        chain.upstream.answer = pieces(self.events) if leg is Leg.STREAM else whole(self.said)

    @property
    def path(self) -> str:
        return f"/{self.profile}{CHAT.path}"

    def judge_one_leg(self) -> None:
        """Use the profile with the same policy in which only this leg is judged."""
        self.profile += "-request" if self.leg is Leg.REQUEST else "-answer"

    @property
    def question(self) -> bytes:
        """The beginning of this leg's call to Aim."""
        return _QUESTIONS[self.leg]

    def hear(self) -> None:
        """Record that the client has received part of the body."""
        self.heard.set()
        for request in self.chain.upstream.requests:
            request.heard.set()

    def hold(self) -> None:
        """Let Aim be silent on this leg, in mid-stream or after the call, until `let_go`; `reached` is set then.

        `given_up` is set when the call's connection has ended, or when the call is answered.
        """

        async def judge(question: Question) -> Answer:
            self.reached.set()
            try:
                await self.let_go.wait()
            finally:
                self.given_up.set()
            return await allow(question)

        async def script(session: AimSession) -> None:
            while (chunk := await session.receive()) is not None:
                if text_of(chunk) == TEXTS[1]:
                    await self.heard.wait()
                    self.reached.set()
                    await self.let_go.wait()
                await session.verify(chunk)
            await session.done()

        self.judge(judge)
        self.chain.aim.script = script

    def judge(self, answer: Callable[[Question], Awaitable[Answer]]) -> None:
        """Answer the leg's call; allow the other leg."""
        hook = _HOOKS[self.leg]

        async def judge(question: Question) -> Answer:
            return await (answer(question) if question.hook == hook else allow(question))

        self.chain.aim.judge = judge

    def upstream(self, said: bytes) -> None:
        """Set the upstream's answer to `said`."""
        self.said = said
        self.chain.upstream.answer = pieces([said]) if self.leg is Leg.STREAM else whole(said)


async def run(chain: Chain, fault: Fault, leg: Leg, policy: str) -> None:
    """Cause `fault` and compare everything that happened with its row."""
    outcome = fault.legs[leg][policy == "open"]
    trial = Trial(chain, leg, fault.opened_by if policy == "open" else policy)
    if (arranged := fault.arrange(trial)) is not None:
        await arranged
    before = await chain.counts()
    async with asyncio.timeout(fault.seconds):
        got = await trial.client(trial)
    outcome.check(trial, got)
    _nothing_unverified(trial, outcome, got)
    if not fault.holds_till_mended:
        await freed(chain, fault.seconds)
    sessions = tuple(chain.aim.sessions)
    trial.let_go.set()
    await chain.mend()
    await freed(chain)
    for session in sessions:
        async with asyncio.timeout(SECONDS):
            await session.closed.wait()
    if fault.is_counted:
        assert await chain.counts() - before == expected(fault, leg, outcome)
    if fault.recovers:
        await healthy(chain)


def expected(fault: Fault, leg: Leg, outcome: Outcome) -> Counter[Count]:
    """Return the expected counts."""
    counts: Counter[Count] = Counter({("extproc_exchanges_total", outcome.label): 1})
    counts += Counter({("extproc_exchanges_total", label): 1 for label in fault.others})
    if fault.reason is not None:
        if fault.reason not in _BODY_REASONS:
            counts[("extproc_detection_errors_total", _HOOKS[leg], fault.reason)] = 1
        if outcome.opens:
            on = "request" if leg is Leg.REQUEST else "response"
            counts[("extproc_fail_open_total", on, fault.reason)] = 1
    return counts


def _nothing_unverified(trial: Trial, outcome: Outcome, got: Got | None) -> None:
    """Check that only verified texts were released, unless the policy opens."""
    if outcome.opens or isinstance(outcome, Whole):
        if trial.leg is Leg.REQUEST and isinstance(trial.request, bytes):
            assert trial.request in [request.body for request in trial.chain.upstream.requests]
        return
    shown = getattr(outcome, "events", 0)
    for number, text in enumerate(TEXTS, 1):
        assert number < shown or got is None or text.encode() not in got.body
    if trial.leg is Leg.REQUEST:
        assert not any(PROMPT.encode() in request.body for request in trial.chain.upstream.requests)


async def freed(chain: Chain, seconds: float = SECONDS) -> None:
    """Wait until nothing of any exchange is left in the sidecar."""
    held: Any = None
    try:
        async with asyncio.timeout(seconds):
            while held := await chain.held():  # noqa: ASYNC110
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(f"still held: {held}") from None


async def healthy(chain: Chain) -> None:
    """Check that the next exchange works as usual."""
    trial = Trial(chain, Leg.STREAM, "closed")
    async with asyncio.timeout(SECONDS):
        got = await trial.client(trial)
    Whole().check(trial, got)
    assert [request.body for request in chain.upstream.requests] == [trial.request]
    await freed(chain)
    await chain.mend()
