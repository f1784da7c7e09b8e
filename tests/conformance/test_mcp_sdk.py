"""The MCP SDK on both sides of Envoy and the sidecar: a client, and a small server over streamable HTTP.

Each test runs with the protocol's handshake (`legacy`), and with its newest version, which needs none (`auto`). It runs
with a server that answers with event streams, and with one that answers with JSON.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import pytest_asyncio
import uvicorn
from mcp import Client, MCPError
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.transport_security import TransportSecuritySettings
from mcp_types import ElicitRequestParams, ElicitResult
from pydantic import BaseModel

from tests.conformance.harness import MESSAGE, blocks_answers, blocks_requests, is_down
from tests.envoy.case import blocks, redacts
from tests.fakes.envoy import needs_envoy
from tests.fakes.rig import Rig, cluster_of, rig

pytestmark = [*needs_envoy, pytest.mark.asyncio(loop_scope="module")]


class Weather(BaseModel):
    """The structured content of a result, which the SDK repeats as a text."""

    id: str
    city: str


class Wish(BaseModel):
    """What the server asks the user."""

    city: str


def _server(called: list[str]) -> MCPServer[Any]:
    server: MCPServer[Any] = MCPServer("demo", instructions="Ask for the weather.")

    @server.tool()
    async def weather(city: str, ctx: Context[Any, Any]) -> Weather:
        """Tells the weather of a city."""
        called.append(city)
        await ctx.report_progress(0.5, 1.0, f"Looking at {city}")
        return Weather(id=city, city=f"It rains in {city}.")

    @server.tool()
    async def ask(ctx: Context[Any, Any]) -> str:
        """Asks the user for a city."""
        answer = await ctx.elicit("Which city do you like?", Wish)
        called.append(answer.data.city if answer.action == "accept" else answer.action)
        return f"You like {called[-1]}."

    @server.prompt()
    def packing(city: str) -> str:
        """Asks what to pack."""
        return f"What do I pack for {city}?"

    @server.resource("note://diary", mime_type="text/plain")
    def diary() -> str:
        """A diary."""
        return "Oslo was wet."

    return server


@dataclass
class Chain:
    """A chain whose upstreams are servers of the SDK. `called` is what their tools got."""

    rig: Rig
    urls: dict[bool, str]
    """The servers' own addresses: of the one that answers with JSON, and of the one that streams"""
    called: list[str] = field(default_factory=list)


@asynccontextmanager
async def _served(called: list[str], *, json_response: bool) -> AsyncIterator[int]:
    app = _server(called).streamable_http_app(
        streamable_http_path="/json" if json_response else "/mcp",
        json_response=json_response,
        transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),
    )
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="on", ws="none"))
    listening = socket.create_server(("127.0.0.1", 0))  # connections wait in it until the server has started
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(server.serve([listening]))
        try:
            yield listening.getsockname()[1]
        finally:
            server.should_exit = True


def _to(tree: Any, port: int, json_port: int) -> None:
    """Point Envoy to the servers: paths that begin with /json to the one that answers with JSON."""
    clusters = tree["static_resources"]["clusters"]
    first = cluster_of(tree)
    second = {**first, "name": "json", "load_assignment": _endpoint("json", json_port)}
    first["load_assignment"] = _endpoint(first["name"], port)
    clusters.append(second)
    (listener,) = tree["static_resources"]["listeners"]
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    routes = manager["route_config"]["virtual_hosts"][0]["routes"]
    routes.insert(0, {"match": {"prefix": "/json"}, "route": {"cluster": "json", "timeout": "0s"}})


