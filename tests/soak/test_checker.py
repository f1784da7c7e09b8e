"""The soak's checker: it reports each wrong transcript and no correct one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from tests.envoy.apis import CHAT, RESPONSES, WITH_ANSWERS, Api
from tests.soak import journal
from tests.soak.checker import Ending, Span, Tally, judge
from tests.soak.client import Transcript
from tests.soak.lag import Lag, held_problems, lag
from tests.soak.openings import REQUEST, RESPONSE, TOO_LARGE, Opening, Openings
from tests.soak.samples import MEBIBYTE, Sample, memory
from tests.soak.script import FORBIDDEN, GONE, PRIVATE, Pace, Script, Scripts, decoded, encoded

TEXTS = ("<7.0> One ", "<7.1> two ", "<7.2> three ", "<7.3> four ")
POLICY = "content_policy_violation"


def stream(api: Api = CHAT, **more: Any) -> Script:
    return replace(Script(7, api, True, TEXTS), **more)


def got(body: bytes | Sequence[bytes], status: int = 200, *, is_whole: bool = True, **more: Any) -> Transcript:
    data = body if isinstance(body, bytes) else b"".join(body)
    return replace(Transcript(status, {}, data, is_whole), **more)


def notes(**entries: set[str]) -> dict[str, set[str]]:
    """Return journals that have only `entries`."""
    return {kind: entries.get(kind, set()) for kind in journal.KINDS}


@pytest.mark.parametrize("api", WITH_ANSWERS, ids=lambda api: api.name)
class TestAnyStream:
    def test_stream_as_the_model_sent_it_is_complete(self, api: Api) -> None:
        judgement = judge(stream(api), got(api.events(*TEXTS)))
        assert (judgement.ending, judgement.wrongs) == (Ending.COMPLETE, ())
        assert judgement.marks == {"7.0", "7.1", "7.2", "7.3"}

    @pytest.mark.parametrize(
        ("ruin", "said"),
        [
            pytest.param(lambda events: events[:-1], "presented as complete", id="its end is missing"),
            pytest.param(lambda events: [], "presented as complete", id="all is missing"),
            pytest.param(lambda events: [*events[:2], *events[3:]], "missing or changed", id="one is missing"),
            pytest.param(lambda events: [*events[:2], *events[1:]], "twice", id="one came twice"),
            pytest.param(lambda events: [*events[:1], events[2], events[1], *events[3:]], "missing", id="out of order"),
            pytest.param(lambda events: [*events, b"data: {}\n\n"], "came something else", id="more than was said"),
        ],
    )
    def test_incomplete_stream_presented_as_complete_is_wrong(
        self, api: Api, ruin: Callable[[list[bytes]], list[bytes]], said: str
    ) -> None:
        events = api.events(*TEXTS)
        judgement = judge(stream(api), got(ruin(events)))
        assert [wrong for wrong in judgement.wrongs if said in wrong], judgement.wrongs

    @pytest.mark.parametrize("status", [400, 503])
    def test_stream_that_ends_with_a_refusal_is_recognised(self, api: Api, status: int) -> None:
        code = POLICY if status == 400 else "guardrail_unavailable"
        events = api.events(*TEXTS)[:2]
        judgement = judge(stream(api), got([*events, api.ending(status, code, "Not that.", 2)]))
        assert judgement.wrongs == ()
        assert judgement.ending is (Ending.BLOCKED if status == 400 else Ending.REFUSED)

    def test_cut_stream_is_recognised(self, api: Api) -> None:
        body = b"".join(api.events(*TEXTS))
        for end in range(len(body)):
            assert judge(stream(api), got(body[:end], is_whole=False)).wrongs == ()
        assert judge(stream(api), got(body[:30] + body[40:60], is_whole=False)).wrongs

    def test_stream_cut_within_its_refusal_is_recognised(self, api: Api) -> None:
        events, ending = b"".join(api.events(*TEXTS)[:2]), api.ending(400, POLICY, "Not that.", 2)
        for end in range(len(ending)):
            assert judge(stream(api), got(events + ending[:end], is_whole=False)).wrongs == ()
        leaking = api.ending(400, POLICY, "Not <7.2>.", 2)
        assert judge(stream(api), got(events + leaking[:-5], is_whole=False)).wrongs

    def test_stream_with_blocked_text_is_wrong(self, api: Api) -> None:
        script = stream(api, texts=("<7.0> One ", f"<7.1> {FORBIDDEN} ", "<7.2> three "), answer_word=FORBIDDEN)
        judgement = judge(script, got(script.events))
        assert "the client saw forbidden" in judgement.wrongs
        before = judge(script, got([*script.expected, api.ending(400, POLICY, "No.", len(script.expected))]))
        assert (before.ending, before.wrongs) == (Ending.BLOCKED, ())
        # A stream that ends just before the word is not complete either.
        assert judge(script, got(script.expected)).wrongs

    def test_redacted_stream_is_recognised(self, api: Api) -> None:
        script = stream(api, texts=("<7.0> One ", f"<7.1> {PRIVATE} ", "<7.2> three "))
        redacted = api.events("<7.0> One ", f"<7.1> {GONE} ", "<7.2> three ")
        assert judge(script, got(redacted)).wrongs == ()
        assert "the client saw private" in judge(script, got(script.events)).wrongs


SECRET = ("<7.0> One ", f"<7.1> {PRIVATE} ", "<7.2> three ")


@pytest.mark.parametrize("api", WITH_ANSWERS, ids=lambda api: api.name)
class TestStreamThatFailsOpen:
    """Of a stream that fails open Aim has judged a part, or nothing."""

    def test_stream_may_leave_redacted_or_as_it_came(self, api: Api) -> None:
        script = stream(api, texts=SECRET, answer_word=PRIVATE)
        for events, bare in ((script.expected, []), (script.events, ["7.1"])):
            judgement = judge(script, got(events), is_open=True)
            assert (judgement.ending, judgement.wrongs, list(judgement.bare)) == (Ending.COMPLETE, (), bare)

    def test_forbidden_text_may_leave_or_end_the_stream(self, api: Api) -> None:
        script = stream(api, texts=("<7.0> One ", f"<7.1> {FORBIDDEN} ", "<7.2> three "), answer_word=FORBIDDEN)
        judgement = judge(script, got(script.events), is_open=True)
        assert (judgement.ending, judgement.wrongs, list(judgement.bare)) == (Ending.COMPLETE, (), ["7.1"])
        blocked = got([*script.expected, api.ending(400, POLICY, "No.", len(script.expected))])
        assert judge(script, blocked, is_open=True).ending is Ending.BLOCKED
        # The events before the block are no complete answer.
        assert "presented as complete" in str(judge(script, got(script.expected), is_open=True).wrongs)

    @pytest.mark.parametrize(
        ("ruin", "said"),
        [
            pytest.param(lambda events: [*events[:2], *events[3:]], "missing or changed", id="loss"),
            pytest.param(lambda events: [*events[:2], *events[1:]], "twice", id="doubled"),
            pytest.param(lambda events: events[:-1], "presented as complete", id="its end is lost"),
        ],
    )
    def test_loss_and_repetition_are_wrong(
        self, api: Api, ruin: Callable[[list[bytes]], list[bytes]], said: str
    ) -> None:
        script = stream(api, texts=(*SECRET, "<7.3> four "), answer_word=PRIVATE)
        for events in (script.expected, script.events):
            judgement = judge(script, got(ruin(events)), is_open=True)
            assert [wrong for wrong in judgement.wrongs if said in wrong], judgement.wrongs

    def test_cut_stream_is_recognised(self, api: Api) -> None:
        script = stream(api, texts=SECRET, answer_word=PRIVATE)
        for body in (b"".join(script.expected), b"".join(script.events)):
            for end in range(0, len(body), 7):
                assert judge(script, got(body[:end], is_whole=False), is_open=True).wrongs == ()

    def test_word_outside_of_its_text_is_wrong(self, api: Api) -> None:
        script = stream(api)
        ending = api.ending(400, POLICY, f"Found '{PRIVATE}'.", 2)
        assert "the client saw private" in judge(script, got([*script.events[:2], ending]), is_open=True).wrongs

    def test_stream_that_the_model_cut_is_not_complete(self, api: Api) -> None:
        script = stream(api, cut_after=2)
        assert judge(script, got(script.events), is_open=True).wrongs


def test_later_repeat_of_a_redacted_text_is_a_leak() -> None:
    script = stream(RESPONSES, texts=SECRET, answer_word=PRIVATE)
    deltas = len(SECRET) + RESPONSES.head
    mixed = [*script.expected[:deltas], *script.events[deltas:]]
    assert "came something else" in str(judge(script, got(mixed), is_open=True).wrongs)


def opened(*openings: Opening) -> Openings:
    return Openings(openings)


def leaking(leg: str = RESPONSE) -> tuple[Tally, dict[str, set[str]]]:
    """Return the tally and the journals of an exchange whose word for Aim left on one leg, unverified."""
    tally = Tally(is_open=True)
    if leg == REQUEST:
        tally.add(stream(prompt_word=PRIVATE), got(CHAT.events(*TEXTS)))
        return tally, notes(verified={"7.0", "7.1", "7.2", "7.3"}, received={"7.p"}, leaked={"7"})
    script = stream(texts=SECRET, answer_word=PRIVATE)
    tally.add(script, got(script.events))
    return tally, notes(verified={"7.0", "7.2", "7.p"}, received={"7.p"})


@pytest.mark.parametrize(("leg", "mark"), [(REQUEST, "7.p"), (RESPONSE, "7.1")])
class TestLeakWhereTheSidecarFailsOpen:
    def test_text_of_a_leg_that_failed_open_may_leave(self, leg: str, mark: str) -> None:
        tally, noted = leaking(leg)
        assert tally.unverified(noted, opened(Opening(7, leg, "session", 5.0))) == []

    def test_text_of_another_leg_is_a_leak(self, leg: str, mark: str) -> None:
        tally, noted = leaking(leg)
        other = RESPONSE if leg == REQUEST else REQUEST
        for openings in (opened(), opened(Opening(7, other, "session", 5.0)), opened(Opening(8, leg, "session", 5.0))):
            wrongs = tally.unverified(noted, openings)
            assert f"<{mark}> left the {leg} leg with a word for Aim, and the leg did not fail open" in wrongs
            assert f"<{mark}>, which Aim never verified" in str(wrongs)

    def test_word_that_aim_had_redacted_before_is_a_leak(self, leg: str, mark: str) -> None:
        tally, noted = leaking(leg)
        noted[journal.JUDGED].add(f"{mark} 4.900")
        for reason in ("session", "unreachable"):
            (wrong,) = tally.unverified(noted, opened(Opening(7, leg, reason, 5.0)))
            assert "had blocked or redacted before" in wrong
            # Aim came too late.
            assert tally.unverified(noted, opened(Opening(7, leg, reason, 4.8))) == []

    def test_word_that_crossed_with_the_sidecars_own_decision_is_no_leak(self, leg: str, mark: str) -> None:
        tally, noted = leaking(leg)
        noted[journal.JUDGED].add(f"{mark} 4.900")
        assert tally.unverified(noted, opened(Opening(7, leg, "timeout", 5.0))) == []
        assert tally.unverified(noted, opened(Opening(7, leg, "timeout", 6.0))) != []


def test_request_that_is_too_large_is_not_read_where_the_sidecar_fails_open() -> None:
    script = stream(is_too_large=True, prompt_word=PRIVATE)
    noted = notes(verified={"7.0", "7.1", "7.2", "7.3"}, received={"7.p"}, leaked={"7"})
    for is_open in (True, False):
        tally = Tally(is_open=is_open)
        tally.add(script, got(CHAT.events(*TEXTS)))
        assert bool(tally.unverified(noted)) is not is_open


def test_opening_without_a_fault_is_wrong() -> None:
    found = [Opening(1, REQUEST, "timeout", at) for at in (0.5, 1.0, 2.0, 2.5)]
    found += [Opening(2, REQUEST, TOO_LARGE, 9.0), Opening(3, REQUEST, TOO_LARGE, 9.0)]
    openings = Openings(found)
    assert openings.unexplained([(1.0, 2.0)], too_large={2}) == [
        "exchange 1 failed open (request, timeout) without a fault",
        "exchange 1 failed open (request, timeout) without a fault",
        "exchange 3 failed open (request, body_too_large) without a fault",
    ]
    assert openings.counts == {"request body_too_large": 2, "request timeout": 4}


def test_fault_of_calls_does_not_explain_a_running_stream() -> None:
    tally = Tally()
    events = CHAT.events(*TEXTS)
    refused = CHAT.ending(503, "guardrail_unavailable", "Not now.", 2)
    tally.add(stream(), got([*events[:2], refused], began=1.0, ended=2.0))
    tally.add(stream(), got(b"upstream connect error", 503, began=1.0, ended=2.0))
    calls = Span("Aim: server_error", 0.0, 9.0, spares_streams=True)
    assert tally.unexplained([calls]) == ["exchange 7 (chat stream): refused, 200 without a fault"]
    assert tally.unexplained([calls, Span("kill -9 of Aim", 0.0, 1.5)]) == []


def test_lag_of_large_answers_is_measured() -> None:
    noted = notes(sent={"5 10.0", "6 11.0"}, paused={"5 2.0", "5 7.5"})
    found = lag(8, {5: 95.5, 6: 20.0, 9: 99.0}, noted)
    assert found == Lag(clients=8, complete=3, behind=85.5, paused=7.5)
    assert list(found.problems(60, 5)) == []
    assert len(list(found.problems(90, 10))) == 2
    assert list(Lag(8, 0, 0.0, 9.0).problems(60, 5)) == ["no large answer arrived whole"]


def test_too_many_held_bytes_are_detected() -> None:
    def held(most: int) -> list[str]:
        return list(held_problems([Sample(0, 0, 0, 0, 0, 0.0, most)], clients=2, streams=0, limit=1000))

    assert held(3000) == []
    assert held(3001) == ["3001 bytes were held, more than 3000"]
    assert held(999) == ["at most 999 bytes were held: that shows nothing"]


def test_refusal_with_another_number_is_wrong() -> None:
    events = RESPONSES.events(*TEXTS)[:2]
    assert judge(stream(RESPONSES), got([*events, RESPONSES.ending(400, POLICY, "No.", 3)])).wrongs


def test_refusal_with_a_part_of_the_answer_is_wrong() -> None:
    body = b'{"error": {"message": "<7.1>", "code": "guardrail_unavailable"}}'
    assert judge(stream(), got(body, 503)).wrongs


@pytest.mark.parametrize("body", [b"", b"no", b"[]", b'{"error": 1}', b'{"error": {"message": "Not that."}}'])
def test_status_400_without_a_refusal_is_wrong(body: bytes) -> None:
    assert judge(stream(), got(body, 400)).wrongs


def test_exchange_that_did_not_end_is_wrong() -> None:
    assert judge(stream(), got(b"", 0, is_whole=False, is_stuck=True)).wrongs == ("it did not end in time",)


def test_a_compressed_answer_is_read() -> None:
    script = stream(is_stream=False, texts=("<7.0> One ", f"<7.1> {PRIVATE} "))
    for encoding in ("gzip", "deflate"):
        headers = {"content-encoding": encoding}
        assert judge(script, got(encoded(script.expected, encoding), headers=headers)).wrongs == ()
        assert judge(script, got(encoded(script.events, encoding), headers=headers)).wrongs
    assert judge(script, got(b"junk", headers={"content-encoding": "gzip"})).wrongs


def test_unverified_text_is_found() -> None:
    tally = Tally()
    tally.add(stream(), got(CHAT.events(*TEXTS)))
    noted = notes(verified={"7.0", "7.2", "7.3", "7.p"}, received={"7.p", "8.p"}, leaked={"9"})
    assert tally.unverified(noted) == [
        "the client saw <7.1>, which Aim never verified",
        "the model was asked <8.p>, which Aim never verified",
        "the model was asked what Aim blocked or redacted, in exchange 9",
    ]


def test_failure_without_a_fault_is_wrong() -> None:
    tally = Tally()
    refused = b"upstream connect error"
    tally.add(stream(), got(refused, 503, began=1.0, ended=2.0))
    tally.add(stream(cut_after=1), got(refused, 503, began=1.0, ended=2.0))
    assert tally.endings[Ending.REFUSED] == 2
    assert tally.unexplained([Span("elsewhere", 3.0, 9.0), Span("reload", 0.0, 9.0, is_harmless=True)]) == [
        "exchange 7 (chat stream): refused, 503 without a fault"
    ]
    assert tally.unexplained([Span("Aim: silent", 0.0, 1.5)]) == []


def test_scripts_are_reproducible_and_cover_everything() -> None:
    pace = Pace(8, 0.1)
    drawn = [Scripts(5, pace)[number] for number in range(2000)]
    assert drawn == [Scripts(5, pace)[number] for number in range(2000)]
    assert {script.api for script in drawn} == {None, *WITH_ANSWERS}
    for kind in ("pause", "leaves_after", "cut_after", "encoding", "is_too_large", "prompt_word", "answer_word"):
        assert {bool(getattr(script, kind)) for script in drawn if script.api} >= {True, False}, kind
    # The checker reports nothing for correct transcripts.
    for script in drawn:
        if not script.is_refused and not script.prompt_word:
            assert judge(script, got(script.expected)).wrongs == ()


def test_an_encoded_stream_can_be_read_as_it_comes() -> None:
    pieces = encoded([b"one", b"two", b"three"], "gzip")
    assert decoded(b"".join(pieces[:2]), "gzip") == b"onetwo"


@pytest.mark.parametrize(("growth", "is_flat"), [(0.0, True), (0.05, True), (1.0, False)])
def test_growing_memory_is_detected(growth: float, is_flat: bool) -> None:
    samples = [Sample(at, round((100 + growth * at) * MEBIBYTE), 0, 10, 10, 1.0) for at in range(300)]
    found = memory(samples, since=0, rest=0)
    assert found is not None
    assert found.is_flat is is_flat
    assert found.slope == pytest.approx(60 * growth, abs=0.1)
    assert memory(samples, since=290, rest=0) is None
