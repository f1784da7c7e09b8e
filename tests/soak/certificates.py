"""The certificates between Envoy and the sidecar, laid out as Kubernetes mounts a secret.

The sidecar's files are in a folder behind a symbolic link. A rotation replaces the link, and so all files at once.
"""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Any

import trustme

from extproc.render.cluster import SIDECAR
from tests.bench.process import LOOPBACK

_CONNECTION_SECONDS = 60
"""How long Envoy uses a connection. It opens new ones under load, and so meets the new certificates."""

_ANSWER_SECONDS = 10.0


class Certificates:
    """The certificate of the sidecar, and that of Envoy if the sidecar demands one; one CA has issued both."""

    def __init__(self, folder: Path, *, has_client_tls: bool) -> None:
        """Write the files to `folder`, which must not exist yet."""
        folder.mkdir()
        self._folder = folder
        self._has_client_tls = has_client_tls
        self._authority = trustme.CA()
        self._ca = folder / "ca.crt"
        self._authority.cert_pem.write_to_path(str(self._ca))
        self._current = folder / "current"
        self._issued = 0
        self._newest = b""
        self.rotate()
        envoy = self._authority.issue_cert("envoy")
        self._envoy_chain, self._envoy_key = folder / "envoy.crt", folder / "envoy.key"
        envoy.cert_chain_pems[0].write_to_path(str(self._envoy_chain))
        envoy.private_key_pem.write_to_path(str(self._envoy_key))

    @property
    def settings(self) -> dict[str, str]:
        """The sidecar's settings under `tls`."""
        own = {"cert_file": str(self._current / "tls.crt"), "key_file": str(self._current / "tls.key")}
        return own | ({"client_ca_file": str(self._ca)} if self._has_client_tls else {})

    def rotate(self) -> None:
        """Replace the sidecar's certificate and its key."""
        self._issued += 1
        new = self._folder / str(self._issued)
        new.mkdir()
        leaf = self._authority.issue_cert(LOOPBACK)
        leaf.cert_chain_pems[0].write_to_path(str(new / "tls.crt"))
        leaf.private_key_pem.write_to_path(str(new / "tls.key"))
        self._newest = leaf.cert_chain_pems[0].bytes()
        link = self._folder / "next"
        link.symlink_to(new.name)
        link.rename(self._current)

    def trust(self, bootstrap: dict[str, Any]) -> None:
        """Let the Envoy of `bootstrap` validate the sidecar's certificate by its CA and address, and show its own.

        `extproc render envoy` trusts the certificate itself, and tells whoever rotates it to do this.
        """
        (cluster,) = (each for each in bootstrap["static_resources"]["clusters"] if each["name"] == SIDECAR)
        common = cluster["transport_socket"]["typed_config"]["common_tls_context"]
        common["validation_context"] = {
            "trusted_ca": {"filename": str(self._ca)},
            "match_typed_subject_alt_names": [{"san_type": "IP_ADDRESS", "matcher": {"exact": LOOPBACK}}],
        }
        if self._has_client_tls:
            chain, key = {"filename": str(self._envoy_chain)}, {"filename": str(self._envoy_key)}
            common["tls_certificates"] = [{"certificate_chain": chain, "private_key": key}]
        (options,) = cluster["typed_extension_protocol_options"].values()
        options["common_http_protocol_options"] = {"max_connection_duration": f"{_CONNECTION_SECONDS}s"}

    async def problems(self, port: int) -> list[str]:
        """Connect to the sidecar on `port`; return what is wrong with its certificate and its demands."""
        found = []
        shown, is_served = await self._connect(port, has_certificate=self._has_client_tls)
        if shown != ssl.PEM_cert_to_DER_cert(self._newest.decode()):
            found.append("the sidecar shows a certificate that was replaced")
        if not is_served:
            found.append("the sidecar does not serve over TLS")
        if self._has_client_tls and (await self._connect(port, has_certificate=False))[1]:
            found.append("the sidecar serves a client that has no certificate")
        return found

    async def _connect(self, port: int, *, has_certificate: bool) -> tuple[bytes | None, bool]:
        """Return the certificate that the sidecar shows, and whether it then speaks HTTP/2."""
        context = ssl.create_default_context(cafile=str(self._ca))
        context.set_alpn_protocols(["h2"])
        if has_certificate:
            context.load_cert_chain(self._envoy_chain, self._envoy_key)
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                reader, writer = await asyncio.open_connection(LOOPBACK, port, ssl=context)
                try:
                    shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
                    try:
                        return shown, bool(await reader.read(1))
                    except OSError:  # with TLS 1.3 a client is refused after its handshake
                        return shown, False
                finally:
                    writer.transport.abort()
        except (OSError, TimeoutError):
            return None, False
