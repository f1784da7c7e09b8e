"""The limit of open files. Each stream needs a connection to Aim, and shells and systemd often allow 1,024 files."""

from __future__ import annotations

import resource

import structlog

_RESERVE = 1000
"""Files beside the sessions: connections for detections, those of Envoy and of the admin port, and logs."""

_log = structlog.get_logger()


def raise_limit(sessions: int) -> None:
    """Raise this process's limit of open files as far as allowed; warn if that is too low for so many `sessions`."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if most != resource.RLIM_INFINITY and most < sessions + _RESERVE:
        _log.warning("few_open_files", limit=most, needed=sessions + _RESERVE)
