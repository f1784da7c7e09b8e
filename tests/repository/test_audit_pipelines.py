"""The example pipelines of the audit log: they parse, and read the file and the fields that the sidecar writes.

Vector and Fluent Bit themselves are not at hand here; each file says how to check it with them.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from extproc.config.settings import Settings
from extproc.telemetry.audit_ecs import as_ecs

FOLDER = Path(__file__).parents[2] / "deploy" / "audit"
LINE = as_ecs({"type": "settings", "profile": "default", "enforce": False}, datetime.now(UTC), is_hashed=True)


def load(name: str) -> tuple[dict[str, Any], str]:
    """Return a file, and the audit file of the sidecar's settings in its comment."""
    text = (FOLDER / name).read_text()
    (settings,) = (line.partition("settings: ")[2] for line in text.splitlines() if line.startswith("# The sidecar's"))
    audit = Settings.model_validate({"aim": {"api_key": "k"}, **yaml.safe_load(settings)}).audit
    assert audit.format == "ecs"
    return yaml.safe_load(text), audit.file


def test_vector_passes_each_step_on_to_the_next() -> None:
    config, file = load("vector.yaml")
    (name, source), *_ = config["sources"].items()
    assert source["include"] == [file]
    (transformed, transform), *_ = config["transforms"].items()
    assert transform["inputs"] == [name]
    assert transform["source"].strip() == ". = parse_json!(.message)"
    (sink,) = config["sinks"].values()
    assert sink["inputs"] == [transformed]
    assert sink["data_stream"]["dataset"] == LINE["event"]["dataset"]
    group, key = sink["id_key"].split(".")
    assert LINE[group][key]


def test_fluent_bit_sends_what_it_reads() -> None:
    config, file = load("fluent-bit.yaml")
    (source,) = config["pipeline"]["inputs"]
    (parser,) = config["parsers"]
    (output,) = config["pipeline"]["outputs"]
    assert (source["path"], source["parser"], output["match"]) == (file, parser["name"], source["tag"])
    assert LINE["event"]["dataset"] in output["index"]
    # %L, the fraction of a second, is Fluent Bit's own.
    time = LINE[parser["time_key"]]
    assert datetime.strptime(time, parser["time_format"].replace("%L", "%f")).year >= 2026
