"""Talks to Aim: analyses over REST, sessions over websocket; deadlines, retries, breaker; maps every error once."""

from __future__ import annotations

import asyncio
import ssl
import time
import urllib.request
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from types import TracebackType
from typing import TypeVarTuple
from urllib.parse import urlsplit

from yarl import URL

from extproc.aim import protocol
from extproc.aim.breaker import Breaker
from extproc.aim.retry import MAX_RETRIES, RetryBudget, delay, parse_retry_after
from extproc.aim.session import Session
from extproc.aim.transport import Transport
from extproc.config.aim import checked_url
from extproc.config.keys import Keys
from extproc.config.settings import Settings
from extproc.core.errors import (
    DetectionError,
    DetectionTimeout,
    DetectionUnavailable,
    Reason,
    SettingsError,
)
from extproc.core.events import Event
from extproc.core.identity import Identity
from extproc.core.values import value
from extproc.core.verdict import Block, Failed, Outcome, Verdict
from extproc.core.vocabulary import Hook, Input
from extproc.telemetry.logs import log_internal_error

_AT_ONCE = 8
"""Analyses of one answer that run side by side, at most (aim-api: one analysis per text)."""

_ANSWER_TIMEOUTS = 4
"""All analyses of one answer may take so many times the deadline of one."""

_ANSWER_BYTES, _ECHO = 1_048_576, 12
"""An answer may have so many bytes, and so many for each of its question's.

It tells what it found, and may say the messages twice, each character of two bytes escaped to six.
"""

_Ts = TypeVarTuple("_Ts")

_CONTENT_HEADERS = (("content-type", "application/json"), ("accept-encoding", "identity"))


@value
class Caller:
    """On whose behalf Aim is asked: the profile gives the key, the call id ties both legs together."""

    profile: str
    call_id: str
    identity: Identity


