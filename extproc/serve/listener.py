"""The gRPC listener for Envoy: its limits and its address."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import grpc

from extproc.config.address import Address, unaddressed
from extproc.config.settings import Settings, Tls
from extproc.core.errors import SettingsError
from extproc.serve.certificates import Certificates
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
    credentials = Certificates(tls).credentials() if tls.cert_file is not None else None

    def add_port(name: str) -> None:
        if credentials is not None:
            server.add_secure_port(name, credentials)
        else:
            server.add_insecure_port(name)

    # Only the owner and the group of a unix socket may connect.
    previous = os.umask(0o117)
    try:
        if not address.path:
            add_port(str(address))
            return lambda: None
        file = SocketFile(Path(address.path))
        file.listen(lambda path: add_port(f"unix:{path}"))
    except OSError as error:
        raise _cannot_listen(address, unaddressed(error)) from error
    except RuntimeError as error:
        raise _cannot_listen(address, _why_not(address)) from error
    finally:
        os.umask(previous)
    return file.remove


def _cannot_listen(address: Address, problem: str) -> SettingsError:
    return SettingsError([f"listen: cannot listen on {address}: {problem}"])


def _why_not(address: Address) -> str:
    """Return why gRPC could not listen on `address`, which it does not say: try the same without it."""
    try:
        if address.path:
            with socket.socket(socket.AF_UNIX) as trial:
                name = Path(address.path).with_name(f".{os.getpid()}")
                trial.bind(str(name))
                name.unlink()
        else:
            family, kind, protocol, _, place = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)[
                0
            ]
            with socket.socket(family, kind, protocol) as trial:
                trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                trial.bind(place)
                trial.listen()
    except OSError as error:
        return unaddressed(error)
    return "gRPC refuses it"
