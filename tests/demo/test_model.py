"""The demo model: its answers, whole and streamed, and that it stops when its client goes away."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from extproc.config.address import Address
from extproc.demo.model import Generation, _listener, answer_to, listening

PATH = "/v1/chat/completions"
LONG = "What is the team working on?"


class Model:
    def __init__(self, http: httpx.AsyncClient, generations: list[Generation]) -> None:
        self.http = http
        self.generations = generations

    async def post(self, prompt: Any, **more: Any) -> httpx.Response:
        return await self.http.post(PATH, json=request(prompt, **more))

    async def ended(self) -> Generation:
        (generation,) = self.generations
        async with asyncio.timeout(10):
            await generation.ended.wait()
        return generation


def request(prompt: Any, **more: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": prompt}], **more}


@asynccontextmanager
async def running(address: Address) -> AsyncIterator[Model]:
    generations: list[Generation] = []
    async with listening(address, generations.append) as port:
        base = f"http://{Address(host=address.host, port=port)}"
        async with httpx.AsyncClient(base_url=base, trust_env=False, timeout=10) as http:
            yield Model(http, generations)


@pytest.fixture
async def model() -> AsyncIterator[Model]:
    async with running(Address(host="127.0.0.1")) as running_model:
        yield running_model


def data_of(response: httpx.Response) -> list[str]:
    return [line.removeprefix("data: ") for line in response.text.splitlines() if line]


async def test_health(model: Model) -> None:
    assert (await model.http.get("/healthz")).json() == {"status": "ok"}


async def test_a_whole_answer(model: Model) -> None:
    response = await model.post("What is the capital of France?")
    body = response.json()
    assert response.status_code == 200
    assert (body["object"], body["model"]) == ("chat.completion", "m")
    (choice,) = body["choices"]
    assert choice["message"] == {"role": "assistant", "content": "The capital of France is Paris."}
    assert choice["finish_reason"] == "stop"
    assert (await model.ended()).is_complete


async def test_a_streamed_answer(model: Model) -> None:
    response = await model.post("How do I reach Jane?", stream=True)
    assert response.headers["content-type"].startswith("text/event-stream")
    *events, done = data_of(response)
    assert done == "[DONE]"
    chunks = [json.loads(event) for event in events]
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk["id"] for chunk in chunks}) == 1
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert deltas[0] == {"role": "assistant", "content": ""}
    assert deltas[-1] == {}
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None] * (len(chunks) - 1) + ["stop"]
    generation = await model.ended()
    assert [delta["content"] for delta in deltas[1:-1]] == generation.chunks == list(generation.planned)
    assert generation.is_complete


async def test_it_stops_generating_when_the_client_goes_away(model: Model) -> None:
    async with model.http.stream("POST", PATH, json=request(LONG, stream=True)) as response:
        async for line in response.aiter_lines():
            if "fixed" in line:
                break
    generation = await model.ended()
    assert not generation.is_complete
    assert "fixed " in generation.chunks


async def test_it_answers_others_after_a_client_went_away(model: Model) -> None:
    async with model.http.stream("POST", PATH, json=request(LONG, stream=True)) as response:
        await response.aiter_lines().__anext__()
    assert (await model.post("Hi")).json()["choices"][0]["message"]["content"] == "You said: Hi"


async def test_unknown_prompts_come_back(model: Model) -> None:
    assert answer_to("Hello  there\nyou") == ("You ", "said: ", "Hello  ", "there\n", "you")
    parts = [
        {"type": "text", "text": "Hello "},
        {"type": "image_url", "image_url": {}},
        {"type": "text", "text": "you"},
    ]
    response = await model.post(parts)
    assert response.json()["choices"][0]["message"]["content"] == "You said: Hello you"
    assert model.generations[0].prompt == "Hello you"


async def test_the_last_user_message_counts(model: Model) -> None:
    messages = [
        {"role": "user", "content": LONG},
        {"role": "assistant", "content": "..."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": None},
    ]
    response = await model.http.post(PATH, json={"messages": messages})
    assert response.json()["choices"][0]["message"]["content"] == "You said: Hi"
    assert model.generations[0].messages == messages


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"1",
        b"{}",
        b'{"messages": 1}',
        b'{"messages": ["x"]}',
        b'{"messages": [{"role":"user","content":[1]}]}',
    ],
)
async def test_anything_else_is_refused(model: Model, body: bytes) -> None:
    response = await model.http.post(PATH, content=body)
    assert response.status_code == 400
    assert response.json()["error"]["type"] == "invalid_request_error"
    assert model.generations == []


def test_a_kept_connection_is_answered_without_delay() -> None:
    # Without TCP_NODELAY each answer but the first takes the 40 ms of a delayed acknowledgement.
    with (
        _listener(Address(host="127.0.0.1")) as listener,
        socket.create_connection(listener.getsockname()),
        listener.accept()[0] as connection,
    ):
        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_ipv6() -> None:
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    try:
        async with running(Address(host="::1")) as model:
            assert (await model.post("Hi")).status_code == 200
    except OSError:
        pytest.skip("no IPv6 here")


# As docker-compose.yml runs it


def command(listen: str) -> list[str]:
    return [sys.executable, "-m", "extproc.demo.model", "--listen", listen]


def test_run_alone_it_logs_no_text_and_ends_at_a_signal() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    process = subprocess.Popen(command(f"127.0.0.1:{port}"), stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        assert process.stderr.readline() == f"the demo model listens on 127.0.0.1:{port}\n"
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=10) as http:
            assert http.post(PATH, json=request("secret")).status_code == 200
            with http.stream("POST", PATH, json=request(LONG, stream=True)) as response:
                next(response.iter_lines())
            assert process.stderr.readline() == "answered: 3 chunks\n"
            assert process.stderr.readline().startswith("the client disconnected: stopped after ")
        os.kill(process.pid, signal.SIGTERM)
        _, rest = process.communicate(timeout=20)
        assert rest == ""
    finally:
        process.kill()
        process.communicate()


def test_a_port_that_is_taken_is_said_in_words() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        done = subprocess.run(command(listen), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(f"listen: cannot listen on {listen}: Address already in use")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("listen", ["nonsense", "unix:/run/model.sock"])
def test_an_address_that_is_none_is_said_in_words(listen: str) -> None:
    done = subprocess.run(command(listen), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(f"listen: cannot listen on {listen}: ")
    assert "Traceback" not in done.stderr