def _endpoint(name: str, port: int) -> Any:
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    return {"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}]}


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def running() -> AsyncIterator[Chain]:
    """Yield a chain whose breaker never opens: tests fail on purpose, one after the other."""
    called: list[str] = []
    async with AsyncExitStack() as stack:
        port = await stack.enter_async_context(_served(called, json_response=False))
        json_port = await stack.enter_async_context(_served(called, json_response=True))
        chain = await stack.enter_async_context(
            rig(
                edit=lambda tree: _to(tree, port, json_port),
                aim={"api": "firewall", "breaker": {"failures": 10_000}},
                profiles={"default": {"paths": {"/mcp": "mcp"}}},  # /json is recognised by its messages
            )
        )
        urls = {False: f"http://127.0.0.1:{port}/mcp", True: f"http://127.0.0.1:{json_port}/json"}
        yield Chain(chain, urls, called)


@pytest.fixture
def chain(running: Chain) -> Chain:
    """Return the chain as if it were new."""
    running.rig.reset()
    running.called.clear()
    return running


@pytest.fixture(params=["legacy", "auto"])
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=[False, True], ids=["stream", "json"])
def is_json(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def guarded(chain: Chain, mode: str, *, is_json: bool, **more: Any) -> Client:
    """Return a client that goes through Envoy and the sidecar. Enter it in the test: its tasks belong to it."""
    return Client(chain.rig.envoy.url + ("/json" if is_json else "/mcp"), mode=mode, **more)


Steps = list[tuple[float, float | None, str | None]]


def _into(steps: Steps) -> Any:
    """Return a callback that notes the progress."""

    async def note(progress: float, total: float | None, message: str | None) -> None:
        steps.append((progress, total, message))

    return note


async def _talk(client: Client) -> list[Any]:
    """List what there is, call a tool, get a prompt, read a resource."""
    progress: Steps = []

    async with client:
        listed = [await client.list_tools(), await client.list_prompts(), await client.list_resources()]
        called = await client.call_tool("weather", {"city": "Oslo"}, progress_callback=_into(progress))
        prompt = await client.get_prompt("packing", {"city": "Oslo"})
        read = await client.read_resource("note://diary")
    return [*listed, called, prompt, read, progress]


async def test_objects_are_the_same(chain: Chain, mode: str, is_json: bool) -> None:
    through = await _talk(guarded(chain, mode, is_json=is_json))
    sessions, asked = list(chain.rig.aim.sessions), chain.rig.aim.asked("pre_call")
    assert through == await _talk(Client(chain.urls[is_json], mode=mode))
    *_, called, prompt, read, progress = through
    assert called.structured_content == {"id": "Oslo", "city": "It rains in Oslo."}
    assert prompt.messages[0].content.text == "What do I pack for Oslo?"
    assert read.contents[0].text == "Oslo was wet."
    assert progress == ([] if is_json else [(0.5, 1.0, "Looking at Oslo")])
    assert len(asked) == 2  # of the call and of the prompt: no other request has a text
    assert bool(sessions) is not is_json  # one for each event stream with text


async def test_a_blocked_call(chain: Chain, mode: str, is_json: bool) -> None:
    blocks_requests(chain.rig)
    async with guarded(chain, mode, is_json=is_json) as client:
        with pytest.raises(MCPError) as caught:
            await client.call_tool("weather", {"city": "my secret"})
        assert (caught.value.code, caught.value.message) == (-32001, MESSAGE)
        result = await client.call_tool("weather", {"city": "Oslo"})  # the session goes on
    assert result.structured_content is not None
    assert chain.called == ["Oslo"]


async def test_a_blocked_result(chain: Chain, mode: str, is_json: bool) -> None:
    blocks_answers(chain.rig)
    progress: Steps = []

    async with guarded(chain, mode, is_json=is_json) as client:
        with pytest.raises(MCPError) as caught:
            await client.call_tool("weather", {"city": "Oslo"}, progress_callback=_into(progress))
    assert caught.value.message == MESSAGE
    assert chain.called == ["Oslo"]
    assert progress == ([] if is_json else [(0.5, 1.0, "Looking at Oslo")])  # which came before the block


async def test_redactions(chain: Chain, mode: str, is_json: bool) -> None:
    redacts("Oslo", "[CITY_1]")(chain.rig.aim)
    async with guarded(chain, mode, is_json=is_json) as client:
        result = await client.call_tool("weather", {"city": "Oslo"})
        read = await client.read_resource("note://diary")
    assert chain.called == ["[CITY_1]"]
    assert result.structured_content == {"id": "[CITY_1]", "city": "It rains in [CITY_1]."}
    assert read.contents[0].text == "[CITY_1] was wet."  # type: ignore[union-attr]


async def test_a_redacted_result(chain: Chain, mode: str, is_json: bool) -> None:
    redacts("rains", "[SKY]")(chain.rig.aim)
    async with guarded(chain, mode, is_json=is_json) as client:
        result = await client.call_tool("weather", {"city": "Oslo"})
    assert result.structured_content == {"id": "Oslo", "city": "It [SKY] in Oslo."}
    assert "[SKY]" in result.content[0].text  # type: ignore[union-attr]
    assert "rains" not in str(result)


async def test_aim_down(chain: Chain, mode: str, is_json: bool) -> None:
    async with guarded(chain, mode, is_json=is_json) as client:
        is_down(chain.rig)
        with pytest.raises(MCPError) as caught:
            await client.call_tool("weather", {"city": "Oslo"})
    assert caught.value.message == "The AI security service is unavailable."
    assert chain.called == []


async def test_answer_of_the_user_is_redacted(chain: Chain) -> None:
    redacts("Oslo", "[CITY_1]")(chain.rig.aim)
    seen: list[str] = []

    async def answer(_: Any, params: ElicitRequestParams) -> ElicitResult:
        seen.append(params.message)
        return ElicitResult(action="accept", content={"city": "Oslo"})

    async with guarded(chain, "legacy", is_json=False, elicitation_callback=answer) as client:
        result = await client.call_tool("ask")
    assert seen == ["Which city do you like?"]
    assert chain.called == ["[CITY_1]"]
    assert result.content[0].text == "You like [CITY_1]."  # type: ignore[union-attr]


async def test_question_to_the_user_is_blocked(chain: Chain) -> None:
    blocks("Which city", MESSAGE)(chain.rig.aim)

    async def answer(_: Any, params: ElicitRequestParams) -> ElicitResult:
        raise AssertionError("the user was asked")

    async with guarded(chain, "legacy", is_json=False, elicitation_callback=answer) as client:
        with pytest.raises(MCPError) as caught:
            await client.call_tool("ask")
    assert caught.value.message == MESSAGE
