"""Checks the connection to Aim: its name, the proxy, the connection, the certificate and the clock."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

import httpx

from extproc.aim.network import Network
from extproc.aim.transport import ProxyRefused, ServerDisconnected
from extproc.check.finding import Finding, Severity, error, warning
from extproc.config.described import without_login
from extproc.config.settings import Settings

SKEW_SECONDS = 120
"""A larger difference of clocks is reported, because certificates and tokens are valid for a limited time."""

# OpenSSL's X509_V_ERR_* numbers, as the ssl module reports them.
_CERTIFICATES = {
    9: ("the certificate of {host} is not valid yet", "check this machine's clock, which says {now}"),
    10: (
        "the certificate of {host} has expired",
        "check this machine's clock, which says {now}; otherwise Aim has to renew it",
    ),
    18: ("{host} has a self-signed certificate", "set aim.ca_file to the CA that you trust"),
    19: ("the certificate of {host} is from a root CA that is not trusted here", "set aim.ca_file to that CA"),
    20: ("the certificate of {host} is from an unknown CA", "set aim.ca_file to that CA"),
    62: (
        "the certificate is for another name than {host}",
        "check aim.base_url, and which server answers for that name",
    ),
    64: ("the certificate is for another address than {host}", "check aim.base_url, and which server answers there"),
}


_LOGIN = "put it into aim.proxy: http://USER:PASSWORD@HOST:PORT"


async def check_network(settings: Settings) -> list[Finding]:
    """Connect to Aim's address and send a HEAD request; return the findings.

    Raises SettingsError for a proxy or a CA file that cannot be used.
    """
    aim = settings.aim
    network = Network.of(aim)
    proxy = network.proxy
    where = f"aim, {aim.base}"
    try:
        async with asyncio.timeout(aim.timeout_seconds), network.transport() as transport:
            answer = await transport.handle_async_request(httpx.Request("HEAD", aim.base))
            await answer.aclose()
    except (TimeoutError, httpx.TransportError) as failure:
        what, advice = describe(failure, aim.base, proxy)
        return [error(where, f"Aim cannot be reached: {what}", advice)]
    if answer.status_code == 407 and proxy:
        return [error(where, f"Aim cannot be reached: the proxy {_place(proxy)} demands a login", _LOGIN)]
    findings = [Finding(Severity.OK, where, f"answers{f' through {without_login(proxy)}' if proxy else ''}")]
    findings += _clock(answer.headers.get("date"))
    is_https = network.tls_for(aim.base) is not None
    if is_https and not aim.verify:
        findings.append(warning(where, "its certificate is not verified", "set aim.verify: true and aim.ca_file"))
    if not is_https and not _is_here(aim.base):
        findings.append(warning(where, "prompts and the key cross the network in the clear", "use an https URL"))
    return findings


def describe(
    failure: Exception, base: str, proxy: str | None = None, limit: str = "aim.timeout_seconds"
) -> tuple[str, str]:
    """Return what it means that a request to `base` failed, within `limit`, and what an operator can do about it."""
    host = urlsplit(base).hostname or ""
    target = _place(proxy) if proxy else _place(base)
    setting = "aim.proxy, HTTPS_PROXY and NO_PROXY" if proxy else "aim.base_url"
    match _root(failure):
        case ssl.SSLCertVerificationError() as refused:
            return _certificate(refused, host)
        case ProxyRefused(status=407):
            return f"the proxy {target} demands a login", _LOGIN
        case ProxyRefused(status=status):
            return f"the proxy {target} refuses to connect to {host} (HTTP {status})", "allow it there"
        case socket.gaierror():
            name = (urlsplit(proxy).hostname if proxy else host) or ""
            return f"the name {name} does not resolve", f"check {setting}, and this machine's DNS"
        case ssl.SSLError():
            return (
                f"{target} does not answer with TLS, or with an unsupported version",
                f"check the scheme and port of {setting}",
            )
        case ConnectionRefusedError():
            return f"nothing listens on {target} (connection refused)", f"check {setting}"
        case TimeoutError():
            return (
                f"{target} does not answer within {limit}",
                "look for a firewall in between, or for a required proxy (aim.proxy)",
            )
        case ServerDisconnected() | ConnectionResetError():
            return f"{target} closes the connection without an answer", f"check the scheme and port of {setting}"
        case OSError() as other:
            return f"{target}: {other.strerror or 'no connection'}", f"check {setting} and the network"
        case other:
            return f"{target} does not answer in HTTP ({type(other).__name__})", f"check {setting}"


def _root(failure: BaseException) -> BaseException:
    """Return the first error of the operating system, TLS or name resolution among the causes, else `failure`."""
    cause: BaseException | None = failure
    while cause is not None:
        if type(cause).__module__ in ("builtins", "ssl", "socket"):
            return cause
        cause = cause.__cause__ or cause.__context__
    return failure


def _certificate(failure: ssl.SSLCertVerificationError, host: str) -> tuple[str, str]:
    what, advice = _CERTIFICATES.get(
        failure.verify_code, ("the certificate of {host} is not accepted", "check aim.ca_file")
    )
    now = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    return what.format(host=host), advice.format(now=now)


def _clock(date: str | None) -> list[Finding]:
    try:
        behind = parsedate_to_datetime(date or "").timestamp() - time.time()
    except ValueError:
        return []
    if abs(behind) <= SKEW_SECONDS:
        return []
    which = "behind" if behind > 0 else "ahead of"
    return [
        warning(
            "clock",
            f"this machine's clock is {round(abs(behind) / 60)} min {which} Aim's",
            "set it (NTP): the validity of certificates and tokens depends on it",
        )
    ]


def _place(url: str) -> str:
    return urlsplit(url).netloc.rpartition("@")[2]


def _is_here(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    return host in ("localhost", "::1") or host.startswith("127.")
