"""One profile: which detections are made, and what follows from their verdicts and failures."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from extproc.config.model import Model
from extproc.core import policy as core
from extproc.core.dialects.endpoints import NAMES
from extproc.core.dialects.paths import normalised_glob
from extproc.core.errors import Reason
from extproc.core.identity import Source
from extproc.core.policy import EVERY_REASON
from extproc.core.vocabulary import Hook

DEFAULT_PROFILE = "default"

PROFILE_METADATA = "x-extproc-profile"
"""The key of the gRPC initial metadata that names the profile of a stream."""


class Inspect(Model):
    """What is inspected in addition to prompts and answers."""

    embeddings: bool = False
    """inputs of embeddings"""
    tools: bool = True
    """tool definitions and response schemas"""
    files: bool = False
    """uploaded files (batch input record by record), the contents of stored files, and the results of batches"""


def _reasons(value: Any) -> Any:
    if value is True:
        return EVERY_REASON
    if value is False or value is None:
        return frozenset()
    if isinstance(value, list | tuple | set | frozenset):
        unknown = sorted(str(item) for item in value if item not in set(Reason))
        if unknown:
            raise ValueError(f"unknown reason {', '.join(unknown)}; known: {', '.join(Reason)}")
        return frozenset(Reason(item) for item in value)
    raise ValueError("must be true, false or a list of reasons")


Reasons = Annotated[frozenset[Reason], BeforeValidator(_reasons)]


class FailureModeAllow(Model):
    """The reasons for which a leg is released without a verdict."""

    request: Reasons = frozenset()
    """true means every reason except key_refused, which must be listed"""
    response: Reasons = frozenset()
    """the same for responses"""

    @model_validator(mode="before")
    @classmethod
    def _one_for_both(cls, value: Any) -> Any:
        return for_both_legs(value)


def for_both_legs(value: Any) -> Any:
    """Return `failure_mode_allow` with its legs, if `value` is one value for both."""
    return value if isinstance(value, Mapping | FailureModeAllow) else {"request": value, "response": value}


def _source(value: Any) -> Source:
    if isinstance(value, Source):
        return value
    if not isinstance(value, str):
        raise ValueError("a source is text, such as header:NAME")
    return Source.parse(value)


def _list_of_sources(value: Any) -> Any:
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, list | tuple | None):
        raise ValueError("must be a list of sources")
    return value or ()


Sources = Annotated[tuple[Annotated[Source, BeforeValidator(_source)], ...], BeforeValidator(_list_of_sources)]


_PATH_KEY = re.compile(r"(?:([A-Za-z]+(?:-[A-Za-z]+)*) +)?([/*]\S*)").fullmatch


_TARGETS = (*sorted(NAMES), *core.Unmatched)


def _normalised_key(key: str) -> str:
    """Return a key of `paths` with the method in upper case, and the glob in the form of a request's path."""
    match = _PATH_KEY(key)
    if match is None:
        raise ValueError("must be a glob that starts with / or *, or a method and such a glob")
    method, glob = match.groups()
    return f"{method.upper()} {normalised_glob(glob)}" if method else normalised_glob(glob)


def _valid_key(key: str) -> str:
    _normalised_key(key)
    return key


def _known_target(target: str) -> str:
    if target not in _TARGETS:
        raise ValueError(f"unknown dialect {target!r}; known: {', '.join(_TARGETS)}")
    return target


def _normalised_paths(value: dict[str, str]) -> dict[str, str]:
    """Return the paths with normalised keys. Of two keys that are then equal, the first wins."""
    paths: dict[str, str] = {}
    for key, target in value.items():
        paths.setdefault(_normalised_key(key), target)
    return paths


Paths = Annotated[
    dict[Annotated[str, AfterValidator(_valid_key)], Annotated[str, AfterValidator(_known_target)]],
    AfterValidator(_normalised_paths),
]


def _none_or_a_second(value: float) -> float:
    if 0 < value < 1:
        raise ValueError("must be 0, or at least 1")
    return value


_RETRIED = frozenset({408, 409, 425, 429})
"""The statuses below 500 after which SDKs repeat a request."""


def _not_retried(value: int) -> int:
    if value in _RETRIED:
        raise ValueError("must not be one of 408, 409, 425 and 429, after which SDKs repeat the request")
    return value


