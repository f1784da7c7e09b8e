"""The details of the status page: blocks, failures, Aim, profiles and the last reload."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from extproc.admin.words import Sentence
from extproc.config.described import reasons, without_login
from extproc.config.settings import Settings
from extproc.telemetry.snapshot import Failure, KeyUse, Reload, Snapshot, Worker


@dataclass(frozen=True, slots=True)
class ProfileRow:
    """A profile as the page shows it."""

    name: str
    mode: str
    hooks: str
    request_allow: str
    response_allow: str
    unmatched: str
    key: Sentence


def profile_label(settings: Settings, profile: str) -> str:
    """Return the name of a profile, with a note if it is a dry run."""
    known = settings.profiles.get(profile)
    return f"{profile} (dry run)" if known is not None and not known.enforce else profile


def most_first(failures: Sequence[Failure]) -> list[Failure]:
    """Return the failures, with the most frequent first."""
    return sorted(failures, key=lambda failure: -failure.count)


def aim_facts(snapshot: Snapshot, settings: Settings) -> list[tuple[str, str]]:
    """Return what is known about Aim, as pairs of name and value."""
    return [
        ("Address", without_login(settings.aim.base)),
        ("API", settings.aim.api),
        ("Breaker, detections", _breakers(snapshot.workers, lambda worker: worker.is_breaker_open)),
        ("Breaker, sessions", _breakers(snapshot.workers, lambda worker: worker.is_session_breaker_open)),
    ]


def _breakers(workers: Sequence[Worker], is_open: Callable[[Worker], bool]) -> str:
    count = sum(map(is_open, workers))
    if not count:
        return "closed"
    return "open" if len(workers) == 1 else f"open in {count} of {len(workers)} workers"


def profile_rows(snapshot: Snapshot, settings: Settings) -> Iterator[ProfileRow]:
    """Yield the profiles in force."""
    uses = {use.profile: use for use in snapshot.keys}
    shared = bool(settings.aim.api_key.get_secret_value() or settings.aim.api_key_file)
    for name, profile in settings.profiles.items():
        is_own = profile.api_key_file is not None
        allow = profile.failure_mode_allow
        yield ProfileRow(
            name=name,
            mode="enforced" if profile.enforce else "dry run",
            hooks=", ".join(hook for hook in ("pre_call", "moderation", "output") if hook in profile.hooks) or "none",
            request_allow=reasons(allow.request),
            response_allow=reasons(allow.response),
            unmatched=profile.unmatched,
            key=_key(
                uses.get(name),
                is_own=is_own,
                is_set=is_own or shared,
                refused="refused or unreadable" if has_key_file(settings, name) else "refused",
            ),
        )


def has_key_file(settings: Settings, profile: str) -> bool:
    """Return whether the key of `profile` is in a file, so that the file may be the problem."""
    has_fixed = bool(settings.aim.api_key.get_secret_value())
    shared = None if has_fixed else settings.aim.api_key_file
    return (settings.profiles[profile].api_key_file or shared) is not None


def _key(use: KeyUse | None, *, is_own: bool, is_set: bool, refused: str) -> Sentence:
    whose = " (its own)" if is_own else ""
    if not is_set:
        return Sentence("not set")
    if use is None:
        return Sentence(f"set{whose}, not used yet")
    return Sentence(f"{refused if use.is_refused else 'set'}{whose}, used at ", use.at)


def last_reload(snapshot: Snapshot) -> Reload | None:
    """Return the last reload of the settings, if any. A refused reload takes precedence."""
    reloads = [worker.reload for worker in snapshot.workers if worker.reload is not None]
    return max(reloads, key=lambda reload: (bool(reload.problems), reload.at), default=None)
