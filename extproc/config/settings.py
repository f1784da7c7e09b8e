"""All settings, as models with bounds for every number.

Only `extproc.config.load` creates them. Models are frozen: an exchange keeps the settings that it began with.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError
from pydantic_settings import NoDecode

from extproc.config.address import Address
from extproc.config.aim import Aim
from extproc.config.model import Bytes, Model
from extproc.config.profile import DEFAULT_PROFILE, Profile
from extproc.core import policy as core


def _parse_address(value: Any) -> Any:
    return Address.parse(value) if isinstance(value, str) else value


def _parse_optional_address(value: Any) -> Any:
    return None if value in ("", None) else _parse_address(value)


def _built_engine(value: Any) -> Any:
    if value != "grpcio":
        raise ValueError("must be grpcio, the only engine that is built; nghttp2 is not")
    return value


class Tls(Model):
    """TLS of the ext_proc listener."""

    cert_file: Path | None = None
    """PEM; with a certificate the listener speaks TLS only"""
    key_file: Path | None = None
    """PEM; the private key of the certificate"""
    client_ca_file: Path | None = None
    """PEM; clients must show a certificate of this CA (mTLS); all three files are re-read when they change"""

    @model_validator(mode="after")
    def _complete(self) -> Tls:
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file and key_file belong together")
        if self.client_ca_file is not None and self.cert_file is None:
            raise ValueError("client_ca_file needs cert_file and key_file")
        return self


class Limits(Model):
    """The limits that bound memory. Sizes are in bytes."""

    request_bytes: Bytes = 20_971_520
    """the body of a request, both as received and decompressed"""
    response_bytes: Bytes = 20_971_520
    """a JSON answer, which is held whole"""
    headers: Annotated[int, Field(ge=16, le=100_000)] = 256
    """header fields of an inspected request or of its response"""
    values: Annotated[int, Field(ge=1000, le=100_000_000)] = 500_000
    """strings, keys, lists and objects of one JSON text, all together; a number counts one eighth"""
    event_bytes: Bytes = 16_777_216
    """one server-sent event (SSE) or JSON line; an incomplete one counts only against this limit"""
    held_bytes: Bytes = 4_194_304
    """unverified events of one event stream; beyond it reading pauses"""
    total_held_bytes: Annotated[int, Field(ge=1024, le=2**40)] = 536_870_912
    """all that is held for exchanges; beyond it new exchanges and bodies get 503, and the fullest event streams fail"""
    streams: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000
    """concurrent exchanges; beyond it new ones get 503"""
    sessions: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000
    """concurrent sessions with Aim; beyond it an event stream fails with the reason held_bytes"""
    inflate_ratio: Annotated[int, Field(ge=2, le=100_000)] = 100
    """how many times larger than its compressed size a decompressed body of more than 64 KiB may be"""


class Audit(Model):
    """The audit log: where and how it is written, and how it identifies callers."""

    file: str = ""
    """a path, or - for stdout; "" switches it off"""
    format: Literal["plain", "ecs", "ocsf"] = "plain"
    """plain, ecs (Elastic Common Schema) or ocsf (Open Cybersecurity Schema Framework)"""
    identity: Literal["hashed", "plain", "none"] = "hashed"
    """how user_email, key_alias and session_id are written: hashed, plain or none"""
    key_file: Path | None = None
    """the key for the hashes; default: the profile's API key"""

    @property
    def is_stdout(self) -> bool:
        """Return whether lines go to standard output."""
        return self.file in ("-", "stdout")

    def problem(self) -> str | None:
        """Return why lines cannot be written; None if they can."""
        if not self.file or self.is_stdout:
            return None
        file = Path(self.file)
        try:
            if file.is_dir():
                return f"{file} is a folder"
            is_writable = os.access(file if file.exists() else file.parent, os.W_OK)
        except (OSError, ValueError):  # such as a folder that must not be searched
            is_writable = False
        return None if is_writable else f"cannot write {file}"


class Readiness(Model):
    """What a process needs to be ready, in addition to its own listener."""

    aim: bool = False
    """true: the process is ready only while Aim's address answers"""


