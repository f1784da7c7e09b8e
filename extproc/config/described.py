"""The settings in force in readable form, one by one, without the values of secrets."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, SecretStr

from extproc.config.address import Address
from extproc.config.profile import Profile
from extproc.config.settings import Settings
from extproc.core.errors import Reason
from extproc.core.identity import Source

_ALL_BUT_KEYS = frozenset(Reason) - {Reason.KEY_REFUSED}


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting: its name as in docs/settings.md, its value as text, and whether that is the default."""

    name: str
    value: str
    is_default: bool


def described(settings: Settings) -> tuple[Setting, ...]:
    """Return every setting. A key is shown as `set` or `not set`, and a login in a URL is masked."""
    return tuple(_walk("", settings, Settings.model_construct()))


def reasons(value: frozenset[Reason]) -> str:
    """Return the reasons for which a leg fails open, as the settings spell them."""
    if not value:
        return "false"
    return "true" if value == _ALL_BUT_KEYS else ", ".join(sorted(value))


def without_login(url: str) -> str:
    """Return `url` without the user and password before its host."""
    return re.sub(r"^([a-z][a-z0-9+.-]*://)?[^/?#]*@", r"\1***@", url, flags=re.IGNORECASE)


def _walk(prefix: str, model: BaseModel, default: BaseModel) -> Iterator[Setting]:
    for name, field in type(model).model_fields.items():
        value, usual = getattr(model, name), getattr(default, name)
        if name == "profiles":
            for profile, each in value.items():
                yield from _walk(f"profiles.{profile}.", each, Profile())
        elif isinstance(value, BaseModel) and not isinstance(value, Address):
            yield from _walk(f"{prefix}{name}.", value, usual)
        else:
            yield Setting(prefix + (field.alias or name), _written(name, value), value == usual)


def _written(name: str, value: Any) -> str:
    match value:
        case SecretStr():
            return "set" if value.get_secret_value() else "not set"
        case None | "" | () | {}:
            return "not set"
        case bool():
            return str(value).lower()
        case float():
            return f"{value:g}"
        case str() if name in ("proxy", "base_url"):
            return without_login(value)
        case Source():
            return f"{value.kind}:{value.name}"
        case frozenset() if name in ("request", "response"):
            return reasons(value)
        case frozenset():
            return ", ".join(sorted(value)) or "none"
        case tuple():
            return ", ".join(_written("", item) for item in value)
        case dict():
            return ", ".join(f"{key}: {item}" for key, item in value.items())
        case str() | int() | Path() | Address():
            return str(value)
        case _:
            # A type of setting that this module does not know could be a secret.
            return "***"
