"""`extproc report`: generated audit files of each format, and those of a real sidecar."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from extproc.cli.main import app
from extproc.report import source, tally
from extproc.telemetry.audit_ecs import as_ecs
from extproc.telemetry.audit_ocsf import as_ocsf
from tests.fakes.aim import Question, ScriptedAim, allow, anonymize
from tests.fakes.envoy_stream import envoy_stream
from tests.fakes.rig import chat_request
from tests.fakes.sidecar import Sidecar, settings_for, sidecar

Line = dict[str, Any]

BEGIN = datetime(2026, 1, 31, 12, 30, tzinfo=UTC)
NOTHING = {"blocked": 0, "redacted": 0, "allowed": 0, "refused": 0, "failed_open": 0, "aborted": 0}


def as_plain(line: Line, time: datetime, *, is_hashed: bool) -> Line:
    return {"time": time.isoformat(timespec="milliseconds").replace("+00:00", "Z"), **line}


FORMATS = [as_plain, as_ecs, as_ocsf]


def ended(outcome: str, *, is_dry_run: bool = True, dialect: str = "openai-chat", **more: Any) -> Line:
    reached = {"outcome": "dry_run", "code": outcome} if is_dry_run else {"outcome": outcome, "code": ""}
    common = {"type": "exchange", "call_id": "0d4c", "profile": "default", "dialect": dialect, "dry_run": is_dry_run}
    return {**common, **reached, "detections": 2, "detection_bytes": 700, **more}


VERDICT = {
    **{"type": "verdict", "call_id": "0d4c", "profile": "default", "dialect": "openai-chat", "dry_run": True},
    **{"leg": "request", "hook": "pre_call", "action": "block", "policies": ["secrets"]},
}
SWITCH = {"type": "settings", "profile": "default", "enforce": True}
TRAFFIC = [
    VERDICT,
    ended("blocked", blocked_by=["secrets"], redacted_by=["PII"]),
    ended("redacted", redacted_by=["PII"], dialect="anthropic"),
    ended("allowed", reported_by=["topics"], detections=1, detection_bytes=300),
    SWITCH,
    ended("blocked", is_dry_run=False),
]


def written(lines: Iterable[Line], as_format: Callable[..., Line] = as_plain) -> bytes:
    """Return audit lines that are half an hour apart."""
    data = b""
    for number, line in enumerate(lines):
        time = BEGIN + number * timedelta(minutes=30)
        data += json.dumps(as_format(line, time, is_hashed=True)).encode() + b"\n"
    return data


def report(*arguments: object) -> Any:
    result = CliRunner().invoke(app, ["report", "--json", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.mark.parametrize("as_format", FORMATS)
def test_every_format_gives_the_same_report(tmp_path: Path, as_format: Callable[..., Line]) -> None:
    file = tmp_path / "audit.jsonl"
    file.write_bytes(written(TRAFFIC, as_format))
    found = report(file)
    dry_run, enforced = found.pop("dry_run"), found.pop("enforced")
    assert found == {
        "from": "2026-01-31T13:00:00.000Z",
        "to": "2026-01-31T15:00:00.000Z",
        "lines": 6,
        "other_lines": 0,
        "bad_lines": 0,
        "first_bad_lines": [],
        "enforce_changes": [{"time": "2026-01-31T14:30:00.000Z", "profile": "default", "enforce": True}],
    }
    total = {**NOTHING, "exchanges": 3, "blocked": 1, "redacted": 1, "allowed": 1}
    cost = {"detections": 5, "detection_bytes": 1700}
    assert dry_run["total"] == dry_run["profiles"]["default"] == {**total, **cost}
    assert {name: row["exchanges"] for name, row in dry_run["dialects"].items()} == {"openai-chat": 2, "anthropic": 1}
    hours = {name: row["exchanges"] for name, row in dry_run["hours"].items()}
    assert hours == {"2026-01-31T13:00Z": 2, "2026-01-31T14:00Z": 1}
    assert dry_run["policies"] == {
        "secrets": {"blocked_by": 1, "redacted_by": 0, "reported_by": 0},
        "PII": {"blocked_by": 0, "redacted_by": 2, "reported_by": 0},
        "topics": {"blocked_by": 0, "redacted_by": 0, "reported_by": 1},
    }
    assert enforced["total"]["blocked"] == enforced["total"]["exchanges"] == 1
    assert enforced["policies"] == {"(not named)": {"blocked_by": 1, "redacted_by": 0, "reported_by": 0}}


def test_several_files_may_be_compressed_and_mixed(tmp_path: Path) -> None:
    files = []
    for number, as_format in enumerate(FORMATS):
        file = tmp_path / f"audit.jsonl.{number}"  # what matters is the content, not the name
        data = written(TRAFFIC, as_format)
        file.write_bytes(gzip.compress(data) if number else data)
        files.append(file)
    assert report(*files)["dry_run"]["total"]["exchanges"] == 9


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_standard_input_is_read(pack: Callable[[bytes], bytes]) -> None:
    command = [sys.executable, "-m", "extproc", "report", "--json", "-"]
    done = subprocess.run(command, input=pack(written(TRAFFIC)), capture_output=True, timeout=100, check=True)
    assert json.loads(done.stdout)["lines"] == 6


@pytest.mark.parametrize(
    "since", ["2026-01-31T14:00:00", "2026-01-31T16:00:00+02:00", "2026-01-31T09:00:00-05:00", "2026-01-31T14:00:00Z"]
)
def test_since_leaves_out_what_was_before(tmp_path: Path, since: str) -> None:
    file = tmp_path / "audit.jsonl"
    file.write_bytes(written(TRAFFIC))
    found = report("--since", since, file)
    assert found["from"] == "2026-01-31T14:00:00.000Z"
    assert found["dry_run"]["total"]["exchanges"] == 1


BAD = {
    b'{"time":': "not JSON",
    b"\xff": "not JSON",
    b"[" * 100_000: "not JSON",
    b"[]": "not a JSON object",
    json.dumps({**ended("blocked"), "time": "yesterday"}).encode(): "no valid time",
    json.dumps({**ended("blocked"), "time": "2026-01-31T12:00:00"}).encode(): "no valid time",
    json.dumps({**ended("blocked"), "time": 10**30}).encode(): "no valid time",
    json.dumps(ended("blocked")).encode(): "no valid time",
    written([ended("new")]): "an unknown outcome",
    written([ended("allowed", profile=None)]): "no valid profile",
    written([ended("allowed", dry_run="yes")]): "no valid dry_run",
    written([ended("allowed", detections=-1)]): "no valid detections",
    written([ended("allowed", blocked_by="secrets")]): "no valid blocked_by",
    written([{**SWITCH, "enforce": None}]): "no valid enforce",
    b'"' + b"x" * (3 * source.MOST_BYTES): "too long",
}


def test_bad_lines_are_counted_and_named(tmp_path: Path) -> None:
    file = tmp_path / "audit.jsonl"
    good = written([ended("blocked")])
    file.write_bytes(good + b"".join(line.rstrip(b"\n") + b"\n" for line in BAD) + b"\n" + good)
    found = report(file)
    assert found["dry_run"]["total"]["exchanges"] == 2
    assert found["bad_lines"] == len(BAD)
    named = [(each["file"], each["line"], each["problem"]) for each in found["first_bad_lines"]]
    assert named == [(str(file), number, problem) for number, problem in enumerate(BAD.values(), 2)]


def test_only_the_first_bad_lines_are_named(tmp_path: Path) -> None:
    file = tmp_path / "audit.jsonl"
    file.write_bytes(b"no\n" * 1000)
    found = report(file)
    assert (found["bad_lines"], len(found["first_bad_lines"])) == (1000, 20)


def test_log_records_between_the_lines_are_no_fault(tmp_path: Path) -> None:
    file = tmp_path / "container.log"
    file.write_bytes(b'{"event":"exchange","outcome":"blocked"}\n' + written([ended("blocked")]))
    found = report(file)
    assert (found["other_lines"], found["bad_lines"], found["dry_run"]["total"]["exchanges"]) == (1, 0, 1)


def test_damaged_archive_is_read_as_far_as_possible(tmp_path: Path) -> None:
    file = tmp_path / "audit.jsonl.gz"
    file.write_bytes(gzip.compress(written([ended("blocked")] * 1000))[:-20])
    found = report(file)
    assert found["dry_run"]["total"]["exchanges"] > 0
    assert [each["problem"] for each in found["first_bad_lines"]] == ["the rest of the file cannot be read"]


def test_lines_of_older_versions_have_no_cost(tmp_path: Path) -> None:
    line = ended("blocked", is_dry_run=False)
    del line["detections"], line["detection_bytes"]
    (tmp_path / "audit.jsonl").write_bytes(written([line]))
    total = report(tmp_path / "audit.jsonl")["enforced"]["total"]
    assert (total["blocked"], total["detections"], total["detection_bytes"]) == (1, 0, 0)


def test_names_beyond_a_limit_are_counted_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tally, "MOST_ROWS", 2)
    file = tmp_path / "audit.jsonl"
    file.write_bytes(written(ended("blocked", profile=f"p{n}", blocked_by=[f"b{n}"]) for n in range(5)))
    dry_run = report(file)["dry_run"]
    assert {name: row["exchanges"] for name, row in dry_run["profiles"].items()} == {"p0": 1, "p1": 1, "(others)": 3}
    assert {name: row["blocked_by"] for name, row in dry_run["policies"].items()} == {"b0": 1, "b1": 1, "(others)": 3}


@pytest.mark.parametrize("name", ["missing", "folder"])
def test_file_that_cannot_be_opened_is_a_problem(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    result = CliRunner().invoke(app, ["report", str(tmp_path / name)])
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"{tmp_path / name}: ")


def test_files_may_be_named_by_an_option(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(written(TRAFFIC))
    two.write_bytes(written(TRAFFIC))
    assert report("--audit", one, "--audit", two) == report(one, two) == report("--audit", one, two)


def test_report_needs_a_file() -> None:
    result = CliRunner().invoke(app, ["report"])
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("audit: name at least one file")


def test_tables_show_the_same_numbers(tmp_path: Path) -> None:
    file = tmp_path / "audit.jsonl"
    lines = [*TRAFFIC, ended("blocked", blocked_by=["[red]\x1b[31mnasty"])]
    file.write_bytes(written(lines) + b"no\n")
    result = CliRunner().invoke(app, ["report", str(file)])
    assert result.exit_code == 0
    text = result.stdout
    assert "bad lines: 1\n" in text
    assert f"{file}:8: not JSON" in text.replace("\n", "")
    dry_run, enforced = text.split("Enforced: what happened")
    assert "Dry run: what would have happened" in dry_run
    assert re.search(r"^secrets +1 +0 +0$", dry_run, re.MULTILINE)
    assert re.search(r"^openai-chat +3 +2 +0 +1 +0 +0 +0 +5 +1\.7 kB$", dry_run, re.MULTILINE)
    assert re.search(r"^all +4 +2 +1 +1 +0 +0 +0 +7 +2\.4 kB$", dry_run, re.MULTILINE)
    assert re.search(r"^\(not named\) +1 +0 +0$", enforced, re.MULTILINE)
    assert "2026-01-31T14:30:00.000Z: enforce of default became true" in enforced
    assert "[red]\N{REPLACEMENT CHARACTER}[31mnasty" in dry_run
    assert "\x1b" not in text


def test_empty_file_gives_an_empty_report(tmp_path: Path) -> None:
    (tmp_path / "audit.jsonl").touch()
    result = CliRunner().invoke(app, ["report", str(tmp_path / "audit.jsonl")])
    assert (result.exit_code, result.stdout) == (0, "lines: 0, from - to -\n")


async def prompt(guard: Sidecar, text: str) -> None:
    """Send a request; return once its exchange is recorded."""
    async with envoy_stream(f"127.0.0.1:{guard.port}") as envoy:
        await envoy.request_headers()
        await envoy.read()
        await envoy.body("request", json.dumps(chat_request(text)).encode())
        await envoy.read()
        await envoy.done()
        while await envoy.read() is not None:
            pass
    await asyncio.wait_for(guard.service.idle.wait(), 20)


def of_policy(name: str) -> Line:
    return {"policy_drill_down": {"u1": {"policy_name": name}}}


@pytest.mark.parametrize("name", ["plain", "ecs", "ocsf"])
@pytest.mark.parametrize("is_dry_run", [True, False])
async def test_report_of_a_sidecar_counts_what_aim_decided(
    tmp_path: Path, aim: ScriptedAim, name: str, is_dry_run: bool
) -> None:
    async def judge(question: Question) -> Any:
        text = question.body["messages"][-1]["content"]
        if "secret" in text:
            return {"required_action": {"action_type": "block_action"}, "analysis_result": of_policy("secrets")}
        if "mail" in text:
            redacted: Any = anonymize(question, str.upper)
            return redacted | {"analysis_result": of_policy("PII")}
        return await allow(question)

    aim.judge = judge
    file = tmp_path / "audit.jsonl"
    profiles = {"default": {"enforce": not is_dry_run, "hooks": ["pre_call"]}}
    audit = {"file": str(file), "format": name}
    settings = settings_for(aim.base, aim={"api": "firewall"}, audit=audit, profiles=profiles)
    async with sidecar(settings) as guard:
        for text in ("Hello", "my secret", "my secret", "my mail"):
            await prompt(guard, text)
    found = await asyncio.to_thread(report, file)
    mode, other = found["dry_run"], found["enforced"]
    if not is_dry_run:
        mode, other = other, mode
    asked = sum(int(question.headers["content-length"]) for question in aim.questions)
    total = mode["total"]
    assert (total["exchanges"], total["blocked"]) == (4, 2)
    assert (total["detections"], total["detection_bytes"]) == (4, asked)
    assert mode["policies"]["secrets"]["blocked_by"] == 2
    assert mode["policies"]["PII"]["redacted_by"] == 1
    assert other["total"]["exchanges"] == 0
