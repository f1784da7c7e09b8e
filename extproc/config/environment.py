"""Reads the settings in environment variables."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict

from extproc.config.settings import Settings

_PREFIX = "EXTPROC_"
_BETWEEN = "__"

_AIM = {
    "AIM_API_KEY": "api_key",
    "AIM_API_KEY_FILE": "api_key_file",
    "AIM_API_BASE": "base_url",
    "AIM_API": "api",
}

_SERVICE_LINK = re.compile(r"EXTPROC(_[A-Z0-9_]+)?_(SERVICE_(HOST|PORT)|PORT)(_[A-Z0-9_]+)?")
"""Variables that Kubernetes sets in a pod for a Service whose name begins with `extproc`."""

_UNREADABLE = object()
"""Stands for the value of a variable that should be JSON but is not."""


@dataclass(frozen=True, slots=True)
class Environment:
    """The settings in the environment."""

    data: dict[str, Any]
    """values by name, nested as in the settings file"""
    unreadable: dict[str, str]
    """variables that are not JSON, although their settings need it, by the names of these settings"""
    unknown: tuple[str, ...]
    """variables that look like settings but are none"""

    @property
    def problems(self) -> list[str]:
        """One line for each problem. No line has the value of a variable."""
        return [
            *(f"environment: {name} is not a setting" for name in self.unknown),
            *(f"{setting}: {name} is not valid JSON" for setting, name in self.unreadable.items()),
        ]


class _Variables(Settings, BaseSettings):
    """The settings, with the names of their variables."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, env_nested_delimiter=_BETWEEN)


class _Source(EnvSettingsSource):
    """Reads all variables, including those behind one that cannot be read."""

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        try:
            return super().decode_complex_value(field_name, field, value)
        except (ValueError, RecursionError):
            return _UNREADABLE


def read_environment() -> Environment:
    """Return the settings in the environment. An `EXTPROC_AIM__...` goes before an `AIM_...` for the same setting."""
    data = _Source(_Variables)()
    names = {name.upper(): name for name in os.environ}
    paths = list(_without_unreadable(data, ()))
    variables = [(_PREFIX + _BETWEEN.join(path)).upper() for path in paths]
    unreadable = {
        ".".join(path): names.get(variable, variable) for path, variable in zip(paths, variables, strict=True)
    }
    aim = {field: os.environ[name] for name, field in _AIM.items() if os.environ.get(name)}
    if aim and isinstance(data.get("aim", {}), dict):
        data["aim"] = aim | data.get("aim", {})
    return Environment(data, unreadable, tuple(_unknown()))


def _without_unreadable(data: dict[str, Any], parents: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Remove what cannot be read from `data`; yield where it was."""
    for name, value in [*data.items()]:
        if value is _UNREADABLE:
            del data[name]
            yield (*parents, name)
        elif isinstance(value, dict):
            yield from _without_unreadable(value, (*parents, name))


def _unknown() -> Iterator[str]:
    known = {"CONFIG", *(name.upper() for name in Settings.model_fields)}
    for name in sorted(os.environ):
        if (
            name.startswith(_PREFIX)
            and name.removeprefix(_PREFIX).split(_BETWEEN)[0].upper() not in known
            and not _SERVICE_LINK.fullmatch(name)
        ):
            yield name
