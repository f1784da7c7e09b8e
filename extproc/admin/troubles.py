"""The problems that need an operator's attention, as sentences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from extproc.admin import words
from extproc.admin.details import has_key_file, last_reload
from extproc.admin.words import Sentence
from extproc.config.settings import Settings
from extproc.telemetry.snapshot import Minute, Phase, Snapshot, added


def troubles(snapshot: Snapshot, settings: Settings, minutes: Sequence[Minute]) -> Iterator[Sentence]:
    """Yield a sentence for each current problem and for each problem of the last `minutes`."""
    workers = snapshot.workers
    if snapshot.silent:
        yield Sentence(f"{words.count(snapshot.silent, 'worker')} of {len(workers) + snapshot.silent} did not answer.")
    if any(worker.phase is Phase.UNREADY for worker in workers):
        yield Sentence("Not ready: Aim cannot be reached, and readiness.aim requires it.")
    for use in snapshot.keys:
        if use.is_refused and use.profile in settings.profiles:
            unread = ", or its file cannot be read or holds none" if has_key_file(settings, use.profile) else ""
            yield Sentence(f"Aim refuses the key of profile {use.profile}{unread}, last at ", use.at, ".")
    for what, number in (
        ("detections", sum(worker.is_breaker_open for worker in workers)),
        ("sessions", sum(worker.is_session_breaker_open for worker in workers)),
    ):
        if number:
            where = f" in {number} of {len(workers)} workers" if len(workers) > 1 else ""
            yield Sentence(f"The circuit breaker for {what} is open{where}: Aim does not answer.")
    failed_open = sum(minute.failed_open for minute in minutes)
    without_verdict = added(minute.verdicts for minute in minutes)["error"]
    if failed_open:
        yield Sentence(f"Traffic passed without a verdict {words.count(failed_open, 'time')} in the last minutes.")
    if without_verdict:
        yield Sentence(f"Aim gave no verdict {words.count(without_verdict, 'time')} in the last minutes.")
    reload = last_reload(snapshot)
    if reload is not None and reload.problems:
        yield Sentence("The last change of the settings was refused at ", reload.at, "; the old ones are in force.")
    if reload is not None and reload.restart_needed:
        yield Sentence(f"A restart is needed for {', '.join(reload.restart_needed)}.")
    if not settings.aim.verify:
        yield Sentence("Aim's certificate is not verified (aim.verify: false).")
