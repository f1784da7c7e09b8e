"""The status page: an overview to read in ten seconds, and details to open if something is wrong."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined

from extproc import __version__
from extproc.admin import chart, details, traffic, words
from extproc.admin.figures import figures
from extproc.admin.troubles import troubles
from extproc.config.described import described
from extproc.config.settings import Settings
from extproc.telemetry.snapshot import MINUTES, Phase, Snapshot

REFRESH_SECONDS = 15

_STYLE = files(__package__).joinpath("templates", "page.css").read_text("utf-8")
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()

HEADERS = {
    "content-security-policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    f"img-src data:; style-src 'sha256-{_STYLE_HASH}'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}
"""The page loads nothing, runs no script and allows no frame around it."""

_ENVIRONMENT = Environment(
    loader=PackageLoader(__package__),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    auto_reload=False,
)
_ENVIRONMENT.filters |= {"clock": words.clock, "timestamp": words.timestamp}


def page(snapshot: Snapshot, settings: Settings, *, is_paused: bool = False) -> str:
    """Return the page as HTML. Unless paused, it reloads itself."""
    minutes = chart.last_minutes(snapshot)
    return _ENVIRONMENT.get_template("page.html").render(
        style=_STYLE,
        refresh_seconds=None if is_paused else REFRESH_SECONDS,
        phase=_phase(snapshot),
        about=_about(snapshot),
        snapshot=snapshot,
        troubles=list(troubles(snapshot, settings, minutes)),
        figures=figures(snapshot, settings, minutes),
        minutes=MINUTES,
        charts=(chart.verdicts(minutes), chart.added_latency(minutes)),
        profile_label=lambda profile: details.profile_label(settings, profile),
        failed_open=details.most_first(snapshot.failed_open),
        failed=details.most_first(snapshot.failed),
        refused=details.most_first(snapshot.refused),
        busiest_profiles=traffic.busiest_profiles(snapshot),
        busiest_dialects=traffic.busiest_dialects(snapshot),
        unmatched=traffic.unmatched_paths(snapshot),
        others=words.count(snapshot.other_unmatched, "exchange"),
        aim_facts=details.aim_facts(snapshot, settings),
        latencies=list(traffic.latencies(minutes)),
        profiles=list(details.profile_rows(snapshot, settings)),
        reload=details.last_reload(snapshot),
        settings=described(settings),
    )


def _about(snapshot: Snapshot) -> list[str]:
    """Return the version, the time since the start and, if there are several, the number of workers."""
    started = min((worker.started for worker in snapshot.workers), default=snapshot.at)
    facts = [f"version {__version__}", f"up {words.duration(snapshot.at - started)}"]
    workers = len(snapshot.workers) + snapshot.silent
    return [*facts, f"{workers} workers"] if workers > 1 else facts


def _phase(snapshot: Snapshot) -> str:
    phases = [*(worker.phase for worker in snapshot.workers), *(Phase.STARTING for _ in range(snapshot.silent))]
    # The phases, with the one that needs most attention first.
    first = next(phase for phase in (Phase.DRAINING, Phase.UNREADY, Phase.STARTING, Phase.SERVING) if phase in phases)
    if len(set(phases)) == 1:
        return str(first)
    return f"{first} ({phases.count(Phase.SERVING)} of {len(phases)} workers serve)"
