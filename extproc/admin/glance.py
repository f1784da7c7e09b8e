"""What is worth a glance: troubles, figures and charts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from extproc.admin import words
from extproc.admin.chart import Scale, Series, chart
from extproc.admin.details import has_key_file, last_reload
from extproc.admin.layout import section
from extproc.admin.markup import Markup, element, join
from extproc.config.settings import Settings
from extproc.telemetry.snapshot import MINUTES, Minute, Phase, Snapshot, added, quantile

_ACTIONS = (
    ("allow", "allowed"),
    ("monitor", "monitored"),
    ("anonymize", "redacted"),
    ("block", "blocked"),
    ("error", "no verdict"),
)


def troubles(snapshot: Snapshot, settings: Settings, minutes: Sequence[Minute]) -> Iterator[Markup]:
    """Yield a sentence for each thing that somebody should see to."""
    workers = snapshot.workers
    if snapshot.silent:
        yield join(f"{words.count(snapshot.silent, 'worker')} of {len(workers) + snapshot.silent} did not answer.")
    if any(worker.phase is Phase.UNREADY for worker in workers):
        yield join("Not ready: Aim cannot be reached, which readiness.aim asks for.")
    for use in snapshot.keys:
        if use.is_refused and use.profile in settings.profiles:
            unread = ", or its file cannot be read or holds none" if has_key_file(settings, use.profile) else ""
            yield join(f"Aim refuses the key of profile {use.profile}{unread}, last at ", words.moment(use.at), ".")
    for what, number in (
        ("analyses", sum(worker.is_breaker_open for worker in workers)),
        ("sessions", sum(worker.is_session_breaker_open for worker in workers)),
    ):
        if number:
            where = f" in {number} of {len(workers)} workers" if len(workers) > 1 else ""
            yield join(f"The circuit breaker for {what} is open{where}: Aim does not answer.")
    failed_open = sum(minute.failed_open for minute in minutes)
    unjudged = added(minute.verdicts for minute in minutes)["error"]
    if failed_open:
        yield join(f"Something went on without a verdict {words.count(failed_open, 'time')} in the last minutes.")
    if unjudged:
        yield join(f"Aim gave no verdict {words.count(unjudged, 'time')} in the last minutes.")
    reload = last_reload(snapshot)
    if reload is not None and reload.problems:
        yield join(
            "The last change of the settings was refused at ", words.moment(reload.at), "; the old ones are in force."
        )
    if reload is not None and reload.restart_needed:
        yield join(f"A restart is needed for {', '.join(reload.restart_needed)}.")
    if not settings.aim.verify:
        yield join("Aim's certificate is not verified (aim.verify: false).")


def attention(found: Sequence[Markup]) -> Markup:
    """Return the section of the troubles that were found."""
    if not found:
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
        element("ul", *(element("li", trouble) for trouble in found)),
        class_="attention trouble",
        aria_labelledby="attention",
    )


def figures(snapshot: Snapshot, settings: Settings, minutes: Sequence[Minute]) -> Markup:
    """Return the section of what is under way, and of what the last minutes came to."""
    outcomes = added(minute.outcomes for minute in minutes)
    workers = snapshot.workers
    limits, share = settings.limits, len(workers)
    now = (
        ("Streams", f"{sum(worker.streams for worker in workers):,}", f"of {limits.streams * share:,}"),
        ("Sessions", f"{sum(worker.sessions for worker in workers):,}", "with Aim"),
        (
            "Held",
            words.size(sum(worker.held_bytes for worker in workers)),
            f"of {words.size(limits.total_held_bytes * share)}",
        ),
        ("Exchanges", f"{outcomes.total():,}", f"in {MINUTES} min"),
        ("Blocked", f"{outcomes['blocked']:,}", f"in {MINUTES} min"),
        ("Redacted", f"{outcomes['redacted']:,}", f"in {MINUTES} min"),
        ("Failed open", f"{sum(minute.failed_open for minute in minutes):,}", f"in {MINUTES} min"),
    )
    return section(
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


def charts(minutes: Sequence[Minute]) -> Markup:
    """Return the section of the charts of `minutes`."""
    columns = [*(datetime.fromtimestamp(60 * minute.number, UTC).strftime("%H:%M") for minute in minutes[:-1]), "now"]
    verdicts = added(minute.verdicts for minute in minutes)
    most = words.round_up(max(sum(minute.verdicts.values()) for minute in minutes))
    judged = chart(
        "Verdicts",
        f"{words.count(verdicts.total(), 'verdict')} in {MINUTES} minutes: "
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
    slowest = words.round_up(1000 * max(quantile(minute.waits, 0.95) for minute in minutes)) / 1000
    waited = chart(
        "Added latency",
        f"{words.count(waits.total(), 'wait')} on the guard in {MINUTES} minutes, half of them within "
        f"{words.seconds(median)}, 95 % within {words.seconds(high)}."
        if waits
        else f"No exchange waited in {MINUTES} minutes.",
        columns,
        [
            Series("95 %", "high", [quantile(minute.waits, 0.95) for minute in minutes], words.seconds(high)),
            Series("median", "median", [quantile(minute.waits, 0.5) for minute in minutes], words.seconds(median)),
        ],
        Scale(slowest, words.seconds(slowest / 2), words.seconds(slowest)),
        [[words.seconds(quantile(minute.waits, share)) for share in (0.95, 0.5)] for minute in minutes],
        stacked=False,
    )
    return section("minutes", f"The last {MINUTES} minutes", element("div", judged, waited, class_="charts"))


def last_minutes(snapshot: Snapshot) -> list[Minute]:
    """Return the last minutes, those without anything too."""
    known = {minute.number: minute for minute in snapshot.minutes}
    last = int(snapshot.at // 60)
    return [known.get(number) or Minute(number, {}, {}, {}, 0) for number in range(last - MINUTES + 1, last + 1)]
