"""README.md: its commands, run in a shell except for the ports, and its configuration for a running Envoy."""

from __future__ import annotations

import re
from typing import Any

import yaml

from extproc.check import Severity
from extproc.check.envoy import check_envoy
from tests.envoy.case import blocks
from tests.envoy.test_getting_started import ROOT, answers, shell
from tests.envoy.test_meshes import settings_of
from tests.fakes.ports import free_port
from tests.fakes.rig import chat_answer, rig
from tests.fakes.upstream import whole

PAGE = (ROOT / "README.md").read_text()
PORTS = ("50051", "9902", "10000", "9901")


def section(heading: str, language: str) -> str:
    """Return the first block of `language` below a heading."""
    text = re.split(rf"^##+ {heading}\n", PAGE, flags=re.MULTILINE)[1]
    (block, *_) = re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return str(block)


async def test_commands_of_the_readme_work(tmp_path: Any) -> None:
    venv, install, key, check, serve, render, envoy, check_envoy = section("Run it", "sh").splitlines()
    assert (venv.split()[0], install.split()[0]) == ("python3", "pip")  # this test's environment has the packages
    ports = {port: str(free_port()) for port in (*PORTS, "8090")}
    steps = [
        "extproc local-aim --listen 127.0.0.1:8090 >/dev/null &",
        answers(8090),
        "export AIM_API_BASE=http://127.0.0.1:8090",
        "export EXTPROC_LISTEN=127.0.0.1:50051 EXTPROC_ADMIN=127.0.0.1:9902",
        *(key, check, serve.replace("&", ">/dev/null &"), answers(9902, "/readyz")),
        *(render, envoy.replace("&", ">/dev/null &").replace("envoy -c", "envoy --use-dynamic-base-id -c")),
        *(answers(9901, "/ready"), "echo == envoy", check_envoy, "kill %1 %2 %3"),
    ]
    script = "\n".join(steps)
    for port, free in ports.items():
        script = re.sub(rf"\b{port}\b", free, script)
    status, printed = await shell(tmp_path, script)
    assert status == 0, printed
    lines = printed.split("== envoy\n")[1].splitlines()
    # Some wheels of the matrix are old, which is a warning.
    (told,) = [line for line in lines if not line.startswith("ok: ") and "; upgrade to " not in line]
    assert told.startswith("warning: listener llm: a client can name another person as the caller: ")
    assert any("1 of 1 HTTP filter chains have the filter" in line for line in lines)


def with_snippet(tree: Any) -> None:
    """Turn the bootstrap into that of an Envoy with its defaults, and add what the README says."""
    snippet = yaml.safe_load(section("You already run Envoy", "yaml"))
    (listener,) = tree["static_resources"]["listeners"]
    ours, model = tree["static_resources"]["clusters"]
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    (added,) = snippet["clusters"]
    added["load_assignment"]["endpoints"] = ours["load_assignment"]["endpoints"]  # the port is the test's
    for name in ("circuit_breakers", "typed_extension_protocol_options"):
        model.pop(name, None)
    tree["static_resources"]["clusters"] = [added, model]
    route = {"match": {"prefix": "/"}, "route": {"cluster": model["name"]}}
    host = {"name": "all", "domains": ["*"], "routes": [route]}
    kept = ("@type", "stat_prefix")
    changed = {name: manager[name] for name in kept} | {
        "route_config": {"virtual_hosts": [host]},
        "http_filters": [*snippet["http_filters"], manager["http_filters"][-1]],
    }
    manager.clear()
    manager.update(changed)


async def test_snippet_guards_an_envoy_that_runs_already() -> None:
    async with rig(edit=with_snippet, aim={"api": "firewall"}) as chain:
        blocks("secret")(chain.aim)
        chain.upstream.answer = whole(chat_answer("Hi"))
        assert (await chain.chat("Hello")).status_code == 200
        assert (await chain.chat("a secret")).status_code == 400
        findings = await check_envoy(settings_of(chain), chain.envoy.admin)
    told = {
        severity: " ".join(str(finding) for finding in findings if finding.severity is severity)
        for severity in (Severity.ERROR, Severity.WARNING)
    }
    for name in ("timeout", "request_body_buffer_limit", "circuit_breakers"):
        assert f"`{name}`" in PAGE
        assert f"set {name}" in told[Severity.ERROR]
    assert len([finding for finding in findings if finding.severity is Severity.ERROR]) == 3
    for said in ("normalize_path", "merge_slashes", "stream_idle_timeout", "mutation_rules", "the access log"):
        assert said in told[Severity.WARNING]
