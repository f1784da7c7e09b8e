"""The status page: what a person reads in ten seconds, and what they open when something is wrong."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.resources import files

from extproc import __version__
from extproc.settings import Settings
from extproc.status.chart import Scale, Series, chart
from extproc.status.markup import Content, Markup, element, join
from extproc.status.masked import described, reasons, without_login
from extproc.status.snapshot import MINUTES, KeyUse, Minute, Phase, Reload, Snapshot, Worker, added, quantile

REFRESH_SECONDS = 15

_STYLE = Markup(files(__package__).joinpath("page.css").read_text("utf-8"))
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_ICON = "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 8 8'%3E%3Ccircle cx='4' cy='4' r='3' fill='%232f8f7f'/%3E%3C/svg%3E"  # noqa: E501

HEADERS = {
    "content-security-policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    f"img-src data:; style-src 'sha256-{_STYLE_HASH}'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}
"""What goes with the page: it loads nothing, runs nothing and stands in no frame."""

_ACTIONS = (
    ("allow", "allowed"),
    ("monitor", "monitored"),
    ("anonymize", "redacted"),
    ("block", "blocked"),
    ("error", "no verdict"),
)


def page(snapshot: Snapshot, settings: Settings, *, now: float, is_paused: bool = False) -> str:
    """Return the page as HTML for the moment `now`, in seconds since the epoch; unless paused it loads itself anew."""
    minutes = _minutes(snapshot, now)
    troubles = tuple(_troubles(snapshot, settings, minutes))
    refresh = None if is_paused else element("meta", http_equiv="refresh", content=REFRESH_SECONDS)
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        refresh,
        element("title", f"aim-extproc: {_phase(snapshot)}"),
        element("link", rel="icon", href=_ICON),
        element("style", _STYLE),
    )
    body = element(
        "body",
        _header(snapshot, now, is_paused=is_paused),
        element(
            "main",
            _attention(troubles),
            _figures(snapshot, settings, minutes),
            _charts(minutes),
            _blocks(snapshot, settings),
            _without_verdict(snapshot),
            _aim(snapshot, settings),
            _profiles(snapshot, settings),
            _settings(snapshot, settings),
        ),
        element(
            "footer",
            element("p", join(_link("metrics"), " · ", _link("healthz"), " · ", _link("readyz"))),
            element("p", "All times are UTC. No prompt, answer, header or key is on this page."),
        ),
    )
    return "<!doctype html>" + element("html", head, body, lang="en")


def _link(name: str) -> Markup:
    return element("a", f"/{name}", href=name)


# -- what is worth a glance --------------------------------------------------------------------------------------


def _header(snapshot: Snapshot, now: float, *, is_paused: bool) -> Markup:
    phase = _phase(snapshot)
    started = min((worker.started for worker in snapshot.workers), default=now)
    facts: list[Content] = [f"version {__version__}", f"up {_duration(now - started)}"]
    if len(snapshot.workers) > 1:
        facts.append(f"{len(snapshot.workers)} workers")
    pause = (
        element("a", "Resume updates", href="./")
        if is_paused
        else join(f"Updates every {REFRESH_SECONDS} s · ", element("a", "Pause updates", href="?paused"))
    )
    return element(
        "header",
        element(
            "div",
            element("h1", "aim-extproc"),
            element("p", phase.capitalize(), class_=f"pill {phase.partition(' ')[0]}"),
            class_="title",
        ),
        element("p", " · ".join(str(fact) for fact in facts)),
        element("p", join("As of ", _time(now), ". ", pause)),
    )


def _phase(snapshot: Snapshot) -> str:
    phases = [worker.phase for worker in snapshot.workers]
    if len(set(phases)) == 1:
        return str(phases[0])
    serving = phases.count(Phase.SERVING)
    return f"{'draining' if Phase.DRAINING in phases else 'starting'} ({serving} of {len(phases)} workers serve)"


def _troubles(snapshot: Snapshot, settings: Settings, minutes: Sequence[Minute]) -> Iterator[Markup]:
    workers = snapshot.workers
    for use in snapshot.keys:
        if use.is_refused and use.profile in settings.profiles:
            yield join(f"Aim refuses the key of profile {use.profile}, last at ", _time(use.at), ".")
    for what, count in (
        ("analyses", sum(worker.is_breaker_open for worker in workers)),
        ("sessions", sum(worker.is_session_breaker_open for worker in workers)),
    ):
        if count:
            where = f" in {count} of {len(workers)} workers" if len(workers) > 1 else ""
            yield join(f"The circuit breaker for {what} is open{where}: Aim does not answer.")
    outcomes = added(minute.outcomes for minute in minutes)
    unjudged = added(minute.verdicts for minute in minutes)["error"]
    if outcomes["failed_open"]:
        yield join(f"{_count(outcomes['failed_open'], 'exchange')} went on without a verdict in the last minutes.")
    if unjudged:
        yield join(f"Aim gave no verdict {_count(unjudged, 'time')} in the last minutes.")
    reload = _last_reload(snapshot)
    if reload is not None and reload.problems:
        yield join("The last change of the settings was refused at ", _time(reload.at), "; the old ones are in force.")
    if reload is not None and reload.restart_needed:
        yield join(f"A restart is needed for {', '.join(reload.restart_needed)}.")
    if not settings.aim.verify:
        yield join("Aim's certificate is not verified (aim.verify: false).")


def _attention(troubles: Sequence[Markup]) -> Markup:
    if not troubles:
        return element(
            "section",
            element("h2", "All is well", id="attention"),
            element("p", "Nothing failed, and nothing went on without a verdict, in the last minutes."),
            class_="attention well",
            aria_labelledby="attention",
        )
    return element(
        "section",
        element("h2", "Needs attention", id="attention"),
        element("ul", *(element("li", trouble) for trouble in troubles)),
        class_="attention trouble",
        aria_labelledby="attention",
    )


def _figures(snapshot: Snapshot, settings: Settings, minutes: Sequence[Minute]) -> Markup:
    outcomes = added(minute.outcomes for minute in minutes)
    workers = snapshot.workers
    limits, share = settings.limits, len(workers)
    now = (
        ("Streams", f"{sum(worker.streams for worker in workers):,}", f"of {limits.streams * share:,}"),
        ("Sessions with Aim", f"{sum(worker.sessions for worker in workers):,}", ""),
        (
            "Held",
            _bytes(sum(worker.held_bytes for worker in workers)),
            f"of {_bytes(limits.total_held_bytes * share)}",
        ),
        ("Exchanges", f"{outcomes.total():,}", f"in {MINUTES} min"),
        ("Blocked", f"{outcomes['blocked']:,}", f"in {MINUTES} min"),
        ("Redacted", f"{outcomes['redacted']:,}", f"in {MINUTES} min"),
        ("Failed open", f"{outcomes['failed_open']:,}", f"in {MINUTES} min"),
    )
    return _section(
        "now",
        "Now",
        element(
            "dl",
            *(
                element("div", element("dt", name), element("dd", element("b", value), element("small", beside)))
                for name, value, beside in now
            ),
            class_="figures",
        ),
    )


def _charts(minutes: Sequence[Minute]) -> Markup:
    columns = [*(datetime.fromtimestamp(60 * minute.number, UTC).strftime("%H:%M") for minute in minutes[:-1]), "now"]
    verdicts = added(minute.verdicts for minute in minutes)
    most = _round_up(max((minute_sum(minute.verdicts) for minute in minutes), default=0))
    judged = chart(
        "Verdicts",
        f"{_count(verdicts.total(), 'verdict')} in {MINUTES} minutes: "
        + ", ".join(f"{verdicts[action]:,} {name}" for action, name in _ACTIONS)
        + ".",
        columns,
        [
            Series(name, action, [minute.verdicts.get(action, 0) for minute in minutes], f"{verdicts[action]:,}")
            for action, name in _ACTIONS
        ],
        Scale(most, f"{most / 2:g}", f"{most:,}"),
        [[f"{minute.verdicts.get(action, 0):,}" for action, _ in _ACTIONS] for minute in minutes],
        stacked=True,
    )
    waits = added(minute.waits for minute in minutes)
    median, high = quantile(waits, 0.5), quantile(waits, 0.95)
    slowest = _round_up(1000 * max((quantile(minute.waits, 0.95) for minute in minutes), default=0)) / 1000
    waited = chart(
        "Added latency",
        f"{_count(waits.total(), 'wait')} on the guard in {MINUTES} minutes, half of them within {_seconds(median)}, "
        f"95 % within {_seconds(high)}."
        if waits
        else f"No exchange waited in {MINUTES} minutes.",
        columns,
        [
            Series("95 %", "high", [quantile(minute.waits, 0.95) for minute in minutes], _seconds(high)),
            Series("median", "median", [quantile(minute.waits, 0.5) for minute in minutes], _seconds(median)),
        ],
        Scale(slowest, _seconds(slowest / 2), _seconds(slowest)),
        [[_seconds(quantile(minute.waits, share)) for share in (0.95, 0.5)] for minute in minutes],
        stacked=False,
    )
    return _section("minutes", f"The last {MINUTES} minutes", element("div", judged, waited, class_="charts"))


def minute_sum(counts: Mapping[str, int]) -> int:
    """Return the sum of a minute's counts."""
    return sum(counts.values())


