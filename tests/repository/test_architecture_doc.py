"""docs/architecture.md: its state tables come from the code, and it names the packages and modules that exist."""

from __future__ import annotations

import re

import pytest

from tests.repository.files import ROOT
from tools.state_tables import TARGET, with_tables

PAGE = TARGET.read_text()


def test_the_state_tables_are_those_of_the_code() -> None:
    assert with_tables(PAGE) == PAGE, "run `make docs`"


def test_a_page_without_a_place_for_the_tables_is_an_error() -> None:
    with pytest.raises(ValueError, match="the page lacks the lines"):
        with_tables("# Architecture\n")


def test_every_package_is_described() -> None:
    packages = {f"extproc/{path.parent.name}" for path in (ROOT / "extproc").glob("*/__init__.py")}

    assert packages == set(re.findall(r"`(extproc/\w+)`", PAGE))


def test_every_module_of_the_core_is_described() -> None:
    rows = re.findall(r"^\|([^|]+)\|", PAGE.partition("### The core")[2].partition("###")[0], re.MULTILINE)
    modules = {path.stem for path in (ROOT / "extproc" / "core").glob("*.py")} - {"__init__"}

    assert modules == set(re.findall(r"`(\w+)`", "".join(rows)))


def test_every_named_module_of_the_shell_exists() -> None:
    shell = PAGE.partition("### The shell")[2].partition("##")[0]
    named = re.findall(r"`(\w+/\w+)`", shell)

    assert named
    assert [name for name in named if not (ROOT / "extproc" / f"{name}.py").is_file()] == []