class AimClient:
    """A client of one Aim; an async context manager."""

    def __init__(self, settings: Settings) -> None:
        """Prepare for the Aim that `settings` name; nothing is connected yet."""
        aim = settings.aim
        self._form: protocol.Form = aim.api
        self._endpoints = endpoints = protocol.endpoints(aim.api, aim.base)
        self._request_url = URL(endpoints.request)
        self._answer_url = URL(endpoints.answer)
        self._base_url = URL(aim.base)
        self._timeout = aim.timeout_seconds
        self._keys = Keys(settings)
        tls = tls_context(aim.ca_file, verify=aim.verify)
        self._tls = tls if aim.base.startswith("https:") else None
        self._proxy = _with_password(aim.proxy or environment_proxy(aim.base))
        self._proxy_tls = tls if self._proxy is not None and self._proxy.startswith("https:") else None
        self._frame_bytes = 4 * settings.limits.event_bytes + _ANSWER_BYTES
        # Texts that wait for a verdict are bounded as held bytes; chunks without text go on, and wait here only.
        self._waiting_bytes = 4 * (settings.limits.held_bytes + settings.limits.event_bytes)
        clock = asyncio.get_event_loop().time
        self.breaker = Breaker(aim.breaker.failures, aim.breaker.open_seconds, clock)
        self.session_breaker = Breaker(aim.breaker.failures, aim.breaker.open_seconds, clock)
        self._transport = Transport(self._base_url, self._tls, self._proxy, self._proxy_tls)
        self._budget = RetryBudget()
        self._tasks = asyncio.TaskGroup()
        self._sessions: set[Session] = set()
        self._most_sessions = settings.limits.sessions
        self._users = 0
        self._is_retired = asyncio.Event()
        self._is_free = asyncio.Event()
        self._is_free.set()

    async def __aenter__(self) -> AimClient:
        """Start; sessions may be opened from now on."""
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close every session and connection."""
        for session in tuple(self._sessions):
            session.close()
        try:
            await self._tasks.__aexit__(kind, error, trace)
        finally:
            await self._transport.aclose()

    def enter(self) -> None:
        """Note that an exchange uses this client, until `leave`."""
        self._users += 1
        self._is_free.clear()

    def leave(self) -> None:
        """Note that an exchange is done with it."""
        self._users -= 1
        if not self._users:
            self._is_free.set()

    def retire(self) -> None:
        """Note that no further exchange will use it."""
        self._is_retired.set()

    async def unused(self) -> None:
        """Wait until it is retired and the last exchange has left."""
        await self._is_retired.wait()
        await self._is_free.wait()

    async def is_reachable(self) -> bool:
        """Tell whether Aim's address answers within the deadline, whatever it says; no question is asked."""
        self.enter()  # one that is retired meanwhile keeps its connections
        try:
            async with asyncio.timeout(self._timeout):
                response = await self._transport.send("HEAD", self._base_url, limit=_ANSWER_BYTES)
        except (TimeoutError, DetectionError):
            return False
        finally:
            self.leave()
        return response.status < 500

    async def analyze(self, hook: Hook, inputs: Sequence[Input], caller: Caller) -> tuple[Outcome, ...]:
        """Return an outcome for each input, in order; with a block among them, only those that were reached by then."""
        if len(inputs) == 1:
            return (await self._outcome(hook, inputs[0], caller),)
        outcomes: list[Outcome | None] = [None] * len(inputs)
        positions = iter(range(len(inputs)))
        tasks: list[asyncio.Task[None]] = []

        async def judge() -> None:
            for position in positions:
                try:
                    outcome = await self._outcome(hook, inputs[position], caller)
                except Exception as error:
                    log_internal_error(error)
                    outcome = Failed(Reason.UNREADABLE_ANSWER)
                outcomes[position] = outcome
                if isinstance(outcome, Block):  # whatever the others would be
                    for task in tasks:
                        task.cancel()
                    return

        tasks += [self.start(judge) for _ in range(min(_AT_ONCE, len(inputs)))]
        try:
            await asyncio.wait(tasks, timeout=_ANSWER_TIMEOUTS * self._timeout)
        finally:
            for task in tasks:
                task.cancel()
            tasks.clear()  # each refers to all others by it
        reached = tuple(outcome for outcome in outcomes if outcome is not None)
        if any(isinstance(outcome, Block) for outcome in reached):
            return reached
        return tuple(outcome if outcome is not None else Failed(Reason.TIMEOUT) for outcome in outcomes)

    async def _outcome(self, hook: Hook, asked: Input, caller: Caller) -> Outcome:
        try:
            return await self.ask(hook, asked, caller)
        except DetectionError as error:
            return Failed(error.reason)

    async def ask(self, hook: Hook, asked: Input, caller: Caller) -> Verdict:
        """Ask one question, within the deadline, and again where that may help.

        Raises DetectionError.
        """
        headers = protocol.headers(self._form, self._keys.of(caller.profile), hook, caller.call_id, caller.identity)
        headers += _CONTENT_HEADERS
        is_probe = self.breaker.enter()
        try:
            verdict = await self._ask_in_time(asked, headers)
        except DetectionError as error:
            self.breaker.failed(error)
            raise
        except BaseException:
            self.breaker.abandoned(is_probe=is_probe)
            raise
        self.breaker.succeeded()
        return verdict

    async def _ask_in_time(self, asked: Input, headers: list[tuple[str, str]]) -> Verdict:
        url = self._request_url if asked.output is None else self._answer_url
        body = protocol.question(self._form, asked)
        limit = _ECHO * len(body) + _ANSWER_BYTES
        self._budget.earn()
        clock = asyncio.get_running_loop().time
        deadline = clock() + self._timeout
        try:
            async with asyncio.timeout_at(deadline):
                for attempt in range(MAX_RETRIES + 1):
                    retry_after: float | None = None
                    try:
                        response = await self._transport.send("POST", url, headers, body, limit=limit)
                        retry_after = parse_retry_after(response.retry_after, time.time())
                        return protocol.answer(self._form, asked, response.status, response.content)
                    except DetectionUnavailable:
                        wait = delay(attempt, retry_after)
                        # A verdict that would come too late is not worth the load.
                        if attempt == MAX_RETRIES or clock() + wait >= deadline or not self._budget.spend():
                            raise
                    await asyncio.sleep(wait)
        except TimeoutError as error:
            raise DetectionTimeout("Aim did not answer in time") from error
        raise AssertionError("the last attempt returns or raises")

    def start(self, work: Callable[[*_Ts], Coroutine[None, None, None]], *arguments: *_Ts) -> asyncio.Task[None]:
        """Do `work` in a task that this client does not outlive."""
        return self._tasks.create_task(_contained(work, *arguments))

    def open_session(self, number: int, caller: Caller, deliver: Callable[[Event], None]) -> Session:
        """Begin to open a session; what happens in it is delivered as events that carry `number`."""
        session = Session(number, deliver, self._waiting_bytes)
        if len(self._sessions) >= self._most_sessions:
            error = DetectionUnavailable(Reason.HELD_BYTES, "as many sessions are open as may be")
            # From the loop: an exchange that opens a session is not to be told of its failure meanwhile.
            asyncio.get_running_loop().call_soon(session.fail, error)
            return session
        self._sessions.add(session)
        task = session.start(self._tasks, self._run(session, caller))
        task.add_done_callback(lambda _: self._sessions.discard(session))
        return session

    async def _run(self, session: Session, caller: Caller) -> None:
        try:
            await self._carry(session, caller)
        except Exception as error:
            log_internal_error(error)
            session.fail(DetectionUnavailable(Reason.SESSION, "the session broke"), opened=True)

    async def _carry(self, session: Session, caller: Caller) -> None:
        try:
            key = self._keys.of(caller.profile)
            is_probe = self.session_breaker.enter()
        except DetectionError as error:
            session.fail(error)
            return
        headers = protocol.headers(self._form, key, Hook.OUTPUT, caller.call_id, caller.identity)
        await session.run(
            self._endpoints.session,
            headers,
            tls=self._tls,
            proxy=self._proxy,
            proxy_tls=self._proxy_tls,
            timeout=self._timeout,
            frame_bytes=self._frame_bytes,
            breaker=self.session_breaker,
            is_probe=is_probe,
        )


