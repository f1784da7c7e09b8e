"""The clocks of a streamed answer."""

from __future__ import annotations

from extproc.core.content.server_sent_event import ServerSentEvent
from extproc.core.deadlines import HEAD, HELD, MORE, PING, SILENCE, Clock, Deadlines
from extproc.core.dialects.endpoints import DEFAULT
from extproc.core.release_queue import ReleaseQueue
from tests.fakes.rig import chat_event
from tests.fakes.world import policy

POLICY = policy(stream_head_seconds=2, verdict_timeout_seconds=15, stream_ping_seconds=5)
EVERY = 10_000.0


def clocks(**more: bool) -> tuple[Deadlines, ReleaseQueue]:
    return Deadlines(POLICY, **{"has_pings": True, **more}), ReleaseQueue(DEFAULT, "id")


def follow(it: Deadlines, queue: ReleaseQueue, now: float, **more: bool) -> None:
    it.follow(queue, now, **{"has_released": False, "has_more": False, "is_submitted": False, **more})


def running(it: Deadlines) -> set[Clock]:
    """Stop and return all clocks that run."""
    return set(it.take_passed(EVERY))


def with_text(queue: ReleaseQueue) -> ReleaseQueue:
    raw = chat_event("Hi")
    queue.add(ServerSentEvent(raw, data=raw.decode().removeprefix("data: ").strip()))
    return queue


def test_no_clock_runs_while_nothing_waits() -> None:
    it, queue = clocks()
    follow(it, queue, 1.0)
    assert it.first is None


def test_waiting_text_starts_the_clocks_that_bound_its_wait() -> None:
    it, queue = clocks()
    with_text(queue)
    follow(it, queue, 1.0)
    assert it.first == 3.0
    follow(it, queue, 2.0)
    assert it.first == 3.0  # a clock that runs is not started again
    assert running(it) == {HEAD, SILENCE, PING}


def test_stream_without_pings_has_no_clock_for_them() -> None:
    it, queue = clocks(has_pings=False)
    follow(it, with_text(queue), 1.0)
    assert running(it) == {HEAD, SILENCE}


def test_release_stops_the_clocks_that_wait_for_it() -> None:
    it, queue = clocks()
    follow(it, with_text(queue), 1.0)
    it.await_room(1.0)
    queue.finish()
    queue.take_ready()
    follow(it, queue, 2.0, has_released=True)
    assert running(it) == set()


def test_end_of_the_session_is_awaited_although_nothing_waits() -> None:
    it, queue = clocks()
    follow(it, queue, 1.0, is_submitted=True)
    assert it.first == 16.0


def test_more_input_is_read_at_once() -> None:
    it, queue = clocks()
    follow(it, queue, 1.0, has_more=True)
    assert (it.first, running(it)) == (1.0, {MORE})


def test_clocks_that_are_started_singly() -> None:
    it, _ = clocks()
    it.await_head(1.0)
    it.await_room(1.0)
    it.await_ping(1.0)
    assert running(it) == {HEAD, HELD, PING}
    it.await_head(1.0)
    it.stop(HEAD)
    it.await_ping(1.0)
    it.clear()
    assert it.first is None
