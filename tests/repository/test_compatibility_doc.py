"""docs/compatibility.md holds the tables of `make compatibility`, for the tests and packages that there are."""

from __future__ import annotations

import ast
import re
from importlib.metadata import version

import pytest

from tests.compatibility import BEDS, CLIENTS, PAGE, PATHS, PLANES, ROOT, SCENARIOS, Results, bed_of, page, read, tables
from tests.fakes.beds import MESHES

TEXT = PAGE.read_text()
REPORT = b"""<testsuites><testsuite>
<testcase classname="tests.envoy.test_meshes" name="test_head_request_passes[istio]"/>
<testcase classname="tests.envoy.test_meshes" name="test_head_request_passes[istio-edge]"><failure/></testcase>
<testcase classname="tests.envoy.test_meshes" name="test_large_prompt_is_judged[kgateway-1000000]"/>
<testcase classname="tests.envoy.test_meshes" name="test_large_prompt_is_judged[kgateway-10000000]"/>
<testcase classname="tests.envoy.test_meshes" name="test_check_names_each_mistake[waits 0.2 s-istio-outbound]"/>
<testcase classname="tests.envoy.test_meshes" name="test_check_has_no_finding[istio]"><skipped/></testcase>
<testcase classname="tests.conformance.test_boto3" name="test_converse"/>
</testsuite></testsuites>"""


def part(name: str) -> list[list[str]]:
    """Return the rows of a generated table of the page, without its head."""
    found = re.search(rf"<!-- {name}: [^\n]*-->\n(.*?)\n<!-- end -->", TEXT, re.DOTALL)
    assert found, "run `make compatibility`"
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in found[1].splitlines()[2:]]


def test_page_has_each_plane_scenario_and_client() -> None:
    hint = "run `make compatibility`"
    assert [(row[0], row[1], row[3]) for row in part("planes")] == [
        (plane.name, plane.release, ", ".join(plane.how)) for plane in PLANES
    ], hint
    assert [row[0] for row in part("scenarios")] == list(SCENARIOS), hint
    installed = ["" if client.is_continued else version(client.package) for client in CLIENTS]
    assert [row[1] for row in part("clients")] == installed, hint


def test_nothing_on_the_page_failed() -> None:
    assert "failed**" not in TEXT
    assert all(row[-1] for row in part("planes") if row[3] not in ("", "source"))
    assert all(row[-1].endswith("passed") for row in part("clients"))


def test_each_bed_is_on_the_page() -> None:
    assert set(BEDS) == set(MESHES)
    assert {bed for plane in PLANES for bed in plane.beds} == set(MESHES)


def test_each_test_on_the_beds_belongs_to_a_scenario() -> None:
    known = {test for tests in SCENARIOS.values() for test in tests}
    found = set()
    for path in PATHS[:2]:
        for node in ast.walk(ast.parse((ROOT / path).read_text())):
            if isinstance(node, ast.AsyncFunctionDef) and node.name.startswith("test_"):
                arguments = {argument.arg for argument in node.args.args}
                if arguments & {"chain", "mesh"}:
                    found.add(node.name)
    assert found == known


def test_each_client_module_is_on_the_page() -> None:
    listed = {module for client in CLIENTS for module in client.modules}
    modules = {path.stem for path in (ROOT / "tests" / "conformance").glob("test_*.py")}
    several = {"test_block_answers", "test_pings", "test_recorded_answers", "test_rich_answers"}
    assert modules - listed == several  # these use several clients
    assert listed <= modules


@pytest.mark.parametrize(
    ("name", "bed"),
    [
        ("tests.envoy.test_meshes::test_a[istio]", "istio"),
        ("tests.envoy.test_meshes::test_a[istio-edge-1000]", "istio-edge"),
        ("tests.envoy.test_meshes::test_a[it is 15 s, not 0-envoy-gateway]", "envoy-gateway"),
        ("tests.envoy.test_mesh_tls::test_a[kgateway]", "kgateway"),
        ("tests.envoy.test_mesh_tls::test_a", ""),
        ("tests.render.test_meshes::test_a[istio]", ""),
    ],
)
def test_bed_of_a_test_is_in_its_name(name: str, bed: str) -> None:
    assert bed_of(name) == bed


def test_tables_show_what_passed_and_what_failed() -> None:
    results = read("1.40.0", REPORT)
    parts = tables(results)
    head = next(line for line in parts["scenarios"].splitlines() if line.startswith("| HEAD"))
    assert head == "| HEAD |  |  | yes | **1 failed** |  |  |"
    assert "| prompts of 1 MB and 10 MB |  | yes |  |  |  |  |" in parts["scenarios"]
    assert "| Istio, gateway | main (1.32) | 1.40.0 | rebuilt, schema | 1 passed, **1 failed** |" in parts["planes"]
    assert parts["clients"].count("1 passed") == 1


def test_generated_parts_replace_the_old_ones() -> None:
    text = "As of 2020-01-01.\n<!-- a: written by `make compatibility` -->\nold\n<!-- end -->\nrest\n"
    changed = page(text, {"a": "| new |"}, "2026-11-30")
    assert changed == ("As of 2026-11-30.\n<!-- a: written by `make compatibility` -->\n| new |\n<!-- end -->\nrest\n")
    assert tables(Results("1.40.0"))["scenarios"].count("\n") == len(SCENARIOS) + 1
