"""The gRPC listener for Envoy: its limits, its address and its certificates."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import grpc

from extproc.config.address import Address
from extproc.config.settings import Settings, Tls
from extproc.core.errors import SettingsError
from extproc.serve.unix_socket import SocketFile

_MEBIBYTE = 1024 * 1024

_WINDOW = 65_536
"""The unread bytes that one stream may send. A message that is being read may be larger."""

_HANDSHAKE_SECONDS = 10.0
"""The time for the TLS and HTTP/2 handshakes. gRPC's default gives a silent peer two minutes."""

_MORE_STREAMS = 1000
"""Streams over limits.streams that a connection may have. They are refused with a message; more must wait."""


def grpc_server(
    settings: Settings, *, keepalive_seconds: float = 30.0, keepalive_timeout_seconds: float = 30.0
) -> grpc.aio.Server:
    """Return a server for Envoy, without services yet.

    A connection that was silent for `keepalive_seconds` is pinged. If no answer arrives within
    `keepalive_timeout_seconds`, the connection and its streams are closed.
    """
    # Envoy's body limit is request_bytes + 1 MiB, so that the sidecar's own limit applies first. A message is slightly
    # larger than its body.
    largest = settings.limits.request_bytes + 2 * _MEBIBYTE
    most = settings.limits.streams + _MORE_STREAMS
    keepalive_ms, timeout_ms = int(keepalive_seconds * 1000), int(keepalive_timeout_seconds * 1000)
    return grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", largest),
            ("grpc.max_send_message_length", -1),
            # A second process on the same port is always a mistake.
            ("grpc.so_reuseport", 0),
            # An unread stream holds its window in memory. Bandwidth probing would grow the window to many megabytes,
            # but pausing a stream must pause its upstream.
            ("grpc.http2.bdp_probe", 0),
            ("grpc.http2.lookahead_bytes", _WINDOW),
            # Envoy may send keepalive pings often and without streams. By default gRPC would close the connection.
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.min_recv_ping_interval_without_data_ms", 1000),
            ("grpc.http2.max_ping_strikes", 0),
            # The streams of an Envoy that vanished, with its node or network, would never end. A live Envoy answers
            # pings, however long its streams last. Pings are sent only after a silence of the connection, but then
            # gRPC takes nothing but the answer for a sign of life. So the time for it is generous: an Envoy whose
            # thread is busy or throttled must not lose all its streams. (Envoy itself accepts any frame.)
            ("grpc.keepalive_time_ms", keepalive_ms),
            ("grpc.keepalive_timeout_ms", timeout_ms),
            ("grpc.http2.ping_timeout_ms", timeout_ms),
            ("grpc.http2.max_pings_without_data", 0),
            ("grpc.server_handshake_timeout_ms", int(_HANDSHAKE_SECONDS * 1000)),
            ("grpc.max_concurrent_streams", most),
            # Streams that were not accepted yet, including dropped ones. By default gRPC cancels new streams at random
            # beyond a thousand, which a burst can reach for part of a second.
            ("grpc.server.max_pending_requests", most),
            ("grpc.server.max_pending_requests_hard_limit", most + _MORE_STREAMS),
        ]
    )


def bind(server: grpc.aio.Server, address: Address, tls: Tls) -> Callable[[], None]:
    """Bind `server` to `address`; return a function that removes the file of a unix socket. Raises SettingsError."""
    file = SocketFile(Path(address.path)) if address.path else None
    # Only the owner and the group of a unix socket may connect.
    previous = os.umask(0o117)
    try:
        if file is not None:
            file.check()
        first = str(address) if file is None else f"unix:{file.first_path}"
        if tls.cert_file is not None:
            server.add_secure_port(first, _credentials(tls))
        else:
            server.add_insecure_port(first)
        if file is not None:
            file.publish()
    except (RuntimeError, OSError) as error:
        raise SettingsError([f"listen: cannot listen on {address}; is it in use?"]) from error
    finally:
        os.umask(previous)
    return file.remove if file is not None else lambda: None


def _credentials(tls: Tls) -> grpc.ServerCredentials:
    """Return credentials that reload their files when they change."""
    seen: list[tuple[int, ...]] = []

    def configuration() -> grpc.ServerCertificateConfiguration | None:
        files = [file for file in (tls.key_file, tls.cert_file, tls.client_ca_file) if file is not None]
        try:
            now = tuple(file.stat().st_mtime_ns for file in files)
            if seen and seen[-1] == now:
                return None
            key, chain, *ca = (file.read_bytes() for file in files)
        except OSError:
            return None  # a file is being replaced: keep the last certificates
        seen[:] = [now]
        return grpc.ssl_server_certificate_configuration([(key, chain)], ca[0] if ca else None)

    first = configuration()
    if first is None:
        raise SettingsError(["tls: a certificate file cannot be read"])
    return grpc.dynamic_ssl_server_credentials(
        first, lambda: configuration(), require_client_authentication=tls.client_ca_file is not None
    )
