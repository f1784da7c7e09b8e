"""Audit lines in ECS and OCSF, and the samples of the documentation."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from extproc.config.settings import Settings
from extproc.telemetry.audit import AuditLog
from extproc.telemetry.audit_ecs import as_ecs
from extproc.telemetry.audit_ocsf import as_ocsf
from tests.fakes.audit import audit_lines

Line = dict[str, Any]

DOCS = Path(__file__).parents[2] / "docs/observability.md"
NOW = datetime(2026, 1, 31, 12, 0, 0, 123000, UTC)
ACTIONS = ("allow", "monitor", "anonymize", "block", "error")
OUTCOMES = ("allowed", "redacted", "blocked", "refused", "failed_open", "aborted")
COMMON = {"call_id": "0d4c", "profile": "default", "dialect": "openai-chat"}

# What ECS 8 allows in the fields that categorise an event.
ECS_TYPES = {
    "intrusion_detection": {"allowed", "denied", "info"},
    "api": {"access", "admin", "allowed", "change", "creation", "deletion", "denied", "end", "info", "start", "user"},
    "configuration": {"access", "change", "creation", "deletion", "info"},
}
ECS_FIELDS = {"@timestamp", "ecs", "event", "http", "user", "rule", "observer", "aim"}
ECS_EVENT = {"kind", "category", "type", "action", "outcome", "id", "module", "dataset", "reason"}

# What OCSF 1.5.0 requires of a class, and which other attributes of it the sidecar uses.
OCSF_BASE = {"activity_id", "category_uid", "class_uid", "metadata", "severity_id", "time", "type_uid"}
OCSF_CLASSES = {
    2004: (OCSF_BASE | {"finding_info"}, {"action_id", "disposition_id", "is_alert", "evidences", "unmapped"}),
    3004: (OCSF_BASE | {"entity"}, {"unmapped"}),
    6003: (
        OCSF_BASE | {"actor", "api", "src_endpoint"},
        {"activity_name", "status_id", "status_code", "unmapped"},
    ),
}


def verdicts(**more: Any) -> Iterator[Line]:
    for is_dry_run in (False, True):
        for action in ACTIONS:
            found = {"policies": ["secrets"]} if action in ("monitor", "anonymize", "block") else {"policies": []}
            failed = {"reason": "timeout"} if action == "error" else {}
            place = {"dry_run": is_dry_run, **more, "leg": "request", "hook": "pre_call", "action": action}
            yield {"type": "verdict", **COMMON, **place, **found, **failed}


def exchanges(**more: Any) -> Iterator[Line]:
    for outcome in OUTCOMES:
        cost = {"detections": 2, "detection_bytes": 700}
        yield {"type": "exchange", **COMMON, "dry_run": False, **more, "outcome": outcome, "code": "", **cost}
        yield {"type": "exchange", **COMMON, "dry_run": True, **more, "outcome": "dry_run", "code": outcome, **cost}


def changes() -> Iterator[Line]:
    for enforce in (False, True):
        yield {"type": "settings", "profile": "default", "enforce": enforce}


def every_line() -> list[Line]:
    caller = {"user_email": "alice@example.com", "session_id": "s1"}
    return [*verdicts(), *verdicts(**caller), *exchanges(), *exchanges(**caller), *changes()]


@pytest.mark.parametrize("line", every_line(), ids=json.dumps)
def test_ecs_line_has_only_values_that_ecs_allows(line: Line) -> None:
    document = as_ecs(line, NOW, is_hashed=False)
    assert document.keys() <= ECS_FIELDS
    assert document["@timestamp"] == "2026-01-31T12:00:00.123Z"
    event = document["event"]
    assert event.keys() <= ECS_EVENT
    assert event["kind"] in ("alert", "event")
    assert event["outcome"] in ("success", "failure")
    (category,) = event["category"]
    assert set(event["type"]) <= ECS_TYPES[category]


@pytest.mark.parametrize("line", every_line(), ids=json.dumps)
def test_ocsf_line_has_the_attributes_of_its_class(line: Line) -> None:
    document = as_ocsf(line, NOW, is_hashed=False)
    required, others = OCSF_CLASSES[document["class_uid"]]
    assert required <= document.keys() <= required | others
    assert document["time"] == 1769860800123
    assert document["category_uid"] == document["class_uid"] // 1000
    assert document["type_uid"] == document["class_uid"] * 100 + document["activity_id"]
    assert document["severity_id"] in range(1, 5)
    assert {"version", "product", "uid"} <= document["metadata"].keys()
    assert document["unmapped"] == line


@pytest.mark.parametrize("as_format", [as_ecs, as_ocsf])
def test_each_line_has_an_id_of_its_own(as_format: Callable[..., Line]) -> None:
    lines = [as_format(line, NOW, is_hashed=False) for line in every_line()]
    ids = {line["event"]["id"] if "event" in line else line["metadata"]["uid"] for line in lines}
    assert len(ids) == len(lines)


def test_ecs_says_what_was_stopped() -> None:
    kinds = {(line["dry_run"], line["action"]): as_ecs(line, NOW, is_hashed=False)["event"] for line in verdicts()}
    assert (kinds[False, "block"]["kind"], kinds[False, "block"]["type"]) == ("alert", ["denied"])
    assert (kinds[True, "block"]["kind"], kinds[True, "block"]["type"]) == ("alert", ["info"])
    assert (kinds[False, "allow"]["kind"], kinds[False, "allow"]["type"]) == ("event", ["allowed"])
    failed = kinds[False, "error"]
    assert (failed["kind"], failed["outcome"], failed["reason"]) == ("event", "failure", "timeout")


def test_ocsf_says_what_was_stopped() -> None:
    found = {(line["dry_run"], line["action"]): as_ocsf(line, NOW, is_hashed=False) for line in verdicts()}
    outcomes = {
        key: (line["class_uid"], line.get("action_id"), line.get("disposition_id")) for key, line in found.items()
    }
    assert outcomes[False, "block"] == (2004, 2, 2)
    assert outcomes[True, "block"] == (2004, 3, 15)
    assert outcomes[False, "anonymize"] == (2004, 4, 11)
    assert outcomes[False, "monitor"] == (2004, 3, 15)
    assert outcomes[False, "allow"] == (6003, None, None)
    assert found[False, "error"]["status_id"] == 2


@pytest.mark.parametrize(("is_hashed", "key"), [(True, "hash"), (False, "email")])
def test_ecs_names_the_caller_as_the_settings_say(is_hashed: bool, key: str) -> None:
    (line, *_) = exchanges(user_email="a@b.c", session_id="s1", key_alias="k")
    document = as_ecs(line, NOW, is_hashed=is_hashed)
    assert document["user"] == {key: "a@b.c"}
    assert (document["aim"]["session_id"], document["aim"]["key_alias"]) == ("s1", "k")
    assert "user_email" not in document["aim"]


@pytest.mark.parametrize(
    ("value", "is_hashed", "user"),
    [
        ("a@b.c", False, {"uid": "a@b.c", "email_addr": "a@b.c"}),
        ("team-1", False, {"uid": "team-1"}),
        ("6f1e", True, {"uid": "6f1e"}),
    ],
)
def test_ocsf_names_the_caller_as_the_settings_say(value: str, is_hashed: bool, user: Line) -> None:
    (line, *_) = exchanges(user_email=value, session_id="s1")
    actor = as_ocsf(line, NOW, is_hashed=is_hashed)["actor"]
    assert actor == {"app_name": "envoy", "user": user, "session": {"uid": "s1"}}
    (*_, found, _) = (each for each in verdicts(user_email=value) if not each["dry_run"])
    assert as_ocsf(found, NOW, is_hashed=is_hashed)["evidences"] == [{"actor": {"app_name": "envoy", "user": user}}]


@pytest.mark.parametrize("name", ["plain", "ecs", "ocsf"])
def test_settings_choose_the_format(tmp_path: Path, name: str) -> None:
    file = tmp_path / "audit.jsonl"
    settings = Settings.model_validate({"aim": {"api_key": "k"}, "audit": {"file": str(file), "format": name}})
    log = AuditLog(settings, lambda _: None)
    line: Line = {"type": "settings", "profile": "default", "enforce": False}
    log.write(line)
    (written,) = audit_lines(file, 1)
    if name == "plain":
        assert written.keys() == {"time", *line}
    else:
        assert (written["aim"] if name == "ecs" else written["unmapped"]) == line


def samples(heading: str) -> list[Line]:
    section = DOCS.read_text().split(f"### {heading}\n")[1].split("\n##")[0]
    return [json.loads(line) for line in re.findall(r"^\{.*\}$", section, re.MULTILINE)]


def without_ids(line: Line) -> Line:
    """Return the line without the values that differ by line or by release."""
    varying = ("id", "uid", "product", "version")
    shown = dict(line)
    for key in shown.keys() & {"event", "metadata", "finding_info", "observer"}:
        shown[key] = {name: value for name, value in shown[key].items() if name not in varying}
    return shown


@pytest.mark.parametrize(("heading", "as_format"), [("ECS", as_ecs), ("OCSF", as_ocsf)])
def test_documented_samples_are_those_of_the_code(heading: str, as_format: Callable[..., Line]) -> None:
    plain = samples("Plain lines")
    assert [line["type"] for line in plain] == ["verdict", "exchange", "settings"]
    expected = []
    for line in plain:
        time = datetime.fromisoformat(line.pop("time"))
        expected.append(without_ids(as_format(line, time, is_hashed=True)))
    assert [without_ids(line) for line in samples(heading)] == expected
