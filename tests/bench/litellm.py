"""LiteLLM's proxy with its Aim guardrail for input and output, as a user without a mesh would run it.

`make bench-peers` installs it into an environment of its own. Like the sidecar, it runs with its defaults: one worker
and its own log. It has no database, a key (without which it does not start), and fetches nothing from the network.
"""

from __future__ import annotations

import json
from importlib.metadata import distributions
from pathlib import Path
from typing import Final

from tests.bench import load
from tests.bench.process import LOOPBACK, ROOT

ENVIRONMENT: Final = ROOT / ".venv-peers"

VARIABLES: Final = {
    "LITELLM_MASTER_KEY": load.KEY,
    # Otherwise each of these lists is fetched at the start.
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_LOCAL_BLOG_POSTS": "True",
    "LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS": "True",
    "LITELLM_LOCAL_POLICY_TEMPLATES": "True",
    "LITELLM_LOCAL_AUTOROUTER_PRESETS": "True",
}


def is_installed() -> bool:
    """Return whether LiteLLM is installed."""
    return (ENVIRONMENT / ".installed").exists()


def version() -> str:
    """Return the installed version; "" if there is none."""
    paths = [str(path) for path in ENVIRONMENT.glob("lib/python*/site-packages")]
    return next((each.version for each in distributions(name="litellm", path=paths)), "")


def command(folder: Path, port: int, aim: int, model: int) -> list[str]:
    """Write its configuration to `folder`; return the command that runs it on `port`. `aim` and `model` are ports."""
    config = {
        "model_list": [
            {
                "model_name": "bench",
                "litellm_params": {
                    "model": "openai/bench",
                    "api_base": f"http://{LOOPBACK}:{model}/v1",
                    "api_key": "none",
                },
            }
        ],
        "guardrails": [
            {
                "guardrail_name": "aim",
                "litellm_params": {
                    "guardrail": "aim",
                    "mode": ["pre_call", "post_call"],
                    "api_key": "a-key-for-the-bench",
                    "api_base": f"http://{LOOPBACK}:{aim}",
                    "default_on": True,
                },
            }
        ],
    }
    path = folder / "litellm.yaml"
    path.write_text(json.dumps(config))  # JSON is YAML
    return [
        *(str(ENVIRONMENT / "bin" / "litellm"), "--config", str(path), "--host", LOOPBACK, "--port", str(port)),
        *("--num_workers", "1", "--telemetry", "False"),
    ]
