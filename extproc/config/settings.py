"""The settings: what there is to set, every number bounded.

`extproc.config.load.load` is the only way in. Models are frozen: an exchange keeps the snapshot that it began with.
"""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args
from urllib.parse import urlsplit

import httpx
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticKnownError
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from extproc.config.address import Address
from extproc.config.keys import is_key
from extproc.core.dialects import NAMES
from extproc.core.errors import Reason
from extproc.core.identity import Source
from extproc.core.vocabulary import Hook, Leg

DEFAULT_BASE_URLS = {
    "detect": "https://api.aim.security",
    "firewall": "https://api.aim.security",
    "cato": "https://api.aisec.catonetworks.com",
}
DEFAULT_PROFILE = "default"

PROFILE_METADATA = "x-extproc-profile"
"""The gRPC initial metadata that names the profile of a stream."""

Bytes = Annotated[int, Field(ge=1024, le=2**31 - 2**22)]
"""A size in bytes; the bound leaves room under the 2 GiB that a gRPC message can have."""


def _parse_address(value: Any) -> Any:
    return Address.parse(value) if isinstance(value, str) else value


def _parse_optional_address(value: Any) -> Any:
    return None if value in ("", None) else _parse_address(value)


class _Numbers(BaseModel):
    """A model whose numbers are no booleans, which Python takes for 0 and 1."""

    @field_validator("*", mode="before")
    @classmethod
    def _no_boolean(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, bool) and info.field_name is not None:
            annotation = cls.model_fields[info.field_name].annotation
            kinds = {annotation, *get_args(annotation)}
            if bool not in kinds and kinds & {int, float}:
                raise PydanticKnownError("int_type" if int in kinds else "float_type")
        return value


class Model(_Numbers):
    """What every group of settings has in common."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Tls(Model):
    """TLS of the ext_proc listener; with `client_ca_file` a client must show a certificate (mTLS)."""

    cert_file: Path | None = None
    """PEM; with a certificate the listener speaks TLS, and plain text no more"""
    key_file: Path | None = None
    """PEM; the key of that certificate"""
    client_ca_file: Path | None = None
    """mTLS: clients need a certificate of this CA; the files are read again when they change"""

    @model_validator(mode="after")
    def _complete(self) -> Tls:
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file and key_file belong together")
        if self.client_ca_file is not None and self.cert_file is None:
            raise ValueError("client_ca_file needs cert_file and key_file")
        return self


class Breaker(Model):
    """When to stop asking an Aim that does not answer, and for how long."""

    failures: Annotated[int, Field(ge=1, le=10_000)] = 10
    """timeouts, connection errors or 5xx in a row; REST and websocket apart"""
    open_seconds: Annotated[float, Field(gt=0, le=3600)] = 5
    """then nothing is asked for so long, and one question probes"""


def _clean_key(value: SecretStr) -> SecretStr:
    key = value.get_secret_value().strip()
    if key and not is_key(key):
        raise ValueError("the key holds characters that no HTTP header can carry")
    return SecretStr(key)


def checked_url(value: str) -> str:
    """Return the http or https URL of a server, without a slash at its end; raises ValueError for anything else."""
    if not re.fullmatch(r"https?://[^\s/?#\\]+(/[^\s?#]*)?", value):
        raise ValueError("a URL starts with http:// or https:// and has no query")
    try:
        is_whole = bool(httpx.URL(value).host) and urlsplit(value).port != 0
    except (ValueError, httpx.InvalidURL):
        is_whole = False
    if not is_whole:
        raise ValueError("a URL names a host, and perhaps a port from 1 to 65535")
    return value.rstrip("/")


class Aim(Model):
    """How to reach Aim."""

    api: Literal["detect", "firewall", "cato"] = "detect"
    """detect (the /detect API), firewall (/fw/v1), cato (/fw/v1 with x-cato-* headers)"""
    base_url: str | None = None
    """default: https://api.aim.security; cato: https://api.aisec.catonetworks.com"""
    api_key: Annotated[SecretStr, AfterValidator(_clean_key)] = SecretStr("")
    """prefer AIM_API_KEY or a file; never printed"""
    api_key_file: Path | None = None
    """read again when it changes"""
    timeout_seconds: Annotated[float, Field(gt=0, le=300)] = 5
    """one analysis, retries included; also the opening of a session"""
    verdict_timeout_seconds: Annotated[float, Field(gt=0, le=3600)] = 15
    """longest silence of Aim in a session while text waits, or after our done"""
    breaker: Breaker = Breaker()
    """when to stop asking an Aim that does not answer"""
    proxy: str | None = None
    """http or https, for REST and websocket; default: HTTPS_PROXY (HTTP_PROXY for an http base_url) less NO_PROXY"""
    ca_file: Path | None = None
    """for https and wss, and for an https proxy"""
    verify: bool = True
    """likewise; false trusts any certificate"""

    @field_validator("base_url", "proxy")
    @classmethod
    def _url(cls, value: str | None) -> str | None:
        return checked_url(value) if value else None

    @field_validator("base_url")
    @classmethod
    def _no_login(cls, value: str | None) -> str | None:
        if value and urlsplit(value).username is not None:
            raise ValueError("a base URL holds no user and password")
        return value

    @property
    def base(self) -> str:
        """The base URL in force, without a trailing slash."""
        return self.base_url or DEFAULT_BASE_URLS[self.api]


