"""Detections over REST: calls to Aim with a deadline, retries, the breaker and a limit on the answer's size.

Every failure raises a DetectionError with its reason.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, replace

import httpx

from extproc import __version__
from extproc.aim import protocol
from extproc.aim.breaker import Breaker
from extproc.aim.retry import MAX_RETRIES, RetryBudget, delay, parse_retry_after
from extproc.aim.transport import (
    NO_FIELDS,
    PREPARED,
    UNCOUNTED_BYTES,
    ContentTooLarge,
    Fields,
    Prepared,
    ServerDisconnected,
    Target,
    ignore,
)
from extproc.config.aim import Aim
from extproc.config.keys import Keys
from extproc.core.errors import DetectionError, DetectionRejected, DetectionTimeout, DetectionUnavailable, Reason
from extproc.core.identity import Identity
from extproc.core.verdict import Block, Failed, Outcome, Verdict
from extproc.core.vocabulary import Hook, Input
from extproc.telemetry.logs import log_internal_error

Start = Callable[[Callable[[], Coroutine[None, None, None]]], asyncio.Task[None]]
"""A function that runs work in a task; the owner of the function ends the task."""

CONCURRENT = 8
"""The most detections of one `detect_all` that run concurrently."""

_ANSWER_TIMEOUTS = 4
"""The detections of one answer together may take this many times the deadline of one.

Those of the records of a request may not: while they last, Envoy waits for the sidecar, only a little longer.
"""

_ANSWER_BYTES, _ECHO = 1_048_576, 12
"""The size limit of an answer: a constant, plus a number of bytes for each byte of the call's body.

An answer lists what Aim found and may repeat the messages twice. Escaping can turn a two-byte character into six bytes.
"""

_ENDED_SECONDS = 0.5
"""A call on a connection that the server has already closed fails within this time; Aim's own work takes longer."""

_FIELDS = [("user-agent", f"aim-extproc/{__version__}"), ("accept", "*/*"), ("accept-encoding", "identity")]
"""Some firewalls reject requests that lack these header fields."""


@dataclass(frozen=True, slots=True)
class Caller:
    """The client of an exchange, as Aim sees it. The profile selects the key; both legs share the call id."""

    profile: str
    call_id: str
    identity: Identity


class _Bodies:
    """The bodies of the calls of one `detect_all`, each built when it is to be sent.

    Inputs that share their tuple of messages share its encoding. Without this, 64 texts of one answer would cost 64
    times the encoding of a long conversation. An encoding that only one input needs is not kept.
    """

    def __init__(
        self,
        form: protocol.Form,
        inputs: Sequence[Input],
        on_sent: Callable[[int], None],
        on_held: Callable[[int], None],
    ) -> None:
        self._form = form
        self._encoded: dict[int, bytes] = {}
        uses = Counter(id(input_.messages) for input_ in inputs) if len(inputs) > 1 else {}
        self._shared = {messages for messages, count in uses.items() if count > 1}
        self.on_sent = on_sent
        """Called with the size of each body that is sent."""
        self.on_held = on_held
        """Called with the bytes of answers that are held more, or less if negative."""

    def of(self, input_: Input) -> bytes:
        """Return the body for `input_`, one of the inputs of this `detect_all`."""
        messages = id(input_.messages)
        encoded = self._encoded.get(messages)
        if encoded is None and messages in self._shared:
            encoded = self._encoded[messages] = protocol.encoded_messages(input_.messages)
        return protocol.call_body(self._form, input_, encoded)


