"""What of an exchange is inspected: by which dialect, and under the policy of which profile."""

from __future__ import annotations

from typing import Any

from extproc.core.commands import Command, ReportDialect, ReportOutcome, ReportUnmatched, UseProfile
from extproc.core.inspection import Inspection
from extproc.core.reading import Scope
from tests.fakes.world import policy


def begun(path: str, **profile: Any) -> tuple[Inspection, list[Command]]:
    """Return the inspection of a POST to `path`, and what it has reported."""
    commands: list[Command] = []
    inspection = Inspection(policy(**profile), commands.append)
    inspection.pick_dialect("POST", path)
    return inspection, commands


def test_dialect_of_the_path_is_reported() -> None:
    inspection, commands = begun("/v1/chat/completions")
    assert inspection.scope is Scope.KNOWN
    assert inspection.reads_answer
    assert inspection.dialect is not None
    assert commands == [ReportDialect(inspection.dialect.name), ReportOutcome("allowed")]


def test_unmatched_path_is_read_by_the_generic_dialect_once_it_is_adopted() -> None:
    inspection, commands = begun("/other")
    assert (inspection.dialect, inspection.scope) == (None, Scope.UNMATCHED)
    inspection.adopt()
    assert commands == [ReportUnmatched("POST", "/other"), ReportDialect("generic"), ReportOutcome("allowed")]


def test_what_a_dialect_is_switched_on_for_is_read() -> None:
    inspection, _ = begun("/v1/embeddings")
    assert not inspection.reads_answer
    inspection, _ = begun("/v1/embeddings", inspect=["embeddings"])
    assert inspection.reads_answer
    assert inspection.dialect is not None
    assert not inspection.dialect.answers_media


def test_model_decides_under_which_profile_the_exchange_is_read() -> None:
    models = {"small*": policy(name="small", hooks=())}
    inspection, commands = begun("/v1/chat/completions", models=models)
    commands.clear()
    assert inspection.follow_models(["large"])
    assert commands == [ReportOutcome("allowed")]

    commands.clear()
    assert not inspection.follow_models(["small-1"])
    assert inspection.scope is Scope.NOTHING
    assert commands == [UseProfile("small")]
