"""Reads the settings from a YAML file and the environment, which overrides it. All problems are reported at once."""

from __future__ import annotations

import os
import re
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_settings import SettingsError as UnreadableVariable

from extproc.config.serving_check import problems_when_serving
from extproc.config.settings import Settings
from extproc.core.errors import SettingsError

_AIM_ENVIRONMENT = {
    "AIM_API_KEY": "api_key",
    "AIM_API_KEY_FILE": "api_key_file",
    "AIM_API_BASE": "base_url",
    "AIM_API": "api",
}


class _StrictLoader(yaml.SafeLoader):
    """YAML in which a repeated key is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable):
                if key in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key!r} is repeated", key_node.start_mark
                    )
                seen.add(key)
        return super().construct_mapping(node, deep)


def _read_file(path: Path) -> dict[str, Any]:
    try:
        data = yaml.load(path.read_bytes(), _StrictLoader)  # noqa: S506 - a SafeLoader
    except (OSError, ValueError) as error:
        raise SettingsError([f"config: cannot read {path}: {getattr(error, 'strerror', None) or error}"]) from error
    except RecursionError as error:
        raise SettingsError([f"config: {path} is nested too deeply"]) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark is not None else ""
        what = getattr(error, "problem", None) or "not YAML"
        raise SettingsError([f"config: {path}{where}: {what}"]) from error
    if data is None:
        return {}
    if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
        raise SettingsError([f"config: {path} must hold a mapping of settings"])
    return data


_SERVICE_LINK = re.compile(r"EXTPROC(_[A-Z0-9_]+)?_(SERVICE_(HOST|PORT)|PORT)(_[A-Z0-9_]+)?")
"""Variables that Kubernetes sets in a pod for a Service whose name begins with `extproc`."""


def _unknown_variables() -> list[str]:
    """Return a problem for each environment variable that looks like a setting but is not one."""
    known = {"CONFIG", *(name.upper() for name in Settings.model_fields)}
    return [
        f"environment: {name} is not a setting"
        for name in sorted(os.environ)
        if name.startswith("EXTPROC_")
        and name.removeprefix("EXTPROC_").split("__")[0].upper() not in known
        and not _SERVICE_LINK.fullmatch(name)
    ]


def config_path(config: Path | None) -> Path | None:
    """Return the settings file: `config`, else the value of EXTPROC_CONFIG, else None."""
    if config is None and os.environ.get("EXTPROC_CONFIG"):
        return Path(os.environ["EXTPROC_CONFIG"])
    return config


def load(config: Path | None = None, *, serving: bool = False) -> Settings:
    """Return the settings from `config` (else the file that EXTPROC_CONFIG names) and the environment.

    With `serving`, keys and files are checked too. Raises SettingsError with every problem, one line each, which begins
    with the name of the setting. No line contains the value of a secret.
    """
    unknown = _unknown_variables()
    path = config_path(config)
    if path is not None and not path.name:
        raise SettingsError(["config: must name a file"])
    data = _read_file(path) if path is not None else {}
    from_environment = {field: os.environ[name] for name, field in _AIM_ENVIRONMENT.items() if os.environ.get(name)}
    if from_environment and isinstance(data.get("aim"), Mapping | None):
        aim = dict(data.get("aim") or {})
        if from_environment.keys() & {"api_key", "api_key_file"}:
            # The environment overrides the file, so its key file must override a key in the settings file.
            aim.pop("api_key", None)
            aim.pop("api_key_file", None)
        data["aim"] = aim | from_environment
    try:
        settings = Settings(**data)
    except ValidationError as error:
        raise SettingsError([*unknown, *map(_describe, error.errors(include_input=False))]) from error
    except UnreadableVariable as error:
        named = re.search(r'field "(\w+)"', str(error))
        field = named[1] if named else "environment"
        raise SettingsError([f"{field}: EXTPROC_{field.upper()}... is not valid JSON"]) from error
    problems = [*unknown, *(problems_when_serving(settings) if serving else ())]
    if problems:
        raise SettingsError(problems)
    return settings


def _describe(problem: Any) -> str:
    where = _where([str(step) for step in problem["loc"] if step != "[key]"])
    if problem["type"] == "extra_forbidden":
        return f"{where}: unknown setting"
    return f"{where}: {problem['msg'].removeprefix('Value error, ')}"


def _where(steps: list[str]) -> str:
    """Return the name of a setting, on one line, and for an entry of `paths` or `models` its key."""
    entry = ""
    if len(steps) > len(("profiles", "NAME", "paths")) and steps[0] == "profiles" and steps[2] in ("paths", "models"):
        steps, entry = steps[:3], f": {steps[3]!r}"
    name = ".".join(steps) or "settings"
    return "".join(character if character.isprintable() else " " for character in name) + entry
