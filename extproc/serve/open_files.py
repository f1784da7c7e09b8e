"""The limit of open files. Each stream needs a connection to Aim, and shells and systemd often allow 1,024 files."""

from __future__ import annotations

import resource
from contextlib import suppress

import structlog

_RESERVE = 2500
"""Files beside the sessions: up to 1,024 connections for detections, twice during a reload, and those of Envoy."""

_log = structlog.get_logger()


def raise_limit() -> None:
    """Raise this process's limit of open files as far as allowed."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # some systems refuse their own hard limit
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def check_limit(sessions: int) -> None:
    """Warn if this process may have too few open files for so many sessions."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit != resource.RLIM_INFINITY and limit < sessions + _RESERVE:
        _log.warning("few_open_files", limit=limit, needed=sessions + _RESERVE)
