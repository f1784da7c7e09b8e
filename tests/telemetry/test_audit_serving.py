"""The audit lines of exchanges, which have nothing of their content."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from structlog.testing import capture_logs

from tests.fakes.aim import AimSession, ScriptedAim, block
from tests.fakes.audit import audit_lines
from tests.fakes.envoy_stream import envoy_stream
from tests.fakes.process import Running, get, run, serving, written
from tests.fakes.rig import chat_event, chat_request
from tests.fakes.sidecar import Sidecar, settings_for, sidecar

SECRET = "the plan of the tower"
MAIL = "alice@example.com"
INVOCATION = {"invocation_id", "analysis_time_ms"}


async def refused(guard: Sidecar, path: str = "/v1/chat/completions", *, stream: bool = False) -> None:
    """Send a request and read its answer to the end; return once it is recorded."""
    async with envoy_stream(f"127.0.0.1:{guard.port}") as envoy:
        await envoy.request_headers(("x-aim-user-email", MAIL), path=path)
        await envoy.read()
        await envoy.body("request", json.dumps(chat_request(SECRET, stream=stream)).encode())
        await envoy.read()
        if stream:
            await envoy.response_headers(("content-type", "text/event-stream"))
            await envoy.body("response", chat_event(SECRET), end=False)
            assert (await envoy.read()).HasField("immediate_response")
        await envoy.done()
        await envoy.read()
    await asyncio.wait_for(guard.service.idle.wait(), 20)


async def exchange(process: Running, port: int) -> None:
    """Send an exchange without content; return once it is recorded."""
    async with envoy_stream(f"127.0.0.1:{port}") as stream:
        await stream.request_headers(end=True)
        await stream.read()
        await stream.response_headers(status=204, end=True)
        await stream.read()
        await stream.done()
        await stream.read()
    await process.until("exchange")


async def lines(file: Path, count: int) -> list[dict[str, Any]]:
    """Return the lines of the audit log, which has `count` of them now or soon."""
    found = await asyncio.to_thread(audit_lines, file, count)
    assert SECRET not in str(found)
    return found


async def test_block_writes_a_verdict_and_an_outcome(tmp_path: Path, aim: ScriptedAim) -> None:
    async def judge(_: object) -> Any:
        return block(SECRET, secrets={"found": SECRET})

    aim.judge = judge
    file = tmp_path / "audit.jsonl"
    async with sidecar(settings_for(aim.base, audit={"file": str(file)})) as guard:
        await refused(guard)
        verdict, exchange = await lines(file, 2)
    common = {key: exchange.pop(key) for key in ("call_id", "profile", "dialect", "dry_run", "user_email")}
    assert common["user_email"] not in ("", MAIL)
    assert (common["profile"], common["dialect"], common["dry_run"]) == ("default", "openai-chat", False)
    assert {key: verdict.pop(key) for key in common} == common
    assert verdict.pop("time") <= exchange.pop("time")
    assert verdict == {
        "type": "verdict",
        "leg": "request",
        "hook": "pre_call",
        "action": "block",
        "policies": ["secrets"],
    }
    (asked,) = aim.questions
    assert exchange == {
        "type": "exchange",
        "outcome": "blocked",
        "code": "content_policy_violation",
        "detections": 1,
        "detection_bytes": int(asked.headers["content-length"]),
        "blocked_by": ["secrets"],
    }


async def test_stream_and_failure_write_verdicts(tmp_path: Path, aim: ScriptedAim) -> None:
    async def judge(_: object) -> Any:
        return 403, {}

    async def script(session: AimSession) -> None:
        await session.receive()
        await session.block("No.")

    file = tmp_path / "audit.jsonl"
    settings = settings_for(aim.base, audit={"file": str(file), "identity": "plain"})
    async with sidecar(settings) as guard:
        aim.script = script
        await refused(guard, stream=True)
        aim.judge = judge
        await refused(guard)
        allowed, blocked, _, failed, exchange = await lines(file, 5)
    assert (allowed["hook"], allowed["action"]) == ("pre_call", "allow")
    assert (blocked["leg"], blocked["hook"], blocked["action"]) == ("response", "output", "block")
    assert (failed["action"], failed["reason"]) == ("error", "key_refused")
    assert (exchange["outcome"], exchange["code"]) == ("refused", "guardrail_unavailable")
    assert exchange["user_email"] == MAIL


@pytest.mark.parametrize(
    ("name", "expected"),
    [("inv_1", {"invocation_id": "inv_1", "analysis_time_ms": 41}), (SECRET, {"analysis_time_ms": 41})],
)
async def test_verdict_has_what_aim_says_of_its_work(
    tmp_path: Path, aim: ScriptedAim, name: str, expected: dict[str, Any]
) -> None:
    async def judge(_: object) -> Any:
        action = {"action_type": "block_action", "detection_message": SECRET}
        return {"required_action": action, "analysis_result": {"analysis_time_ms": 41}, "invocation_id": name}

    aim.judge = judge
    file = tmp_path / "audit.jsonl"
    with capture_logs() as logs:
        for audit in ({"file": str(file)}, {}):  # the log has it without an audit log, too
            async with sidecar(settings_for(aim.base, aim={"api": "firewall"}, audit=audit)) as guard:
                await refused(guard)
    verdict, exchange = await lines(file, 2)
    (logged, other) = [record for record in logs if record["event"] == "verdict"]
    assert {key: verdict[key] for key in INVOCATION if key in verdict} == expected
    assert not exchange.keys() & INVOCATION
    place = {"leg": "request", "hook": "pre_call", "action": "block"}
    told = {"event": "verdict", "log_level": "debug", **place, **expected}
    assert logged == {"call_id": verdict["call_id"], **told}
    assert {**other, "call_id": verdict["call_id"]} == logged


async def test_unknown_action_keeps_what_aim_says_of_its_work(tmp_path: Path, aim: ScriptedAim) -> None:
    async def judge(_: object) -> Any:
        said = {"policy_drill_down": {"u1": {"policy_name": "PII"}}, "analysis_time_ms": 41}
        return {"required_action": {"action_type": "new"}, "analysis_result": said, "invocation_id": "inv_1"}

    aim.judge = judge
    file = tmp_path / "audit.jsonl"
    with capture_logs() as logs:
        async with sidecar(settings_for(aim.base, aim={"api": "firewall"}, audit={"file": str(file)})) as guard:
            await refused(guard)
    verdict, _ = await lines(file, 2)
    assert (verdict["action"], verdict["reason"], verdict["policies"]) == ("error", "unknown_action", ["PII"])
    (logged,) = [record for record in logs if record["event"] == "verdict"]
    for told in (verdict, logged):
        assert {key: told[key] for key in INVOCATION} == {"invocation_id": "inv_1", "analysis_time_ms": 41}


async def test_dry_run_is_marked_and_uninspected_exchange_is_absent(tmp_path: Path, aim: ScriptedAim) -> None:
    async def judge(_: object) -> Any:
        return block("No.")

    aim.judge = judge
    file = tmp_path / "audit.jsonl"
    settings = settings_for(
        aim.base, audit={"file": str(file), "identity": "none"}, profiles={"default": {"enforce": False}}
    )
    async with sidecar(settings) as guard:
        await refused(guard, "/elsewhere")
        await refused(guard)
        verdict, exchange = await lines(file, 2)
    assert verdict["dry_run"] is exchange["dry_run"] is True
    assert (exchange["outcome"], exchange["code"]) == ("dry_run", "blocked")
    assert "user_email" not in exchange


async def test_full_disk_stops_no_traffic(aim: ScriptedAim) -> None:
    async with sidecar(settings_for(aim.base, audit={"file": "/dev/full"})) as guard:
        await refused(guard)
        async with asyncio.timeout(20):
            while guard.metric("extproc_audit_errors_total") < 2:  # noqa: ASYNC110 - a thread
                await asyncio.sleep(0.01)
        assert guard.metric("extproc_audit_errors_total") == 2
        labels = {"profile": "default", "dialect": "openai-chat", "outcome": "aborted"}
        assert guard.metric("extproc_exchanges_total", **labels) == 1


async def test_lines_wait_for_a_reader_of_stdout_that_stopped(aim: ScriptedAim, tmp_path: Path) -> None:
    ours, theirs = os.pipe()
    os.set_blocking(theirs, False)
    with suppress(BlockingIOError):
        while os.write(theirs, b"\n" * 4096):
            pass
    os.set_blocking(theirs, True)
    # The situation is `extproc serve | reader` with a reader that has stopped reading.
    config, port, admin = written(tmp_path, aim, audit={"file": "-"})
    try:
        async with serving(config, stdout=theirs) as process:
            await exchange(process, port)
            assert "extproc_audit_errors_total 0.0" in (await get(admin, "/metrics")).text
            process.signal()
            lines = await asyncio.wait_for(asyncio.to_thread(read_lines, ours, 1), 30)
            assert await process.ended() == 0
    finally:
        os.close(ours)
        os.close(theirs)
    assert [line["type"] for line in lines] == ["exchange"]


def read_lines(file: int, count: int) -> list[dict[str, Any]]:
    """Read `count` lines that are not empty."""
    found: list[bytes] = []
    while len(found) < count:
        found += [line for line in os.read(file, 65536).splitlines() if line]
    return [json.loads(line) for line in found]


async def test_file_that_hangs_stops_no_start_no_traffic_and_no_end(tmp_path: Path, aim: ScriptedAim) -> None:
    """A named pipe that nobody reads hangs when it is opened, as a file on a mount that is lost."""
    file = tmp_path / "audit.jsonl"
    os.mkfifo(file)
    config, port, admin = written(tmp_path, aim, audit={"file": str(file)})
    async with serving(config) as process:
        await exchange(process, port)
        process.signal(signal.SIGHUP)
        await process.until("settings_reloaded")
        await exchange(process, port)
        assert "extproc_audit_errors_total 0.0" in (await get(admin, "/metrics")).text
        process.signal()
        assert await process.ended() == 0
    lost = [record for record in process.lines if record["event"] == "audit_line_lost"]
    assert {(record["file"], record["problem"]) for record in lost} == {(str(file), "the process ends")}
    assert sum(record["lines"] for record in lost) == 2


async def test_hangup_signal_reopens_the_file(tmp_path: Path, aim: ScriptedAim) -> None:
    file, old = tmp_path / "audit.jsonl", tmp_path / "audit.jsonl.1"
    config, port, _ = written(tmp_path, aim, audit={"file": str(file)})

    async with serving(config) as process:
        await exchange(process, port)
        await lines(file, 1)
        file.rename(old)
        process.signal(signal.SIGHUP)
        await process.until("settings_reloaded")
        await exchange(process, port)
        await lines(file, 1)
        await lines(old, 1)


async def test_reload_that_changes_enforce_is_in_the_audit_log(tmp_path: Path, aim: ScriptedAim) -> None:
    file, other = tmp_path / "audit.jsonl", tmp_path / "other.jsonl"

    def change(enforce: bool, into: Path | None) -> None:
        config = yaml.safe_load(path.read_text())
        config["profiles"] = {"default": {"enforce": enforce}, "strict": {}}
        config["audit"] = {"file": str(into or "")}
        new = tmp_path / "new.yaml"
        new.write_text(yaml.safe_dump(config))
        new.replace(path)  # a file that is written in place could be read half

    path, _, _ = written(tmp_path, aim, audit={"file": str(file)})
    async with serving(path) as process:
        for enforce, into in ((False, file), (False, other), (True, other), (False, None)):
            change(enforce, into)
            await process.until("settings_reloaded")
    before, after = await lines(file, 1), await lines(other, 2)
    for line in (*before, *after):
        assert line.pop("time").startswith("20")
    assert before == [{"type": "settings", "profile": "default", "enforce": False}]
    assert after == [
        {"type": "settings", "profile": "default", "enforce": True},
        # The audit log ends with the reload that says so.
        {"type": "settings", "profile": "default", "enforce": False},
    ]


async def test_unwritable_file_is_a_problem(tmp_path: Path) -> None:
    missing = tmp_path / "nowhere" / "audit.jsonl"
    for file, problem in ((missing, "cannot write"), (tmp_path, "is a folder")):
        status, _, err = await run("serve", AIM_API_KEY="k", EXTPROC_AUDIT__FILE=str(file))
        assert status == 2
        assert err.startswith("audit.file: ")
        assert problem in err
