"""The status page: what a person reads in ten seconds, and what they open when something is wrong."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files

from extproc import __version__
from extproc.admin import details, glance, words
from extproc.admin.markup import Markup, element, join
from extproc.config.settings import Settings
from extproc.telemetry.snapshot import Phase, Snapshot

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


def page(snapshot: Snapshot, settings: Settings, *, is_paused: bool = False) -> str:
    """Return the page as HTML; unless paused it loads itself anew."""
    minutes = glance.last_minutes(snapshot)
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
        _header(snapshot, is_paused=is_paused),
        element(
            "main",
            glance.attention(tuple(glance.troubles(snapshot, settings, minutes))),
            glance.figures(snapshot, settings, minutes),
            glance.charts(minutes),
            details.blocks(snapshot, settings),
            details.without_verdict(snapshot),
            details.aim(snapshot, settings),
            details.profiles(snapshot, settings),
            details.all_settings(snapshot, settings),
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


def _header(snapshot: Snapshot, *, is_paused: bool) -> Markup:
    phase = _phase(snapshot)
    started = min((worker.started for worker in snapshot.workers), default=snapshot.at)
    facts = [f"version {__version__}", f"up {words.duration(snapshot.at - started)}"]
    workers = len(snapshot.workers) + snapshot.silent
    if workers > 1:
        facts.append(f"{workers} workers")
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
        element("p", " · ".join(facts)),
        element("p", join("As of ", words.moment(snapshot.at), ". ", pause)),
    )


def _phase(snapshot: Snapshot) -> str:
    phases = [*(worker.phase for worker in snapshot.workers), *(Phase.STARTING for _ in range(snapshot.silent))]
    # What has to be seen comes first.
    first = next(phase for phase in (Phase.DRAINING, Phase.UNREADY, Phase.STARTING, Phase.SERVING) if phase in phases)
    if len(set(phases)) == 1:
        return str(first)
    return f"{first} ({phases.count(Phase.SERVING)} of {len(phases)} workers serve)"