async def _contained(work: Callable[[*_Ts], Coroutine[None, None, None]], *arguments: *_Ts) -> None:
    """Do the work. Nothing unforeseen in it may end that of others: they share the client's group of tasks."""
    try:
        await work(*arguments)
    except Exception as error:
        log_internal_error(error)


def tls_context(ca_file: object, *, verify: bool) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
    except OSError as error:  # SSLError among them
        raise SettingsError([f"aim.ca_file: {ca_file} holds no certificates that can be used"]) from error
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _with_password(proxy: str | None) -> str | None:
    """Return a proxy's URL with an empty password where it has a user and none: websockets takes both or neither."""
    parts = urlsplit(proxy or "")
    if proxy is None or parts.username is None or parts.password is not None:
        return proxy
    user, _, place = parts.netloc.rpartition("@")
    return parts._replace(netloc=f"{user}:@{place}").geturl()


def environment_proxy(base: str) -> str | None:
    """Return the proxy that HTTPS_PROXY, HTTP_PROXY and NO_PROXY give for `base`."""
    parts = urlsplit(base)
    with suppress(OSError):
        if urllib.request.proxy_bypass(parts.netloc):
            return None
    proxy = urllib.request.getproxies().get(parts.scheme)
    if not proxy:
        return None
    try:
        return checked_url(proxy if "://" in proxy else f"http://{proxy}")
    except ValueError as error:
        name = f"{parts.scheme.upper()}_PROXY"
        raise SettingsError([f"aim.proxy: {name} in the environment is not the URL of a proxy"]) from error
