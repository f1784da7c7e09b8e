"""The examples of docs/providers.md: Envoy takes each configuration, and each request is read and can be refused."""

from __future__ import annotations

import re
import shlex
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from extproc.cli.main import app
from tests.envoy.case import blocks
from tests.envoy.test_getting_started import shell
from tests.fakes.aim import ScriptedAim
from tests.fakes.envoy import needs_envoy, run_envoy, validate
from tests.fakes.sidecar import Sidecar, settings_for, sidecar
from tests.fakes.upstream import ScriptedUpstream

pytestmark = needs_envoy

_PAGE = (Path(__file__).parents[2] / "docs" / "providers.md").read_text()
_SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", _PAGE, re.MULTILINE | re.DOTALL))
_PROMPTS = ("What is a service mesh?", "Oslo")
_MESSAGE = "Not that."

_each_provider = pytest.mark.parametrize("provider", list(_SECTIONS))


def _commands(provider: str) -> list[str]:
    """Return the commands of a section: one that renders, one that asks."""
    return re.findall(r"^```sh\n(.*?)^```", _SECTIONS[provider], re.MULTILINE | re.DOTALL)


def _settings(provider: str) -> dict[str, Any]:
    """Return the settings that a section asks for."""
    written = re.findall(r"^```yaml\n(.*?)^```", _SECTIONS[provider], re.MULTILINE | re.DOTALL)
    settings: dict[str, Any] = yaml.safe_load(written[0]) if written else {}
    return settings


def _rendered(folder: Path, command: str, settings: dict[str, Any]) -> str:
    """Return what a command that renders prints."""
    file = folder / "settings.yaml"
    file.write_text(yaml.safe_dump(settings))
    command = command.replace("--config settings.yaml", f"--config {file}").replace("\\\n", "")
    program, *arguments, into, _ = shlex.split(command)
    assert (program, into) == ("extproc", ">")
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_page_has_each_provider() -> None:
    names = " ".join(_SECTIONS)
    for each in ("OpenAI", "Azure", "Anthropic", "Gemini", "Vertex", "Bedrock", "Mistral", "Cohere", "Ollama", "MCP"):
        assert each in names


@_each_provider
def test_envoy_takes_the_configuration(provider: str, tmp_path: Path) -> None:
    render, _ = _commands(provider)
    validate(_rendered(tmp_path, render, _settings(provider)))


@asynccontextmanager
async def _running(provider: str, folder: Path) -> AsyncIterator[tuple[ScriptedAim, ScriptedUpstream, Sidecar, str]]:
    """Run the section's Envoy in front of a model on this machine; yield what is behind it, and its `host:port`."""
    render, _ = _commands(provider)
    async with ScriptedAim().running() as aim, ScriptedUpstream().running() as upstream:
        settings = settings_for(aim.base, **_settings(provider))
        async with sidecar(settings) as guard:
            here = re.sub(r"https?://[\w.-]+(:\d+)?", f"http://127.0.0.1:{upstream.port}", render)
            here = here.replace("--listen 127.0.0.1:10000", "--listen 127.0.0.1:0 --admin 127.0.0.1:0")
            listen = {"listen": f"127.0.0.1:{guard.port}", **_settings(provider)}
            async with run_envoy(_rendered(folder, here, listen)) as envoy:
                yield aim, upstream, guard, envoy.url.removeprefix("http://")


@_each_provider
async def test_the_request_is_read_and_refused(provider: str, tmp_path: Path) -> None:
    _, ask = _commands(provider)
    (dialect,) = re.findall(r"Dialect of the example: `([\w-]+)`", _SECTIONS[provider])
    async with _running(provider, tmp_path) as (aim, upstream, guard, address):
        ask = ask.replace("127.0.0.1:10000", address)
        status, allowed = await shell(tmp_path, ask)
        assert (status, len(upstream.requests)) == (0, 1), allowed
        assert "HTTP/1.1 200" in allowed
        assert "x-aim-call-id: " in allowed
        (question,) = aim.asked("pre_call")
        (prompt,) = [each for each in _PROMPTS if each in str(question.body)]
        blocks(prompt, _MESSAGE)(aim)
        status, blocked = await shell(tmp_path, ask)
        assert (status, len(upstream.requests)) == (0, 1), blocked
        assert _MESSAGE in blocked
    for outcome in ("allowed", "blocked"):  # counted when an exchange has ended, which its client does not see
        assert guard.metric("extproc_exchanges_total", profile="default", dialect=dialect, outcome=outcome) == 1


async def test_a_prefix_is_not_sent_to_the_provider(tmp_path: Path) -> None:
    provider = "Several behind one Envoy"
    async with _running(provider, tmp_path) as (_, upstream, _, address):
        await shell(tmp_path, _commands(provider)[1].replace("127.0.0.1:10000", address))
        assert [request.path for request in upstream.requests] == ["/v1/messages"]
