"""`make attack` in its smallest form: a part of the attacks, and a runner that notices a broken promise."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.attack.attack import SERVED, Attack
from tests.attack.run import ATTACKS, attack, chosen
from tests.attack.target import Target, target
from tests.fakes.envoy import needs_envoy

pytestmark = needs_envoy

ROOT = Path(__file__).parents[2]


def test_names_are_unique() -> None:
    assert len({each.name for each in ATTACKS}) == len(ATTACKS)


def test_words_and_quickness_choose() -> None:
    assert {each.name.partition(":")[0] for each in chosen(["path: "], is_quick=False)} == {"path"}
    assert len(chosen([], is_quick=True)) < len(ATTACKS) / 3


async def test_broken_promise_is_noticed() -> None:
    async def passes(victim: Target) -> None:
        victim.model.requests.clear()

    async def fails(_: Target) -> None:
        raise AssertionError("the model got it")

    async with target() as victim:
        assert await attack(Attack("a", SERVED, passes), victim) == ""
        assert await attack(Attack("b", SERVED, fails), victim) == "AssertionError: the model got it"


@pytest.mark.more
@pytest.mark.timeout(300)
def test_quick_run_breaks_no_promise() -> None:
    command = [sys.executable, "-m", "tests.attack.run", "--quick"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=290, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "BROKEN" not in done.stdout
