"""`extproc check --probe`: each way in which an Aim may behave is found out and said in words."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from extproc.check import Finding, Severity, check
from extproc.check.heard import WORDS
from extproc.config.settings import Settings
from extproc.core.chunk import MARK
from extproc.local_aim import policies, service
from tests.fakes.aim import AimSession, Question, ScriptedAim, allow, anonymize, block, chunk_of, text_of
from tests.fakes.process import run

CARD = "4111 1111 1111 1111"
KIB, MIB = 1024, 1_048_576


def settings_for(
    base: str, profiles: dict[str, Any] | None = None, *, request_bytes: int = KIB, **aim: Any
) -> Settings:
    usual = {"base_url": base, "api_key": "top-secret", "timeout_seconds": 5}
    return Settings.model_validate(
        {"aim": {**usual, **aim}, "profiles": profiles or {}, "limits": {"request_bytes": request_bytes}}
    )


async def probed(settings: Settings) -> list[Finding]:
    """Return what the probe finds; no finding may name the key."""
    findings = await check(settings, probes=True)
    assert not any("top-secret" in str(finding) for finding in findings)
    return [finding for finding in findings if "probe" in finding.where]


async def the(settings: Settings, words: str) -> Finding:
    """Return the only finding with these words."""
    (found,) = [finding for finding in await probed(settings) if words in finding.what]
    return found


def is_large(question: Question) -> bool:
    return len(question.texts[-1]) > 512 * KIB


Detects = Callable[[Question], bool]


def everywhere(question: Question) -> bool:
    return any(CARD in text for text in question.texts)


def at_the_end(question: Question) -> bool:
    return CARD in question.texts[-1]


def blocking(detects: Detects) -> Callable[[Question], Awaitable[Any]]:
    """Return a judge that blocks what `detects` finds."""

    async def judge(question: Question) -> Any:
        return block("no") if detects(question) else await allow(question)

    return judge


class TestMessages:
    async def test_every_one_is_judged(self, aim: ScriptedAim) -> None:
        aim.judge = blocking(everywhere)
        found = await the(settings_for(aim.base), "judges every message")
        assert found.severity is Severity.OK
        assert "'block' for a text in the last one, 'block' for the same text in an earlier one" in found.what

    async def test_only_the_last_one_is_judged(self, aim: ScriptedAim) -> None:
        aim.judge = blocking(at_the_end)
        found = await the(settings_for(aim.base), "judges only the last message")
        assert found.severity is Severity.WARNING
        assert "system prompts" in found.advice

    async def test_a_policy_that_detects_an_attack_is_enough(self, aim: ScriptedAim) -> None:
        aim.judge = blocking(lambda question: any("Ignore all" in text for text in question.texts))
        assert (await the(settings_for(aim.base), "judges every message")).severity is Severity.OK

    async def test_a_policy_that_detects_nothing(self, aim: ScriptedAim) -> None:
        found = await the(settings_for(aim.base), "detects none of the probe's texts")
        assert found.severity is Severity.WARNING
        assert "cannot tell whether Aim judges every message" in found.what

    async def test_a_policy_that_detects_a_greeting(self, aim: ScriptedAim) -> None:
        aim.judge = blocking(lambda question: len(question.texts) > 1)
        found = await the(settings_for(aim.base), "answers 'block' to a greeting")
        assert found.severity is Severity.WARNING

    @pytest.mark.parametrize("returned", ["[CARD]", None], ids=["redacted", "as it was"])
    async def test_a_redaction_is_in_its_place_or_not(self, aim: ScriptedAim, returned: str | None) -> None:
        async def judge(question: Question) -> Any:
            if not everywhere(question):
                return await allow(question)
            return anonymize(question, lambda text: text.replace(CARD, returned or CARD))

        aim.judge = judge
        findings = await probed(settings_for(aim.base, api="firewall"))
        assert "'anonymize' for the same text in an earlier one" in findings[0].what
        lost = [finding for finding in findings if "does not hold the redacted text" in finding.what]
        assert len(lost) == (returned is None)


Chunk = dict[str, Any]
Change = Callable[[Chunk], list[Chunk]]
Script = Callable[[AimSession], Awaitable[None]]


def changing(change: Change) -> Script:
    """Return a script that verifies, for each chunk of the probe, the chunks that `change` makes of it."""

    async def script(session: AimSession) -> None:
        while (chunk := await session.receive()) is not None:
            for verified in change(chunk) if MARK in chunk else [chunk]:
                await session.verify(verified)
        await session.done()

    return script


def remarked(mark: Callable[[int], Any]) -> Change:
    return lambda chunk: [{**chunk, MARK: mark(chunk[MARK])}]


def unmarked(chunk: Chunk) -> list[Chunk]:
    return [{key: value for key, value in chunk.items() if key != MARK}]


def with_text(chunk: Chunk, text: str) -> Chunk:
    return {**chunk_of(text), MARK: chunk[MARK]}


def split(chunk: Chunk) -> list[Chunk]:
    text = text_of(chunk)
    return [with_text(chunk, text[:1]), with_text(chunk, text[1:])]


def shouted(chunk: Chunk) -> list[Chunk]:
    return [with_text(chunk, text_of(chunk).upper())]


def holding(chunks: int) -> Script:
    """Return a script that verifies each chunk once so many more have come, or the end."""

    async def script(session: AimSession) -> None:
        held: list[Chunk] = []
        while (chunk := await session.receive()) is not None:
            held.append(chunk)
            if len(held) > chunks:
                await session.verify(held.pop(0))
        for chunk in held:
            await session.verify(chunk)
        await session.done()

    return script


def merging(place: int) -> Script:
    """Return a script that verifies pairs of chunks as one, with the mark of the first (0) or of the last (-1)."""

    async def script(session: AimSession) -> None:
        pair: list[Chunk] = []
        while (chunk := await session.receive()) is not None:
            if MARK not in chunk:
                await session.verify(chunk)
                continue
            pair.append(chunk)
            if len(pair) == 2 or chunk[MARK] == len(WORDS):
                await session.verify(with_text(pair[place], "".join(map(text_of, pair))))
                pair.clear()
        await session.done()

    return script


def only_probed(then: Script) -> Script:
    """Return a script that verifies a plain check's chunk, and runs `then` once the first of the probe's has come."""

    async def script(session: AimSession) -> None:
        chunk = await session.receive()
        assert chunk is not None
        if MARK in chunk:
            await then(session)
            return
        await session.verify(chunk)
        await session.receive()
        await session.done()

    return script


async def hanging(session: AimSession) -> None:
    await session.closed.wait()


async def hanging_up(session: AimSession) -> None:
    session.abort()


async def refusing(session: AimSession) -> None:
    await session.block("no")


async def ending(session: AimSession) -> None:
    await session.done()


async def silent_after_all(session: AimSession) -> None:
    """Verify nothing and never end, but read everything."""
    while await session.receive() is not None:
        pass
    await session.closed.wait()


class TestSessions:
    async def test_a_plain_echo_needs_no_setting(self, aim: ScriptedAim) -> None:
        findings = [found for found in await probed(settings_for(aim.base)) if "session" in found.where]
        assert [found.severity for found in findings] == [Severity.OK] * 3
        assert "keeps unknown keys of chunks" in findings[0].what
        assert "does not look ahead" in findings[1].what
        assert "neither merges nor splits" in findings[2].what
        assert tuple(text_of(chunk) for chunk in aim.sessions[-1].chunks) == WORDS

    async def test_a_local_aim_is_a_plain_echo(self) -> None:
        ready: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        async with asyncio.TaskGroup() as group:
            local = group.create_task(service.serve("127.0.0.1", 0, policies.load(), on_ready=ready.set_result))
            settings = settings_for(f"http://127.0.0.1:{await ready}", api="firewall", timeout_seconds=30)
            findings = await probed(settings)
            local.cancel()
        assert [found.severity for found in findings] == [Severity.OK] * 5
        assert "'anonymize' for the same text in an earlier one" in findings[0].what
        assert "takes a question of 1 KiB (limits.request_bytes)" in findings[-1].what

    @pytest.mark.parametrize("opens", [False, True])
    async def test_unknown_keys_are_dropped(self, aim: ScriptedAim, opens: bool) -> None:
        aim.script = changing(unmarked)
        profiles = {"strict": {}, "lax": {"failure_mode_allow": {"response": opens}}}
        found = await the(settings_for(aim.base, profiles), "drops unknown keys")
        assert found.severity is (Severity.WARNING if opens else Severity.OK)
        assert ("the profile lax fails open" in found.advice) is opens

    @pytest.mark.parametrize(
        ("mark", "words", "severity"),
        [
            (lambda mark: mark if mark % 2 else None, "with some chunks only", Severity.OK),
            (lambda _: 1, "with the text of another chunk", Severity.OK),
            (str, "changes the sidecar's mark", Severity.ERROR),
            (lambda mark: mark + 100, "changes the sidecar's mark", Severity.ERROR),
        ],
        ids=["some", "another", "a text", "never given"],
    )
    async def test_marks_are_changed(
        self, aim: ScriptedAim, mark: Callable[[int], Any], words: str, severity: Severity
    ) -> None:
        aim.script = changing(remarked(mark))
        assert (await the(settings_for(aim.base), words)).severity is severity

    async def test_it_looks_ahead(self, aim: ScriptedAim) -> None:
        aim.script = holding(3)
        found = await the(settings_for(aim.base, timeout_seconds=1), "looks ahead: it holds the last 3 of")
        assert found.severity is Severity.WARNING
        assert "aim.verdict_timeout_seconds (15) must be longer than the longest pause" in found.advice

    async def test_it_holds_back_everything(self, aim: ScriptedAim) -> None:
        aim.script = holding(1000)
        found = await the(settings_for(aim.base, timeout_seconds=1), f"holds all {len(WORDS)} chunks back")
        assert found.severity is Severity.WARNING
        assert "limits.held_bytes" in found.advice

    @pytest.mark.parametrize(("place", "words"), [(0, "that of the first"), (-1, "that of the last")])
    async def test_it_merges(self, aim: ScriptedAim, place: int, words: str) -> None:
        aim.script = merging(place)
        findings = await probed(settings_for(aim.base))
        (bounds,) = [found for found in findings if f"merges chunks: it sent {(len(WORDS) + 1) // 2}" in found.what]
        assert bounds.severity is Severity.OK
        assert sum(f"merged ones {words}" in found.what for found in findings) == 1

    async def test_it_splits(self, aim: ScriptedAim) -> None:
        aim.script = changing(split)
        assert (await the(settings_for(aim.base), "Aim splits chunks")).severity is Severity.OK

    @pytest.mark.parametrize(
        ("script", "words", "severity"),
        [
            (changing(shouted), "changes the text of a harmless answer", Severity.WARNING),
            (only_probed(refusing), "blocks a harmless answer", Severity.WARNING),
            (only_probed(ending), "ends a session before it is told", Severity.ERROR),
            (only_probed(hanging_up), "the session ended early", Severity.ERROR),
            (only_probed(hanging), "no answer within aim.timeout_seconds", Severity.ERROR),
            (only_probed(silent_after_all), "no answer within aim.timeout_seconds", Severity.ERROR),
        ],
    )
    async def test_it_does_something_else(
        self, aim: ScriptedAim, script: Script, words: str, severity: Severity
    ) -> None:
        aim.script = script
        assert (await the(settings_for(aim.base, timeout_seconds=1), words)).severity is severity

    async def test_no_session_is_opened_where_none_will_be(self, aim: ScriptedAim) -> None:
        findings = await probed(settings_for(aim.base, {"default": {"hooks": ["pre_call"]}}))
        assert aim.sessions == []
        assert len(findings) == 2


class TestSizes:
    async def test_they_grow_up_to_the_limit(self, aim: ScriptedAim) -> None:
        found = await the(settings_for(aim.base, request_bytes=MIB), "takes a question of 1 MiB (limits.request_bytes)")
        assert found.severity is Severity.OK
        sizes = [len(question.texts[-1]) for question in aim.questions if len(question.texts[-1]) > KIB]
        assert sizes == [64 * KIB, 256 * KIB, MIB]

    async def test_they_have_a_limit_of_their_own(self, aim: ScriptedAim) -> None:
        settings = settings_for(aim.base, request_bytes=64 * MIB, timeout_seconds=30)
        found = await the(settings, "takes a question of 16 MiB")
        assert "the probe asks no larger one" in found.what
        assert len(aim.questions) <= 10

    @pytest.mark.parametrize("status", [413, 403, 500])
    async def test_a_large_one_is_refused(self, aim: ScriptedAim, status: int) -> None:
        async def judge(question: Question) -> Any:
            return (status, {}) if is_large(question) else await allow(question)

        aim.judge = judge
        found = await the(
            settings_for(aim.base, request_bytes=MIB), "takes a question of 256 KiB, but not one of 1 MiB"
        )
        assert found.severity is Severity.WARNING
        assert f"(HTTP {status})" in found.what
        assert f"set limits.request_bytes to {256 * KIB}, so that clients get a 413" in found.advice

    async def test_no_large_one_is_taken(self, aim: ScriptedAim) -> None:
        async def judge(question: Question) -> Any:
            return (413, {}) if len(question.texts[-1]) > KIB else await allow(question)

        aim.judge = judge
        found = await the(settings_for(aim.base, request_bytes=MIB), "does not take one of 64 KiB")
        assert "lower limits.request_bytes" in found.advice

    async def test_a_large_one_gets_no_answer(self, aim: ScriptedAim) -> None:
        async def judge(question: Question) -> Any:
            if is_large(question):
                await asyncio.Event().wait()
            return await allow(question)

        aim.judge = judge
        found = await the(
            settings_for(aim.base, request_bytes=MIB, timeout_seconds=1),
            "but not one of 1 MiB: Aim did not answer in time",
        )
        assert found.advice.startswith("raise aim.timeout_seconds")

    async def test_a_large_one_is_blocked(self, aim: ScriptedAim) -> None:
        aim.judge = blocking(is_large)
        found = await the(settings_for(aim.base, request_bytes=MIB), "answers 'block' to a harmless question of 1 MiB")
        assert found.severity is Severity.WARNING

    async def test_a_limited_rate_tells_nothing(self, aim: ScriptedAim) -> None:
        async def judge(question: Question) -> Any:
            return (429, {}) if is_large(question) else await allow(question)

        aim.judge = judge
        assert (await the(settings_for(aim.base, request_bytes=MIB), "limits the rate")).severity is Severity.WARNING


class TestKeys:
    async def test_each_is_probed(self, aim: ScriptedAim, tmp_path: Path) -> None:
        async def judge(question: Question) -> Any:
            detects = everywhere if question.headers["authorization"] == "Bearer own-key" else at_the_end
            return await blocking(detects)(question)

        aim.judge = judge
        (tmp_path / "own").write_text("own-key")
        findings = await probed(settings_for(aim.base, {"tenant": {"api_key_file": str(tmp_path / "own")}}))
        told = [f"{found.where}: {found.what.partition(':')[0]}" for found in findings if "message" in found.what]
        assert told == [
            "aim, profile default, probe: Aim judges only the last message of a request",
            "aim, profile tenant, probe: Aim judges every message of a request",
        ]

    async def test_one_that_is_refused_is_asked_no_more(self, aim: ScriptedAim) -> None:
        async def judge(_: Question) -> Any:
            return 401, {"detail": "Invalid API token"}

        aim.judge = judge
        assert await probed(settings_for(aim.base)) == []
        assert len(aim.questions) == 1

    async def test_an_aim_that_fails_meanwhile(self, aim: ScriptedAim) -> None:
        async def judge(question: Question) -> Any:
            return (401, {}) if len(question.texts) > 1 else await allow(question)

        aim.judge = judge
        (found,) = await probed(settings_for(aim.base))
        assert str(found).startswith("error: aim, profile default, probe: Aim refuses the key; check AIM_API_KEY")


class TestTheCommand:
    async def test_it_says_all_and_exits_0(self, aim: ScriptedAim) -> None:
        aim.judge = blocking(at_the_end)
        variables = {"AIM_API_KEY": "top-secret", "AIM_API_BASE": aim.base, "EXTPROC_LIMITS__REQUEST_BYTES": "65536"}
        status, out, err = await run("check", "--probe", **variables)
        assert (status, err) == (0, "")
        assert "warning: aim, profile default, probe: Aim judges only the last message" in out
        assert "ok: aim, profile default, probe: Aim takes a question of 64 KiB" in out
        assert "top-secret" not in out

    async def test_a_refused_key_exits_1(self, aim: ScriptedAim) -> None:
        async def judge(_: Question) -> Any:
            return 401, {"detail": "Invalid API token"}

        aim.judge = judge
        status, out, _ = await run("check", "--probe", AIM_API_KEY="top-secret", AIM_API_BASE=aim.base)
        assert status == 1
        assert "Aim refuses the key; check AIM_API_KEY" in out
        assert "top-secret" not in out
        assert "probe" not in out

    async def test_an_address_without_aim_exits_1(self) -> None:
        status, out, _ = await run("check", "--probe", AIM_API_KEY="k", AIM_API_BASE="http://127.0.0.1:1")
        assert status == 1
        assert "nothing listens on 127.0.0.1:1" in out
