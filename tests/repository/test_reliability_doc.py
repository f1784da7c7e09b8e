"""docs/reliability.md holds the current fault matrix."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

from extproc.core.errors import Reason
from tests.envoy.faults.matrix import CHAINS, GROUPS
from tests.envoy.faults.others import OTHERS
from tests.envoy.faults.page import PAGE, current

TESTS = Path(__file__).parents[1]

FAULTS = [fault for rows in GROUPS.values() for fault in rows]


def test_tables_equal_the_matrix() -> None:
    page = PAGE.read_text()
    assert page == current(page), "run `make reliability`"


def test_fault_names_are_unique() -> None:
    names = Counter((group, fault.name) for group, rows in GROUPS.items() for fault in rows)
    assert [name for name, count in names.items() if count > 1] == []


def test_every_fault_beside_the_matrix_has_its_tests() -> None:
    missing = []
    for test in [test for other in OTHERS for test in other.tests]:
        path, *names = test.split("::")
        body: list[ast.stmt] = ast.parse((TESTS / path).read_text()).body
        for name in names:
            found = [each for each in body if getattr(each, "name", None) == name]
            body = found[0].body if found and isinstance(found[0], ast.ClassDef) else []
        if not found:
            missing.append(test)
    assert missing == []


def test_every_chain_is_used() -> None:
    assert {fault.chain for fault in FAULTS} == set(CHAINS)


def test_every_reason_occurs_and_is_explained() -> None:
    assert {fault.reason for fault in FAULTS} >= set(Reason)
    page = PAGE.read_text()
    assert [reason for reason in Reason if f"| `{reason}`" not in page] == []
