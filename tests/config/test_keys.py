"""The API keys for Aim: files that change, and the log records about invalid files."""

from __future__ import annotations

from pathlib import Path

import pytest
from structlog.testing import capture_logs
from structlog.typing import EventDict

from extproc.config.keys import Keys
from extproc.config.settings import Settings
from extproc.core.errors import DetectionRejected, Reason
from extproc.core.identity import Identity
from extproc.telemetry.audit import AuditLog


def key(keys: Keys, profile: str = "default") -> str | None:
    """Return the key of a profile; None if there is none."""
    try:
        return keys.of(profile)
    except DetectionRejected:
        return None


def said(file: Path, problem: str, *, kept: bool = False) -> EventDict:
    return {
        "event": "key_unreadable",
        "log_level": "warning",
        "setting": "aim.api_key_file",
        "file": str(file),
        "problem": problem,
        "last_key_in_use": kept,
    }


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "key"


@pytest.fixture
def keys(file: Path) -> Keys:
    return Keys(Settings.model_validate({"aim": {"api_key_file": str(file)}}))


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "No such file or directory"),
        (b"", "it is empty"),
        (b" \n", "it is empty"),
        (b"se cret", "it contains characters that an HTTP header cannot carry"),
        (b"secret\xff", "it contains characters that an HTTP header cannot carry"),
    ],
)
def test_problem_with_a_file_is_logged_once_and_so_is_its_end(
    keys: Keys, file: Path, content: bytes | None, problem: str
) -> None:
    if content is not None:
        file.write_bytes(content)
    with capture_logs() as logs:
        assert [key(keys) for _ in range(3)] == [None] * 3
    with pytest.raises(DetectionRejected) as caught:
        keys.of("default")
    assert caught.value.reason is Reason.KEY_REFUSED
    assert logs == [said(file, problem)]
    file.write_text("good-key\n")
    with capture_logs() as logs:
        assert [key(keys) for _ in range(3)] == ["good-key"] * 3
    assert logs == [{"event": "key_readable", "log_level": "info", "setting": "aim.api_key_file", "file": str(file)}]


def test_valid_file_is_not_logged(keys: Keys, file: Path) -> None:
    with capture_logs() as logs:
        for content in ("one", "another"):
            file.write_text(content)
            assert key(keys) == content
    assert logs == []


def test_last_key_stays_while_the_file_is_missing(keys: Keys, file: Path) -> None:
    file.write_text("good-key")
    assert key(keys) == "good-key"
    away = file.rename(file.with_name("away"))
    with capture_logs() as logs:
        assert [key(keys) for _ in range(3)] == ["good-key"] * 3
        away.rename(file)
        assert key(keys) == "good-key"
    assert logs[0] == said(file, "No such file or directory", kept=True)
    assert [record["event"] for record in logs] == ["key_unreadable", "key_readable"]


def test_each_file_is_logged_with_its_setting(tmp_path: Path) -> None:
    profiles = {name: {"api_key_file": str(tmp_path / name)} for name in ("a", "b")}
    settings = Settings.model_validate({"aim": {"api_key": "k"}, "profiles": profiles})
    keys = Keys(settings)
    with capture_logs() as logs:
        for profile in ("a", "b", "a", "b", "default"):
            key(keys, profile)
    assert [record["setting"] for record in logs] == ["profiles.a.api_key_file", "profiles.b.api_key_file"]


def test_audit_log_logs_only_problems_of_its_own_key(tmp_path: Path) -> None:
    """Problems with a key for Aim are logged once, by the client of Aim."""
    aim = {"api_key_file": str(tmp_path / "aim")}
    own = {"key_file": str(tmp_path / "own")}
    with capture_logs() as logs:
        for audit in ({}, own):
            settings = Settings.model_validate({"aim": aim, "audit": {"file": str(tmp_path / "audit"), **audit}})
            log = AuditLog(settings, lambda: None)
            for _ in range(2):
                assert log.callers("default", Identity(session_id="s")) == {}
    assert [record["setting"] for record in logs] == ["audit.key_file"]
