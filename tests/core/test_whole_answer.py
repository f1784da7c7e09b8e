"""Answers that are held whole: the bounds of their redactions."""

from __future__ import annotations

import json

from extproc.core.verdict import Anonymize
from tests.fakes.rig import chat_request
from tests.fakes.world import World


def test_number_of_changed_values_is_bounded_over_all_detections() -> None:
    """The choices of one answer are up to 64 texts for Aim, none of which alone exceeds the bound."""
    choices = [{"index": 0, "message": {"role": "assistant", "content": "a"}}] * 32_769
    it = World().request(json.dumps(chat_request("Hello")).encode()).judge().head("application/json")
    it.body(json.dumps({"choices": choices}).encode(), end=True)
    (detection,) = it.detections.values()
    it.judge(*(Anonymize(((given.output or "").replace("a", "x"),)) for given in detection.inputs))
    assert it.code == "redaction_failed"