def _profile_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", name):
        raise ValueError("a profile name has 1 to 64 letters, digits, dots, dashes or underscores")
    return name


def _with_default(value: Any, validated: ValidatorFunctionWrapHandler) -> dict[str, Profile]:
    """Return the profiles with `default`. The profiles that `models` names are checked even if others are wrong."""
    problems: list[InitErrorDetails] = []
    profiles: dict[str, Profile] = {}
    try:
        profiles = {DEFAULT_PROFILE: Profile(), **validated(value)}
    except ValidationError as error:
        problems += [_problem(each["loc"], each["msg"], each["type"]) for each in error.errors()]
    given: Mapping[Any, Any] = profiles or ({DEFAULT_PROFILE: {}, **value} if isinstance(value, Mapping) else {})
    for name, profile in given.items():
        models = profile.get("models") if isinstance(profile, Mapping) else getattr(profile, "models", None)
        if not isinstance(models, Mapping):
            continue
        unknown = sorted({each for each in models.values() if isinstance(each, str)} - given.keys())
        if unknown:
            known = ", ".join(map(str, given))
            problems.append(_problem((name, "models"), f"unknown profile {', '.join(unknown)}; known: {known}"))
    if problems:
        raise ValidationError.from_exception_data("profiles", problems, hide_input=True)
    return profiles


def _problem(where: tuple[int | str, ...], message: str, kind: str = "value_error") -> InitErrorDetails:
    return InitErrorDetails(type=PydanticCustomError(kind, "{message}", {"message": message}), loc=where, input=None)


class Settings(Model):
    """All settings; docs/settings.md lists them."""

    listen: Annotated[Address, NoDecode, BeforeValidator(_parse_address)] = Address(host="127.0.0.1", port=50051)
    """or unix:/run/extproc/extproc.sock; [host]:port for IPv6"""
    admin: Annotated[Address | None, NoDecode, BeforeValidator(_parse_optional_address)] = Address(
        host="127.0.0.1", port=9902
    )
    """`""` switches it off"""
    admin_hosts: tuple[str, ...] = ()
    """more Host names for which the admin port serves the page and the metrics; see operations.md"""
    workers: Annotated[int, Field(ge=1, le=256)] = 1
    """processes; worker i listens on port+i (or <socket>-i); all share one admin port"""
    drain_seconds: Annotated[float, Field(ge=0, le=3600)] = 30
    """how long live exchanges may continue after SIGTERM"""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """debug, info, warning, error"""
    assume_full_duplex: bool = False
    """true: if the data plane does not send its body modes (protocol_config), assume full duplex on both legs"""
    engine: Annotated[Literal["grpcio"], BeforeValidator(_built_engine)] = "grpcio"
    """the gRPC server; grpcio is the only one"""
    tls: Tls = Tls()
    """TLS of the ext_proc listener"""
    aim: Aim = Aim()
    """how to reach Aim"""
    limits: Limits = Limits()
    """sizes are in bytes"""
    readiness: Readiness = Readiness()
    """what a process needs to be ready, in addition to its own listener"""
    audit: Audit = Audit()
    """one JSON line for each verdict and each exchange, without content"""
    profiles: Annotated[dict[Annotated[str, AfterValidator(_profile_name)], Profile], WrapValidator(_with_default)] = (
        Field(default_factory=lambda: {DEFAULT_PROFILE: Profile()})
    )
    """policies by name; `default` always exists"""

    @cached_property
    def policies(self) -> Mapping[str, core.Policy]:
        """The profiles, by name, as the core needs them."""
        aim = self.aim
        times = {"timeout_seconds": aim.timeout_seconds, "verdict_timeout_seconds": aim.verdict_timeout_seconds}
        plain = {name: profile.policy(name, **times) for name, profile in self.profiles.items()}
        return {
            name: dataclasses.replace(plain[name], models={glob: plain[to] for glob, to in profile.models.items()})
            for name, profile in self.profiles.items()
        }

    @cached_property
    def exchange_limits(self) -> core.Limits:
        """The limits of one exchange, as the core needs them."""
        return core.Limits(**{each.name: getattr(self.limits, each.name) for each in dataclasses.fields(core.Limits)})
