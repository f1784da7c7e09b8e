"""Writes the tables of docs/compatibility.md from the results of the tests that they are about.

    python -m tests.compatibility [ARGUMENTS OF PYTEST]

A row of the first table names the tests of a data plane, a row of the second the tests of a scenario, a row of the
third the tests of a client.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from xml.etree import ElementTree

from tests.envoy.matrix import binary_version
from tests.fakes.beds import MESHES

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "compatibility.md"
REPORT = ROOT / "build" / "compatibility.xml"
PATHS = (
    "tests/envoy/test_meshes.py",
    "tests/envoy/test_mesh_tls.py",
    "tests/envoy/test_ai_gateway.py",
    "tests/render/test_meshes.py",
    "tests/processor/test_agent_gateway.py",
    "tests/conformance",
)

REAL, REBUILT, STAND_IN, REPLAYED, SCHEMA, SOURCE = "real Envoy", "rebuilt", "stand-in", "replayed", "schema", "source"


@dataclass(frozen=True, slots=True)
class Plane:
    """A data plane: `beds` and `tests` are the beds and the parts of test ids whose results are its own."""

    name: str
    release: str
    how: tuple[str, ...]
    beds: tuple[str, ...] = ()
    tests: tuple[str, ...] = ()
    has_envoy: bool = True
    note: str = ""


PLANES = (
    Plane("plain Envoy", "1.36.4 to 1.40.0", (REAL,), note="[envoy-versions.md](envoy-versions.md)", has_envoy=False),
    Plane("Envoy Gateway", "1.9.0", (REBUILT, SCHEMA), ("envoy-gateway",), ("crds_accept_rendered_resources[envoy-",)),
    Plane("Envoy AI Gateway", "1.1.0", (STAND_IN,), tests=("test_ai_gateway::",)),
    Plane(
        "kgateway",
        "main, 2026; schema of 2025-08",
        (REBUILT, SCHEMA),
        ("kgateway",),
        ("crds_accept_rendered_resources[kgateway",),
    ),
    Plane(
        "Istio, gateway",
        "main (1.32)",
        (REBUILT, SCHEMA),
        ("istio", "istio-edge"),
        ("crds_accept_rendered_resources[istio",),
    ),
    Plane("Istio, app's pod (outbound)", "main (1.32)", (REBUILT, SCHEMA), ("istio-outbound",)),
    Plane("Istio, waypoint", "main (1.32)", (REBUILT, SCHEMA), ("istio-waypoint",)),
    Plane(
        "Istio, app's pod (inbound)",
        "main (1.32)",
        (SCHEMA, SOURCE),
        tests=("all_patches_have_the_same_context[inbound",),
        has_envoy=False,
    ),
    Plane(
        "agentgateway",
        "1.4.1; schema of 2026-08",
        (REPLAYED, SCHEMA),
        tests=("test_agent_gateway::", "crds_accept_rendered_resources[agentgateway"),
        has_envoy=False,
    ),
    Plane("Google Cloud service extensions", "API v1, 2026-10", (SOURCE,), has_envoy=False),
    Plane("Consul Enterprise", "2.0", (SOURCE,), has_envoy=False),
    Plane("Gloo Gateway (Edge API)", "", (SOURCE,), has_envoy=False),
    Plane("Contour", "", (), has_envoy=False, note="has no ext_proc"),
)

BEDS = {
    "envoy-gateway": "Envoy Gateway",
    "kgateway": "kgateway",
    "istio": "Istio",
    "istio-edge": "Istio, edge profile",
    "istio-outbound": "Istio, app's pod",
    "istio-waypoint": "Istio, waypoint",
}

SCENARIOS = {
    "an allowed, a blocked and a redacted request": (
        "test_allowed_request_reaches_the_model_unchanged",
        "test_blocked_request_does_not_reach_the_model",
        "test_redacted_request_reaches_the_model_without_the_secret",
    ),
    "a verified, a blocked and a redacted stream": (
        "test_verified_stream_arrives_byte_for_byte",
        "test_blocked_stream_becomes_an_error",
        "test_redacted_stream_arrives_without_the_secret",
    ),
    "prompts of 1 MB and 10 MB": ("test_large_prompt_is_judged",),
    "30 MB on a path that no dialect knows": ("test_large_upload_on_another_path_passes",),
    "a path with `%2F`": ("test_escaped_slash_in_a_path_reaches_the_model",),
    "HEAD": ("test_head_request_passes",),
    "a stream with trailers": ("test_stream_with_trailers_ends",),
    "a stream of 25 s": ("test_slow_stream_is_not_cut_off",),
    "an error of the model": ("test_error_of_the_model_arrives",),
    "no Aim, no sidecar": ("test_without_aim_nothing_passes", "test_without_a_sidecar_nothing_passes"),
    "two sidecars with TLS: health checks": ("test_health_checks_reach_sidecars_with_tls",),
    "two sidecars with TLS: one drains": ("test_draining_sidecar_gets_no_new_exchanges",),
    "`extproc check --envoy` has no finding": (
        "test_check_has_no_finding",
        "test_check_warns_that_clients_name_the_caller_but_not_of_apps_that_do",
    ),
    "`extproc check --envoy` names each of ten mistakes": ("test_check_names_each_mistake",),
}


@dataclass(frozen=True, slots=True)
class Client:
    """A client library: `modules` are those of tests/conformance that use it."""

    package: str
    apis: str
    request: str
    stream: str
    modules: tuple[str, ...]
    is_continued: bool = False


CLIENTS = (
    Client(
        "openai",
        "chat, completions, responses, threads, moderations, audio, images, files",
        "`BadRequestError`",
        "`APIError`; for responses the event `error`",
        ("test_openai_sdk", "test_openai_assistants", "test_openai_forms"),
    ),
    Client(
        "anthropic",
        "messages, batches; Bedrock",
        "`BadRequestError`",
        "`APIStatusError`",
        ("test_anthropic_sdk", "test_anthropic_batches"),
    ),
    Client("google-genai", "content", "`errors.ClientError`", "`errors.ClientError`", ("test_google_genai_sdk",)),
    Client(
        "google-genai",
        "interactions",
        "`BadRequestError`",
        "the event `error`",
        ("test_interactions_sdk",),
        is_continued=True,
    ),
    Client("boto3", "Bedrock's runtime", "`ValidationException`", "`EventStreamError`", ("test_boto3",)),
    Client(
        "mistralai",
        "chat, conversations",
        "`SDKError`",
        "`MistralError`; for conversations the event `conversation.response.error`",
        ("test_mistral_sdk",),
    ),
    Client(
        "cohere",
        "chat, embed, rerank",
        "`BadRequestError`",
        "the event `message-end` with `finish_reason: ERROR`",
        ("test_cohere_sdk",),
    ),
    Client("ollama", "chat, generate, embed", "`ResponseError`", "`ResponseError`", ("test_ollama_sdk",)),
    Client("mcp", "streamable HTTP", "`MCPError`", "`MCPError`", ("test_mcp_sdk",)),
)


@dataclass(slots=True)
class Counts:
    """How many tests passed and failed."""

    passed: int = 0
    failed: int = 0

    def __str__(self) -> str:
        """Return a cell of a table."""
        failed = f"**{self.failed} failed**" if self.failed else ""
        return ", ".join(part for part in (f"{self.passed} passed" if self.passed else "", failed) if part)


@dataclass(slots=True)
class Results:
    """The results by test: whether it passed. `envoy` is the version of Envoy that they ran with."""

    envoy: str
    passed: Mapping[str, bool] = field(default_factory=dict)

    def count(self, matches: Sequence[str], beds: Sequence[str] = ()) -> Counts:
        """Count the tests of `beds`, and those whose id contains one of `matches`."""
        found = [
            has_passed
            for name, has_passed in self.passed.items()
            if bed_of(name) in beds or any(part in name for part in matches)
        ]
        return Counts(found.count(True), found.count(False))

    def scenario(self, tests: Sequence[str], bed: str) -> Counts:
        """Count the runs of `tests` on `bed`."""
        found = [
            has_passed
            for name, has_passed in self.passed.items()
            if bed_of(name) == bed and any(f"::{test}[" in name for test in tests)
        ]
        return Counts(found.count(True), found.count(False))


def bed_of(name: str) -> str:
    """Return the bed that a test of the meshes ran on; empty if it has none."""
    module, _, test = name.partition("::")
    if not module.endswith(("envoy.test_meshes", "envoy.test_mesh_tls")):
        return ""
    parameters = test.partition("[")[2].removesuffix("]")
    beds = sorted(MESHES, key=len, reverse=True)
    return next((bed for bed in beds if re.search(rf"(^|-){bed}(-\d+)?$", parameters)), "")


def read(envoy: str, report: bytes) -> Results:
    """Read pytest's report in JUnit's XML; skipped tests do not count."""
    passed = {}
    for case in ElementTree.fromstring(report).iter("testcase"):
        ends = {child.tag for child in case}
        if "skipped" not in ends:
            passed[f"{case.get('classname')}::{case.get('name')}"] = not ends & {"failure", "error"}
    return Results(envoy, passed)


def tables(results: Results) -> dict[str, str]:
    """Return the generated parts of the page by name."""
    planes = [
        (
            plane.name,
            plane.release,
            results.envoy if plane.has_envoy else "",
            ", ".join(plane.how),
            plane.note or str(results.count(plane.tests, plane.beds)),
        )
        for plane in PLANES
    ]
    scenarios = [(name, *(_cell(results.scenario(tests, bed)) for bed in BEDS)) for name, tests in SCENARIOS.items()]
    clients = [
        (
            "" if client.is_continued else f"`{client.package}`",
            "" if client.is_continued else version(client.package),
            client.apis,
            client.request,
            client.stream,
            str(results.count([f"conformance.{module}::" for module in client.modules])),
        )
        for client in CLIENTS
    ]
    return {
        "planes": _table(("data plane", "release", "Envoy", "tested how", "tests"), planes),
        "scenarios": _table(("", *BEDS.values()), scenarios),
        "clients": _table(
            ("client", "release", "APIs", "a blocked request", "a stream that is blocked half-way", "tests"), clients
        ),
    }


def page(text: str, parts: Mapping[str, str], day: str) -> str:
    """Return `text`, the page, with its generated parts and its date replaced."""
    for name, part in parts.items():
        before, mark, rest = text.partition(f"<!-- {name}: written by `make compatibility` -->\n")
        assert mark, name
        text = before + mark + part + "\n<!-- end -->" + rest.partition("<!-- end -->")[2]
    return re.sub(r"As of \d{4}-\d\d-\d\d", f"As of {day}", text)


def _cell(counts: Counts) -> str:
    return str(counts) if counts.failed else "yes" if counts.passed else ""


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main(arguments: Sequence[str]) -> int:
    """Run the tests and write the page; return pytest's exit status."""
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", f"--junit-xml={REPORT}", *PATHS, *arguments]
    done = subprocess.run(command, cwd=ROOT, check=False)
    results = read(binary_version(os.environ), REPORT.read_bytes())
    day = time.strftime("%Y-%m-%d", time.gmtime())
    PAGE.write_text(page(PAGE.read_text(), tables(results), day))
    return done.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