# -- what is opened when something is wrong ----------------------------------------------------------------------


def _blocks(snapshot: Snapshot, settings: Settings) -> Markup:
    def mode(profile: str) -> str:
        known = settings.profiles.get(profile)
        return f"{profile} (dry run)" if known is not None and not known.enforce else profile

    return _section(
        "blocks",
        "Recent blocks",
        _table(
            "The last blocks, the latest first; a call id finds the exchange in Aim and in the logs.",
            ("time", "call id", "profile", "dialect", "leg, hook", "policies", "code"),
            [
                (
                    _time(block.at),
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


def _without_verdict(snapshot: Snapshot) -> Markup:
    def rows(counts: Mapping[tuple[str, str], int]) -> list[tuple[Content, ...]]:
        return [(*key, f"{count:,}") for key, count in sorted(counts.items(), key=lambda item: -item[1])]

    return _section(
        "failures",
        "Without a verdict",
        element(
            "div",
            _table(
                "Legs that failed open, since the start.",
                ("leg", "reason", "count"),
                rows(snapshot.failed_open),
                "Nothing failed open since the start.",
            ),
            _table(
                "Analyses and sessions that failed, since the start.",
                ("hook", "reason", "count"),
                rows(snapshot.failed),
                "Aim gave every verdict since the start.",
            ),
            class_="pair",
        ),
    )


def _aim(snapshot: Snapshot, settings: Settings) -> Markup:
    aim = settings.aim
    facts: list[tuple[str, Content]] = [
        ("Address", without_login(aim.base)),
        ("API", aim.api),
        ("Breaker, analyses", _breakers(snapshot.workers, lambda worker: worker.is_breaker_open)),
        ("Breaker, sessions", _breakers(snapshot.workers, lambda worker: worker.is_session_breaker_open)),
    ]
    return _section("aim", "Aim", _facts(facts))


def _breakers(workers: Sequence[Worker], is_open: Callable[[Worker], bool]) -> str:
    count = sum(map(is_open, workers))
    if not count:
        return "closed"
    return "open" if len(workers) == 1 else f"open in {count} of {len(workers)} workers"


def _profiles(snapshot: Snapshot, settings: Settings) -> Markup:
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
                _key(uses.get(name), is_own=is_own, is_set=is_own or shared),
            )
        )
    return _section(
        "profiles",
        "Profiles",
        _table(
            "The profiles in force.",
            ("profile", "mode", "hooks", "request fails open", "response fails open", "unmatched paths", "key"),
            rows,
            "",
        ),
    )


def _key(use: KeyUse | None, *, is_own: bool, is_set: bool) -> Markup:
    whose = " (its own)" if is_own else ""
    if not is_set:
        return join("not set")
    if use is None:
        return join(f"set{whose}, not used yet")
    return join(f"{'refused' if use.is_refused else 'set'}{whose}, used at ", _time(use.at))


def _settings(snapshot: Snapshot, settings: Settings) -> Markup:
    reload = _last_reload(snapshot)
    if reload is None:
        said = element("p", "In force since the start.")
    elif reload.problems:
        said = element(
            "div",
            element("p", "Refused at ", _time(reload.at), "; the settings before them are in force:"),
            element("ul", *(element("li", problem) for problem in reload.problems)),
        )
    else:
        said = element("p", "Reloaded at ", _time(reload.at), ".")
    listed = described(settings)
    return _section(
        "settings",
        "Settings",
        said,
        element(
            "details",
            element(
                "summary", f"All {len(listed)} settings, {sum(not each.is_default for each in listed)} of them set"
            ),
            _table(
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


def _last_reload(snapshot: Snapshot) -> Reload | None:
    reloads = [worker.reload for worker in snapshot.workers if worker.reload is not None]
    # A worker that refused what others took is what has to be seen.
    return max(reloads, key=lambda reload: (bool(reload.problems), reload.at), default=None)


# -- parts -------------------------------------------------------------------------------------------------------


def _section(name: str, title: str, *content: Content) -> Markup:
    return element("section", element("h2", title, id=name), *content, aria_labelledby=name)


def _facts(facts: Sequence[tuple[str, Content]]) -> Markup:
    return element(
        "dl", *(element("div", element("dt", name), element("dd", value)) for name, value in facts), class_="facts"
    )


def _table(caption: str, columns: Sequence[str], rows: Sequence[Sequence[Content]], empty: str) -> Markup:
    if not rows:
        return element("p", empty, class_="empty")
    # The roles are written out because a phone's layout takes the elements' own away.
    head = element("tr", *(element("th", name, scope="col", role="columnheader") for name in columns), role="row")
    body = [
        element(
            "tr",
            *(
                element(
                    "td", element("span", name, class_="name", aria_hidden="true"), element("span", cell), role="cell"
                )
                if position
                else element("th", cell, scope="row", role="rowheader")
                for position, (name, cell) in enumerate(zip(columns, row, strict=True))
            ),
            role="row",
        )
        for row in rows
    ]
    return element(
        "table",
        element("caption", caption),
        element("thead", head, role="rowgroup"),
        element("tbody", *body, role="rowgroup"),
        role="table",
        class_="stack",
    )


def _time(at: float) -> Markup:
    moment = datetime.fromtimestamp(at, UTC)
    return element("time", moment.strftime("%H:%M:%S"), datetime=moment.strftime("%Y-%m-%dT%H:%M:%SZ"))


def _minutes(snapshot: Snapshot, now: float) -> list[Minute]:
    """Return the last minutes up to `now`, those without anything too."""
    known = {minute.number: minute for minute in snapshot.minutes}
    last = int(now // 60)
    return [known.get(number) or Minute(number, {}, {}, {}) for number in range(last - MINUTES + 1, last + 1)]


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _duration(seconds: float) -> str:
    whole = int(seconds)
    days, hours, minutes = whole // 86400, whole // 3600 % 24, whole // 60 % 60
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {whole % 60} s"


def _seconds(seconds: float) -> str:
    milliseconds = 1000 * seconds
    if milliseconds >= 1000:
        return f"{seconds:.1f} s"
    return f"{milliseconds:.0f} ms" if milliseconds >= 10 or not milliseconds else f"{milliseconds:.1f} ms"


def _bytes(size: int) -> str:
    value = float(size)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            break
        value /= 1024
    else:
        unit = "TiB"
    return f"{value:.0f} {unit}" if value >= 10 or value == int(value) else f"{value:.1f} {unit}"


def _round_up(value: float) -> int:
    """Return the next number that `value` does not exceed and that has a round half: the upper end of an axis."""
    for top in (2, 4, 6, 8):
        if value <= top:
            return top
    power = 1
    while True:
        for leading in (10, 12, 16, 20, 24, 30, 40, 50, 60, 80):
            if value <= leading * power:
                return leading * power
        power *= 10
