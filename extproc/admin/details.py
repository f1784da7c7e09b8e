"""What is opened when something is wrong: blocks, failures, Aim, profiles and settings."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from extproc.admin import words
from extproc.admin.layout import facts, section, table
from extproc.admin.markup import Content, Markup, element, join
from extproc.config.described import described, reasons, without_login
from extproc.config.settings import Settings
from extproc.telemetry.snapshot import Failure, KeyUse, Reload, Snapshot, Worker


def blocks(snapshot: Snapshot, settings: Settings) -> Markup:
    """Return the section of the last blocks."""

    def mode(profile: str) -> str:
        known = settings.profiles.get(profile)
        return f"{profile} (dry run)" if known is not None and not known.enforce else profile

    return section(
        "blocks",
        "Recent blocks",
        table(
            "The last blocks, the latest first; a call id finds the exchange in Aim and in the logs.",
            ("time", "call id", "profile", "dialect", "leg, hook", "policies", "code"),
            [
                (
                    words.moment(block.at),
                    element("code", block.call_id),
                    mode(block.profile),
                    block.dialect,
                    f"{block.leg}, {block.hook}",
                    element("span", ", ".join(block.policies) or "not named", class_="long"),
                    block.code,
                )
                for block in snapshot.blocks
            ],
            "Nothing was blocked since the start.",
        ),
    )


def without_verdict(snapshot: Snapshot) -> Markup:
    """Return the section of what went without a verdict."""

    def rows(failures: Sequence[Failure]) -> list[tuple[Content, ...]]:
        most_first = sorted(failures, key=lambda failure: -failure.count)
        return [(failure.place, failure.reason, f"{failure.count:,}") for failure in most_first]

    return section(
        "failures",
        "Without a verdict",
        element(
            "div",
            table(
                "Legs that failed open, since the start.",
                ("leg", "reason", "count"),
                rows(snapshot.failed_open),
                "Nothing failed open since the start.",
            ),
            table(
                "Analyses and sessions that failed, since the start.",
                ("hook", "reason", "count"),
                rows(snapshot.failed),
                "Aim gave every verdict since the start.",
            ),
            class_="pair",
        ),
    )


def aim(snapshot: Snapshot, settings: Settings) -> Markup:
    """Return the section about Aim."""
    listed: list[tuple[str, Content]] = [
        ("Address", without_login(settings.aim.base)),
        ("API", settings.aim.api),
        ("Breaker, analyses", _breakers(snapshot.workers, lambda worker: worker.is_breaker_open)),
        ("Breaker, sessions", _breakers(snapshot.workers, lambda worker: worker.is_session_breaker_open)),
    ]
    return section("aim", "Aim", facts(listed))


def _breakers(workers: Sequence[Worker], is_open: Callable[[Worker], bool]) -> str:
    count = sum(map(is_open, workers))
    if not count:
        return "closed"
    return "open" if len(workers) == 1 else f"open in {count} of {len(workers)} workers"


def profiles(snapshot: Snapshot, settings: Settings) -> Markup:
    """Return the section of the profiles in force."""
    uses = {use.profile: use for use in snapshot.keys}
    shared = bool(settings.aim.api_key.get_secret_value() or settings.aim.api_key_file)
    rows: list[tuple[Content, ...]] = []
    for name, profile in settings.profiles.items():
        is_own = profile.api_key_file is not None
        allow = profile.failure_mode_allow
        rows.append(
            (
                name,
                "enforced" if profile.enforce else "dry run",
                ", ".join(hook for hook in ("pre_call", "moderation", "output") if hook in profile.hooks) or "none",
                reasons(allow.request),
                reasons(allow.response),
                profile.unmatched,
                _key(
                    uses.get(name),
                    is_own=is_own,
                    is_set=is_own or shared,
                    refused="refused or unreadable" if has_key_file(settings, name) else "refused",
                ),
            )
        )
    return section(
        "profiles",
        "Profiles",
        table(
            "The profiles in force.",
            ("profile", "mode", "hooks", "request fails open", "response fails open", "unmatched paths", "key"),
            rows,
            "",
        ),
    )


def has_key_file(settings: Settings, profile: str) -> bool:
    """Tell whether the key of `profile` is in a file, which may be what is wrong with it."""
    has_fixed = bool(settings.aim.api_key.get_secret_value())
    shared = None if has_fixed else settings.aim.api_key_file
    return (settings.profiles[profile].api_key_file or shared) is not None


def _key(use: KeyUse | None, *, is_own: bool, is_set: bool, refused: str) -> Markup:
    whose = " (its own)" if is_own else ""
    if not is_set:
        return join("not set")
    if use is None:
        return join(f"set{whose}, not used yet")
    return join(f"{refused if use.is_refused else 'set'}{whose}, used at ", words.moment(use.at))


def all_settings(snapshot: Snapshot, settings: Settings) -> Markup:
    """Return the section of the settings in force."""
    reload = last_reload(snapshot)
    if reload is None:
        said = element("p", "In force since the start.")
    elif reload.problems:
        said = element(
            "div",
            element("p", "Refused at ", words.moment(reload.at), "; the settings before them are in force:"),
            element("ul", *(element("li", problem) for problem in reload.problems)),
        )
    else:
        said = element("p", "Reloaded at ", words.moment(reload.at), ".")
    listed = described(settings)
    return section(
        "settings",
        "Settings",
        said,
        element(
            "details",
            element(
                "summary", f"All {len(listed)} settings, {sum(not each.is_default for each in listed)} of them set"
            ),
            table(
                "The settings in force, those that differ from their defaults in bold.",
                ("setting", "value"),
                [
                    (element("code", each.name), element("span" if each.is_default else "b", each.value, class_="long"))
                    for each in listed
                ],
                "",
            ),
        ),
    )


def last_reload(snapshot: Snapshot) -> Reload | None:
    """Return the last change of the settings, if any; one that was refused comes before all others."""
    reloads = [worker.reload for worker in snapshot.workers if worker.reload is not None]
    return max(reloads, key=lambda reload: (bool(reload.problems), reload.at), default=None)
