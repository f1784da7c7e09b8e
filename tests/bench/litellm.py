"""LiteLLM's proxy with its Aim guardrail, for input and output: what a user would run who has no mesh.

`make bench-peers` installs it into an environment of its own. Like the sidecar it has its defaults: one worker, its own
log. It has no database, the key that it does not start without, and fetches nothing from the network.
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
    # Each of these lists is fetched at start otherwise.
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_LOCAL_BLOG_POSTS": "True",
    "LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS": "True",
    "LITELLM_LOCAL_POLICY_TEMPLATES": "True",
    "LITELLM_LOCAL_AUTOROUTER_PRESETS": "True",
}


def is_installed() -> bool:
    """Return whether there is one to measure."""
    return (ENVIRONMENT / ".installed").exists()


def version() -> str:
    """Return the version that is installed, "" where none is."""
    paths = [str(path) for path in ENVIRONMENT.glob("lib/python*/site-packages")]
    return next((each.version for each in distributions(name="litellm", path=paths)), "")


def command(folder: Path, port: int, aim: int, model: int) -> list[str]:
    """Return what runs it on `port`, its configuration written into `folder`; Aim and model are ports too."""
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