class Limits(Model):
    """What bounds memory. Sizes in bytes."""

    request_bytes: Bytes = 20_971_520
    """one request's body, as it came or unpacked"""
    response_bytes: Bytes = 20_971_520
    """a JSON response held whole"""
    headers: Annotated[int, Field(ge=16, le=100_000)] = 256
    """header fields of an inspected request, or of its response"""
    event_bytes: Bytes = 1_048_576
    """one server-sent event; until it is whole it counts here alone"""
    held_bytes: Bytes = 4_194_304
    """an event stream's unverified events; beyond it reading pauses"""
    total_held_bytes: Annotated[int, Field(ge=1024, le=2**40)] = 536_870_912
    """all held, all streams; beyond it new exchanges and bodies get 503"""
    streams: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000
    """exchanges at once; beyond it new ones get 503"""
    sessions: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000
    """sessions with Aim at once; beyond it an event stream fails like one whose hold is full"""
    inflate_ratio: Annotated[int, Field(ge=2, le=100_000)] = 100
    """how much larger a compressed body may become"""


class Audit(Model):
    """Where verdicts are written down, and what is written there of who asked."""

    file: str = ""
    """a path, or - for stdout; "" writes none"""
    identity: Literal["hashed", "plain", "none"] = "hashed"
    """how user_email, key_alias and session_id are written: hashed, plain or none"""
    key_file: Path | None = None
    """the key of the hashes; default: the profile's key for Aim"""

    @property
    def is_stdout(self) -> bool:
        """Tell whether lines go to standard output."""
        return self.file in ("-", "stdout")

    def problem(self) -> str | None:
        """Return why no line could be written, if so."""
        if not self.file or self.is_stdout:
            return None
        file = Path(self.file)
        if file.is_dir():
            return f"{file} is a folder"
        return None if os.access(file if file.exists() else file.parent, os.W_OK) else f"cannot write {file}"


class Readiness(Model):
    """What a process needs beside itself to be ready."""

    aim: bool = False
    """true: not ready while Aim's address does not answer"""


class Inspect(Model):
    """What is inspected beyond the texts of prompts and answers."""

    embeddings: bool = False
    """the inputs of embeddings"""
    tools: bool = False
    """tool definitions and response schemas"""


_ALL_REASONS = frozenset(Reason) - {Reason.KEY_REFUSED}


def _reasons(value: Any) -> Any:
    if value is True:
        return _ALL_REASONS
    if value is False or value is None:
        return frozenset()
    if isinstance(value, list | tuple | set | frozenset):
        unknown = sorted(str(item) for item in value if item not in set(Reason))
        if unknown:
            raise ValueError(f"unknown reason {', '.join(unknown)}; known: {', '.join(Reason)}")
        return frozenset(Reason(item) for item in value)
    raise ValueError("true, false or a list of reasons")


Reasons = Annotated[frozenset[Reason], BeforeValidator(_reasons)]


class FailureModeAllow(Model):
    """The reasons for which a leg goes on without a verdict."""

    request: Reasons = frozenset()
    """true: every reason but key_refused, which opens only where a list names it"""
    response: Reasons = frozenset()
    """likewise"""

    @model_validator(mode="before")
    @classmethod
    def _one_for_both(cls, value: Any) -> Any:
        if isinstance(value, Mapping | FailureModeAllow):
            return value
        return {"request": value, "response": value}

    def opens(self, leg: Leg, reason: Reason) -> bool:
        """Tell whether `leg` goes on although its inspection failed with `reason`."""
        return reason in (self.request if leg is Leg.REQUEST else self.response)


def _parse_sources(value: Any) -> Any:
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list | tuple | None):
        raise ValueError("a list of sources")
    return tuple(Source.parse(item) if isinstance(item, str) else item for item in value or ())


Sources = Annotated[tuple[Source, ...], BeforeValidator(_parse_sources)]


def _known_dialects(value: dict[str, str]) -> dict[str, str]:
    for pattern, dialect in value.items():
        if dialect not in NAMES:
            raise ValueError(f"unknown dialect {dialect!r}; known: {', '.join(sorted(NAMES))}")
        if not pattern.startswith(("/", "*")):
            raise ValueError("a path pattern starts with / or *")
    return value


def _none_or_a_second(value: float) -> float:
    if 0 < value < 1:
        raise ValueError("0, or 1 and more")
    return value


