"""The certificates of the listener for Envoy. New files are used for new connections, if they belong together."""

from __future__ import annotations

import ssl
from pathlib import Path

import grpc
import structlog

from extproc.config.settings import Tls
from extproc.core.errors import SettingsError

_log = structlog.get_logger()

Stamp = tuple[tuple[int, int, int], ...]


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

    def credentials(self) -> grpc.ServerCredentials:
        """Return credentials that follow the files. Raises SettingsError if these cannot be used."""
        first = self._read()
        if first is None:
            raise SettingsError([f"tls: {self._problem}"])
        return grpc.dynamic_ssl_server_credentials(
            first, self.follow, require_client_authentication=self._ca is not None
        )

    def follow(self) -> grpc.ServerCertificateConfiguration | None:
        """Return what the files hold, None if that has not changed or cannot be used. gRPC calls it per connection."""
        before = self._problem
        found = self._read()
        if self._problem is not None and self._problem != before:
            _log.error("certificate_refused", problem=self._problem)
        elif found is not None:
            _log.info("certificate_reloaded")
        return found

    def _read(self) -> grpc.ServerCertificateConfiguration | None:
        files = [self._cert, self._key, *([self._ca] if self._ca is not None else [])]
        try:
            stamp = _stamp(files)
            if stamp == self._seen:
                return None
            chain, key, *ca = (file.read_bytes() for file in files)
            problem = self._check()
            if _stamp(files) != stamp:
                return None  # they are being replaced: the next connection looks again
        except OSError as error:
            self._problem = f"cannot read {error.filename}: {error.strerror}"
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
