"""The settings file as the supervisor accepted it."""

from __future__ import annotations

from pathlib import Path

import pytest

from extproc.serve.accepted import Accepted


def test_worker_is_outdated_if_the_supervisor_accepts_another_file_while_it_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIM_API_KEY", "key")
    config, folder = tmp_path / "settings.yaml", tmp_path / "folder"
    folder.mkdir()
    config.write_text("profiles: {default: {block_message: old}}")
    supervisor, worker = Accepted(folder, config), Accepted(folder, config)
    supervisor.accept()
    assert worker.settings().profiles["default"].block_message == "old"
    assert not worker.is_outdated()
    config.write_text("profiles: {default: {block_message: new}}")
    supervisor.accept()
    assert worker.is_outdated()