class Refusal(Model):
    """What a client gets in place of what Aim has blocked. Failures keep their own statuses."""

    form: Annotated[Literal["error", "answer"], Field(alias="as")] = "error"
    """error, or answer: a 200 in the shape of the API, whole or streamed, whose text is the message. APIs that have no
    textual answer get the error"""
    status: Annotated[int, Field(ge=400, le=499), AfterValidator(_not_retried)] = 400
    """the HTTP status of the error, but not 408, 409, 425 or 429, after which SDKs repeat the request"""


class Profile(Model):
    """One policy: which detections are made, and what follows from their verdicts and failures."""

    enforce: bool = True
    """false: dry run; Aim is called and verdicts are reported, but exchanges are never delayed, redacted or blocked"""
    hooks: frozenset[Hook] = frozenset({Hook.PRE_CALL, Hook.OUTPUT})
    """any of pre_call, moderation, output; moderation runs after pre_call if both are set"""
    failure_mode_allow: FailureModeAllow = FailureModeAllow()
    """what passes if Aim gives no verdict: true, false or a list of reasons; for each leg, or one value for both"""
    stream_head_seconds: Annotated[float, Field(ge=0, le=300)] = 2
    """how long the start of a stream may wait for the first verdict, so that an early block is a 400"""
    stream_ping_seconds: Annotated[float, AfterValidator(_none_or_a_second), Field(ge=0, le=300)] = 0
    """send an SSE comment after this many seconds without output, at least 1; 0 disables it"""
    block_message: Annotated[str, Field(max_length=4096)] = ""
    """replaces Aim's message to the client; at most 4096 characters"""
    refusal: Refusal = Refusal()
    """what a client gets in place of what Aim has blocked"""
    unmatched: Literal["inspect", "pass", "block"] = "inspect"
    """a path that no dialect knows: inspect (read JSON, JSON lines and event streams; pass the rest), pass or block"""
    paths: Paths = Field(default_factory=dict)
    """such as {"/llm/*": openai-chat, "GET /v1/models": pass}: a dialect, inspect, pass or
    block, by [METHOD ]GLOB; the first match wins, and these patterns come before the built-in ones"""
    models: dict[Annotated[str, Field(min_length=1)], str] = Field(default_factory=dict)
    """such as {"gpt-4*": strict}: another profile for requests that name such a model (in the path if the API has it
    there, else in the body); the first match wins; needs enforce and a hook. Clients choose the profile by naming a
    model, so this profile and those named here must be acceptable for every client"""
    sample: Annotated[float, Field(ge=0, le=1)] = 1.0
    """the share of exchanges that a dry run inspects; the others pass unread and count as unmatched"""
    routes: tuple[str, ...] = ()
    """globs; a route whose name (Envoy's attribute xds.route_name) matches one has this profile"""
    user_email: Sources = (Source("header", "x-aim-user-email"),)
    """the caller; the first source with a value wins"""
    session_id: Sources = (Source("header", "x-aim-session-id"),)
    """the conversation; the first source with a value wins"""
    key_alias: Sources = ()
    """selects one of Aim's guards; use a header only if Envoy removes the one that a client sends"""
    inspect: Inspect = Inspect()
    """what is inspected in addition to prompts and answers"""
    api_key_file: Path | None = None
    """the API key of a tenant's own guard; wins over all keys of aim; re-read when it changes"""

    @field_validator("models")
    @classmethod
    def _guards_models(cls, value: dict[str, str], info: ValidationInfo) -> dict[str, str]:
        if value and not (info.data.get("enforce", True) and info.data.get("hooks", True)):
            raise ValueError("models needs a profile that enforces and has a hook; for a dry run remove it")
        return value

    def policy(self, name: str, *, timeout_seconds: float, verdict_timeout_seconds: float) -> core.Policy:
        """Return the profile as the core needs it, under its name and without `models`."""
        allow = self.failure_mode_allow
        return core.Policy(
            name=name,
            hooks=self.hooks,
            failure_mode_allow=core.FailureModeAllow(allow.request, allow.response),
            stream_head_seconds=self.stream_head_seconds,
            stream_ping_seconds=self.stream_ping_seconds,
            timeout_seconds=timeout_seconds,
            verdict_timeout_seconds=verdict_timeout_seconds,
            block_message=self.block_message,
            block_status=self.refusal.status,
            answers_blocks=self.refusal.form == "answer",
            unmatched=core.Unmatched(self.unmatched),
            paths=self.paths,
            inspect=frozenset(each for each in core.Inspect if getattr(self.inspect, each)),
        )
