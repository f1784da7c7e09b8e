"""The certificates of the listener for Envoy. New files are used for new connections, if they belong together.

A thread follows the files. gRPC asks for new ones at each connection, in a thread that serves all connections: a mount
that hangs must not stop it.
"""

from __future__ import annotations

import ssl
import time
from collections import deque
from pathlib import Path
from threading import Thread

import grpc
import structlog

from extproc.config.settings import Tls
from extproc.core.errors import SettingsError
from extproc.telemetry.logs import log_internal_error

_log = structlog.get_logger()

Stamp = tuple[tuple[int, int, int], ...]

_POLL_SECONDS = 1.0
"""The interval in which the files are looked at."""


class Certificates:
    """The certificate, its key and the CA of clients, as the files had them when they were last usable."""

    def __init__(self, tls: Tls) -> None:
        """Follow the files of `tls`, which must name a certificate."""
        assert tls.cert_file is not None
        assert tls.key_file is not None
        self._cert = tls.cert_file
        self._key = tls.key_file
        self._ca = tls.client_ca_file
        self._seen: Stamp | None = None  # of the files that were read last, whether they could be used or not
        self._problem: str | None = None
        self._new: deque[grpc.ServerCertificateConfiguration] = deque(maxlen=1)  # what gRPC has not taken yet

    def credentials(self) -> grpc.ServerCredentials:
        """Return credentials that follow the files. Raises SettingsError if these cannot be used."""
        first = self._read()
        if first is None:
            raise SettingsError([f"tls: {self._problem}"])
        Thread(target=self._follow, name="certificates", daemon=True).start()
        return grpc.dynamic_ssl_server_credentials(
            first, self._take, require_client_authentication=self._ca is not None
        )

    def _take(self) -> grpc.ServerCertificateConfiguration | None:
        """Return what is new since the last call, None if nothing is."""
        try:
            return self._new.pop()
        except IndexError:
            return None

    def _follow(self) -> None:
        """Read the files once two looks in a row have found them the same: their replacement takes several steps."""
        last = self._seen
        while True:
            time.sleep(_POLL_SECONDS)
            before = self._problem
            try:
                last, previous = self._look(), last
                found = self._read() if last == previous else None
            except Exception as error:  # the files are to be followed all the same
                log_internal_error(error)
                continue
            if self._problem is not None and self._problem != before:
                _log.error("certificate_refused", problem=self._problem)
            elif found is not None:
                self._new.append(found)
                _log.info("certificate_reloaded")

    @property
    def _files(self) -> list[Path]:
        return [self._cert, self._key, *([self._ca] if self._ca is not None else [])]

    def _look(self) -> Stamp | None:
        """Return what identifies the present files, None if one cannot be looked at."""
        try:
            return _stamp(self._files)
        except OSError:
            return None

    def _read(self) -> grpc.ServerCertificateConfiguration | None:
        """Return what the files hold, None if that has not changed or cannot be used."""
        try:
            stamp = _stamp(self._files)
            if stamp == self._seen:
                return None
            chain, key, *ca = (file.read_bytes() for file in self._files)
            problem = self._check()
            if _stamp(self._files) != stamp:
                return None  # they are being replaced: the next look finds them whole
        except OSError as error:
            self._problem, self._seen = f"cannot read {error.filename}: {error.strerror}", None
            return None
        self._problem, self._seen = problem, stamp
        if problem is not None:
            return None
        return grpc.ssl_server_certificate_configuration([(key, chain)], ca[0] if ca else None)

    def _check(self) -> str | None:
        """Return why the files cannot be used together, without anything that they hold; None if they can."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        try:
            context.load_cert_chain(self._cert, self._key, password=lambda: "")  # never ask for it
            if self._ca is not None:
                context.load_verify_locations(self._ca)
        except ssl.SSLError as error:
            return f"the files cannot be used together: {(error.reason or 'not PEM').replace('_', ' ').lower()}"
        return None


def _stamp(files: list[Path]) -> Stamp:
    states = (file.stat() for file in files)
    return tuple((state.st_mtime_ns, state.st_ino, state.st_size) for state in states)
