"""Reads the settings from a YAML file and the environment, which overrides it. All problems are reported at once."""

from __future__ import annotations

import os
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from extproc.config.environment import read_environment
from extproc.config.layers import ORDERED, layered
from extproc.config.serving_check import problems_of_files, problems_when_serving
from extproc.config.settings import Settings
from extproc.core.errors import SettingsError


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
    if not path.name:
        raise SettingsError(["config: must name a file"])
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


def config_path(config: Path | None) -> Path | None:
    """Return the settings file: `config`, else the value of EXTPROC_CONFIG, else None."""
    if config is None and os.environ.get("EXTPROC_CONFIG"):
        return Path(os.environ["EXTPROC_CONFIG"])
    return config


def load(config: Path | None = None, *, serving: bool = False, before: Settings | None = None) -> Settings:
    """Return the settings from `config` (else the file that EXTPROC_CONFIG names) and the environment.

    With `serving`, keys and files are checked too. With `before`, the settings in force, an empty file is refused if it
    would change them, because somebody is about to write it. Raises SettingsError with every problem, one line each,
    which begins with the name of the setting. No line contains the value of a secret.
    """
    environment = read_environment()
    path = config_path(config)
    try:
        from_file = {} if path is None else _read_file(path)
        data = layered(environment.data, from_file)
    except SettingsError as error:
        raise SettingsError([*environment.problems, *error.problems]) from error
    problems = list(environment.problems)
    settings = None
    try:
        settings = Settings.model_validate(data)
    except ValidationError as error:
        problems += map(_describe, error.errors(include_input=False))
    if before is not None and path is not None and not from_file and settings != before:
        problems = [f"config: {path} is empty", *problems]
    if serving:
        # What cannot be read may hold a key.
        needs_key = environment.unreadable.keys().isdisjoint(("aim", "profiles"))
        if settings is None:
            problems += problems_of_files(data, needs_key=needs_key)
        else:
            problems += problems_when_serving(settings, needs_key=needs_key)
    if settings is None or problems:
        raise SettingsError(problems)
    return settings


def _describe(problem: Any) -> str:
    where = _where([str(step) for step in problem["loc"] if step != "[key]"])
    what = problem["msg"].removeprefix("Value error, ")
    line = f"{where}: {'unknown setting' if problem['type'] == 'extra_forbidden' else what}"
    return "".join(character if character.isprintable() else " " for character in line)


def _where(steps: list[str]) -> str:
    """Return the name of a setting, and for an entry of `paths` or `models` its key."""
    match steps:
        case ["profiles", profile, name, key, *_] if name in ORDERED:
            return f"profiles.{profile}.{name}: {key!r}"
    return ".".join(steps) or "settings"