class Detector:
    """Performs detections at one Aim over REST."""

    def __init__(
        self, aim: Aim, keys: Keys, breaker: Breaker, transport: httpx.AsyncBaseTransport, start: Start
    ) -> None:
        """Create a detector for the Aim in `aim`, with calls over `transport`; `start` runs concurrent detections."""
        endpoints = protocol.endpoints(aim.api, aim.base)
        self._form: protocol.Form = aim.api
        self._base_url = httpx.URL(aim.base)
        self._request_target = Target.of(httpx.URL(endpoints.request))
        self._answer_target = Target.of(httpx.URL(endpoints.answer))
        self._clock = asyncio.get_running_loop().time
        self._timeout = aim.timeout_seconds
        self._keys = keys
        self._breaker = breaker
        self._transport = transport
        self._start = start
        self._budget = RetryBudget()

    async def is_reachable(self) -> bool:
        """Return whether Aim's address answers within the deadline with a status below 500, without a detection."""
        request = httpx.Request("HEAD", self._base_url, headers=_FIELDS)
        try:
            async with asyncio.timeout(self._timeout):
                response = await self._transport.handle_async_request(request)
                await response.aclose()
        except (TimeoutError, httpx.TransportError):
            return False
        return response.status_code < 500

    async def detect_all(
        self,
        hook: Hook,
        inputs: Sequence[Input],
        caller: Caller,
        on_sent: Callable[[int], None],
        on_held: Callable[[int], None] = ignore,
    ) -> tuple[Outcome, ...]:
        """Return an outcome for each input, in order; if one is a block, only the outcomes reached until then.

        `on_sent` is called with the number of bytes of each body that is sent, and of each one that is sent again;
        `on_held` with those of large answers, while they are read, and with as many below zero once they are not held.
        """
        bodies = _Bodies(self._form, inputs, on_sent, on_held)
        if len(inputs) == 1:
            return (await self._outcome(hook, inputs[0], caller, bodies),)
        outcomes: list[Outcome | None] = [None] * len(inputs)
        positions = iter(range(len(inputs)))
        tasks: list[asyncio.Task[None]] = []

        async def work() -> None:
            for position in positions:
                try:
                    outcome = await self._outcome(hook, inputs[position], caller, bodies)
                except Exception as error:
                    log_internal_error(error)
                    outcome = Failed(Reason.UNREADABLE_ANSWER)
                outcomes[position] = outcome
                if isinstance(outcome, Block):
                    outcomes[position] = replace(
                        outcome, input=position
                    )  # one block decides; the other outcomes do not matter
                    for task in tasks:
                        task.cancel()
                    return

        tasks += [self._start(work) for _ in range(min(CONCURRENT, len(inputs)))]
        try:
            await asyncio.wait(tasks, timeout=self._timeout * (_ANSWER_TIMEOUTS if hook is Hook.OUTPUT else 1))
        finally:
            for task in tasks:
                task.cancel()
            tasks.clear()  # each task refers to all others through this list
        reached = tuple(outcome for outcome in outcomes if outcome is not None)
        if any(isinstance(outcome, Block) for outcome in reached):
            return reached
        return tuple(outcome if outcome is not None else Failed(Reason.TIMEOUT) for outcome in outcomes)

    async def _outcome(self, hook: Hook, input_: Input, caller: Caller, bodies: _Bodies) -> Outcome:
        try:
            return await self._detect(hook, input_, caller, bodies)
        except protocol.UnknownAction as error:
            return Failed(error.reason, error.policies, error.invocation)
        except DetectionError as error:
            return Failed(error.reason)

    async def detect(self, hook: Hook, input_: Input, caller: Caller) -> Verdict:
        """Return the verdict of one detection, within the deadline and with retries where they may help.

        Raises DetectionError.
        """
        return await self._detect(hook, input_, caller, _Bodies(self._form, (input_,), ignore, ignore))

    async def _detect(self, hook: Hook, input_: Input, caller: Caller, bodies: _Bodies) -> Verdict:
        fields = protocol.headers(self._form, self._keys.of(caller.profile), hook, caller.call_id, caller.identity)
        fields += [*_FIELDS, ("content-type", "application/json")]
        with self._breaker.admit() as call:
            try:
                verdict = await self._within_deadline(input_, fields, bodies)
            except DetectionError as error:
                call.failed(error)
                raise
            call.succeeded()
            return verdict

    async def _within_deadline(self, input_: Input, fields: Fields, bodies: _Bodies) -> Verdict:
        target = self._request_target if input_.output is None else self._answer_target
        body = bodies.of(input_)
        self._budget.earn()
        clock = self._clock
        deadline = clock() + self._timeout
        try:
            async with asyncio.timeout_at(deadline):
                for attempt in range(MAX_RETRIES + 1):
                    retry_after: float | None = None
                    try:
                        response, content = await self._post(target, fields, body, bodies)
                        if response.status_code >= 400:
                            retry_after = parse_retry_after(response.headers.get("retry-after"), time.time())
                        # A usual answer comes without header fields, and httpx takes long to find none.
                        encoding = response.headers.get("content-encoding", "") if response.headers else ""
                        try:
                            return protocol.answer(self._form, input_, response.status_code, content, encoding)
                        finally:
                            if len(content) > UNCOUNTED_BYTES:
                                bodies.on_held(-len(content))
                    except DetectionUnavailable:
                        wait = delay(attempt, retry_after)
                        # A retry after the deadline would only add load.
                        if attempt == MAX_RETRIES or clock() + wait >= deadline or not self._budget.spend():
                            raise
                    await asyncio.sleep(wait)
        except TimeoutError as error:
            raise DetectionTimeout("Aim did not answer in time") from error
        raise AssertionError("the last attempt returns or raises")

    async def _post(self, target: Target, fields: Fields, body: bytes, bodies: _Bodies) -> tuple[httpx.Response, bytes]:
        """Return the response and its content, without decoding it.

        Raises DetectionUnavailable without a complete response, DetectionRejected for a response that is too large.
        """
        prepared = Prepared(target, fields, _ECHO * len(body) + _ANSWER_BYTES, bodies.on_held)
        # With `content`, httpx.Request takes ten times as long.
        request = httpx.Request(
            "POST", target.url, headers=NO_FIELDS, stream=httpx.ByteStream(body), extensions={PREPARED: prepared}
        )
        began = self._clock()
        bodies.on_sent(len(body))
        try:
            try:
                response = await self._transport.handle_async_request(request)
            except ServerDisconnected:
                # Servers close idle connections. A later disconnect may come from a server that worked on the request.
                if self._clock() - began > _ENDED_SECONDS:
                    raise
                bodies.on_sent(len(body))
                response = await self._transport.handle_async_request(request)
        except ContentTooLarge as error:
            raise DetectionRejected(Reason.UNREADABLE_ANSWER, "Aim's answer is too large") from error
        except httpx.TransportError as error:
            raise DetectionUnavailable(Reason.UNREACHABLE, "Aim cannot be reached") from error
        assert isinstance(response.stream, httpx.ByteStream)
        return response, b"".join(response.stream)
