"""The strings of a list in a request, read as the lines of one text."""

from __future__ import annotations

from typing import Any

import pytest

from extproc.core.dialects.lines import lines_of


@pytest.mark.parametrize("locates", [True, False])
def test_strings_are_lines_of_one_text(locates: bool) -> None:
    leaf = lines_of(["call", 1, "", "Tom"], ("stop",), is_inert=False, is_fixed=False, locates=locates)
    assert leaf is not None
    assert leaf.text == "call\nTom"
    places = [("stop", 0), ("stop", 3)] if locates else []
    assert [part.path for part in leaf.parts] == places


def test_lines_of_a_signed_list_are_fixed() -> None:
    leaf = lines_of(["call", "Tom"], ("stop",), is_inert=False, is_fixed=True, locates=True)
    assert leaf is not None
    assert [part.fixed for part in leaf.parts] == [True, True]


@pytest.mark.parametrize(
    ("nodes", "is_inert"), [([], False), (["call Tom"], False), (["call Tom", ""], False), (["call Tom", "x-1"], True)]
)
def test_less_than_two_strings_are_no_lines(nodes: list[Any], is_inert: bool) -> None:
    assert lines_of(nodes, (), is_inert=is_inert, is_fixed=False, locates=False) is None
