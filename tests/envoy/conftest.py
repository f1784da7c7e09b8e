"""Every test of this folder runs a real Envoy, and is skipped, saying so, where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fakes.envoy import needs_envoy

_HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if _HERE in item.path.parents:
            for mark in needs_envoy:
                item.add_marker(mark)