class Profile(Model):
    """One policy: what is asked of Aim, and what happens then."""

    enforce: bool = True
    """false: detect and report, never delay, change or block"""
    hooks: frozenset[Hook] = frozenset({Hook.PRE_CALL, Hook.OUTPUT})
    """any of pre_call, moderation, output; with both, moderation after pre_call"""
    failure_mode_allow: FailureModeAllow = FailureModeAllow()
    """or one value for both; each true, false or a list of reasons"""
    stream_head_seconds: Annotated[float, Field(ge=0, le=300)] = 2
    """how long the head of a stream may wait for the first verdict"""
    stream_ping_seconds: Annotated[float, AfterValidator(_none_or_a_second), Field(ge=0, le=300)] = 0
    """a comment to the client each time so long nothing could be released, 1 s at the least; 0: none"""
    block_message: Annotated[str, Field(max_length=4096)] = ""
    """replaces Aim's text; at most 4096 characters"""
    unmatched: Literal["pass", "block"] = "pass"
    """a path that no dialect knows: pass, block"""
    paths: Annotated[dict[str, str], AfterValidator(_known_dialects)] = Field(default_factory=dict)
    """{"/llm/*": openai-chat}: dialect by the client's path, before the built-in table"""
    routes: tuple[str, ...] = ()
    """globs on Envoy's attribute xds.route_name"""
    user_email: Sources = (Source("header", "x-aim-user-email"),)
    """the first source with a value wins"""
    session_id: Sources = (Source("header", "x-aim-session-id"),)
    """likewise"""
    key_alias: Sources = ()
    """selects guards: use a header only where Envoy removes the client's own"""
    inspect: Inspect = Inspect()
    """what is inspected beyond the texts of prompts and answers"""
    api_key_file: Path | None = None
    """a tenant's own guard; read again when it changes"""


def _named_profiles(value: dict[str, Profile]) -> dict[str, Profile]:
    for name in value:
        if not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", name):
            raise ValueError("a profile's name is 1 to 64 letters, digits, dots, dashes or underscores")
    return {DEFAULT_PROFILE: Profile(), **value}


class Settings(_Numbers, BaseSettings):
    """All settings; docs/settings.md describes each."""

    model_config = SettingsConfigDict(
        env_prefix="EXTPROC_",
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
    )

    listen: Annotated[Address, NoDecode, BeforeValidator(_parse_address)] = Address(host="127.0.0.1", port=50051)
    """or unix:/run/extproc/extproc.sock; [host]:port for IPv6"""
    admin: Annotated[Address | None, NoDecode, BeforeValidator(_parse_optional_address)] = Address(
        host="127.0.0.1", port=9902
    )
    """`""` switches it off"""
    workers: Annotated[int, Field(ge=1, le=256)] = 1
    """processes; worker i listens on port+i (or <socket>-i); one admin port for all"""
    drain_seconds: Annotated[float, Field(ge=0, le=3600)] = 30
    """how long live exchanges may go on after SIGTERM"""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """debug, info, warning, error"""
    assume_full_duplex: bool = False
    """accept a data plane that sends no protocol_config"""
    tls: Tls = Tls()
    """of the ext_proc listener"""
    aim: Aim = Aim()
    """how to reach Aim"""
    limits: Limits = Limits()
    """sizes in bytes"""
    readiness: Readiness = Readiness()
    """what a process needs beside itself to be ready"""
    audit: Audit = Audit()
    """a JSON line for each verdict and exchange, without content"""
    profiles: Annotated[dict[str, Profile], AfterValidator(_named_profiles)] = Field(
        default_factory=lambda: {DEFAULT_PROFILE: Profile()}
    )
    """policies by their name; `default` is always there"""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return env_settings, init_settings

    def problems_when_serving(self) -> list[str]:
        """Return what stands in the way of serving with these settings, one line each, named by its setting."""
        problems = []
        if self.listen.port + self.workers - 1 > 65535:
            problems.append("workers: worker i listens on port+i, which goes beyond 65535")
        own_keys = all(profile.api_key_file for profile in self.profiles.values())
        if not (self.aim.api_key.get_secret_value() or self.aim.api_key_file or own_keys):
            problems.append("aim.api_key: no key; set AIM_API_KEY or aim.api_key_file")
        if (problem := self.audit.problem()) is not None:
            problems.append(f"audit.file: {problem}")
        files = {
            "aim.api_key_file": self.aim.api_key_file,
            "aim.ca_file": self.aim.ca_file,
            "tls.cert_file": self.tls.cert_file,
            "tls.key_file": self.tls.key_file,
            "tls.client_ca_file": self.tls.client_ca_file,
            "audit.key_file": self.audit.key_file,
        } | {f"profiles.{name}.api_key_file": profile.api_key_file for name, profile in self.profiles.items()}
        for setting, file in files.items():
            if file is not None:
                try:
                    content = file.read_bytes().strip()
                    if not content:
                        problems.append(f"{setting}: {file} is empty")
                    elif setting.endswith("api_key_file") and not is_key(content.decode("latin-1")):
                        problems.append(f"{setting}: {file} holds characters that no HTTP header can carry")
                except (OSError, ValueError) as error:
                    problems.append(f"{setting}: cannot read {file}: {getattr(error, 'strerror', None) or error}")
        if not problems and self.tls.cert_file is not None and self.tls.key_file is not None:
            try:
                ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(
                    self.tls.cert_file, self.tls.key_file
                )
            except OSError:  # SSLError among them
                problems.append("tls.cert_file: not a certificate that belongs to tls.key_file")
        return problems
