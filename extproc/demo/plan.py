"""The demo's plan: which Aim, which model, and the settings that the sidecar and Envoy share."""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass, replace
from pathlib import Path

from extproc.config.address import Address
from extproc.config.load import load
from extproc.config.settings import Settings
from extproc.core.errors import SettingsError
from extproc.render.envoy import SYSTEM_CA_FILE
from extproc.render.upstream import Upstream

DEFAULT_MODEL = "gpt-4o-mini"
"""The model at a real provider, unless OPENAI_MODEL names another."""

_VERSION = "/v1"

_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


@dataclass(frozen=True, slots=True)
class Plan:
    """What runs. `account` holds the settings of the real Aim, `upstream` the real provider; None: local stand-ins.

    Envoy listens on `port`; 0 selects a free one. A gateway (`is_gateway`) plays no scenes: it waits for clients.
    """

    account: Settings | None
    upstream: Upstream | None
    model: str = "demo"
    authorization: str = ""
    port: int = 0
    is_gateway: bool = False

    @classmethod
    def read(cls, upstream: str | None, port: int = 0, *, is_gateway: bool = False) -> Plan:
        """Read the environment and the command line's `upstream` and `port`; raises SettingsError."""
        is_real = bool(os.environ.get("AIM_API_KEY") or os.environ.get("AIM_API_KEY_FILE"))
        account = load(serving=True) if is_real else None
        if upstream is None:
            return cls(account, None, port=port, is_gateway=is_gateway)
        try:
            server = Upstream.parse(upstream)
        except ValueError as error:
            raise SettingsError([f"upstream: {error}"]) from None
        if server.prefix != "/":
            raise SettingsError(["upstream: the demo has one upstream: give its URL without a prefix"])
        key = os.environ.get("OPENAI_API_KEY", "")
        return cls(
            account,
            server,
            os.environ.get("OPENAI_MODEL") or DEFAULT_MODEL,
            f"Bearer {key}" if key else "",
            port,
            is_gateway,
        )

    @property
    def is_enforced(self) -> bool:
        """Whether the outcome is known; it is not for an account's policies or a provider's answers."""
        return self.account is None and self.upstream is None

    @property
    def base_path(self) -> str:
        """Envoy's path for the base URL of OpenAI's SDKs. A URL with a path is the base URL of the provider."""
        if self.upstream is None or not self.upstream.path or self.upstream.path.endswith(_VERSION):
            return _VERSION
        return ""

    def routes(self, upstream: Upstream) -> list[Upstream]:
        """Return Envoy's routes to `upstream`.

        The paths of requests are appended to the URL's. If that ends with /v1, a request's own /v1 is not repeated:
        OpenAI's SDKs have it in their base URL, and Anthropic's in their paths.
        """
        if upstream.path.endswith(_VERSION):
            return [upstream, replace(upstream, prefix=f"{_VERSION}/")]
        return [upstream]

    def settings(self, listen: Address) -> Settings:
        """Return the settings for rendering Envoy's bootstrap, for a sidecar on `listen`."""
        if self.account is None:
            return Settings(listen=listen)
        return self.account.model_copy(update={"listen": listen, "workers": 1})

    def environment(self, listen: Address, admin: Address, aim_base: str) -> dict[str, str]:
        """Return the environment of the sidecar; `aim_base` is the local Aim's URL."""
        own = {
            "EXTPROC_LISTEN": str(listen),
            "EXTPROC_ADMIN": str(admin),
            "EXTPROC_WORKERS": "1",
            # The scenes read the access records from the log; that of a gateway must not grow with each exchange.
            "EXTPROC_LOG_LEVEL": "warning" if self.is_gateway else "info",
            # Only the demo's own exchanges run, and they end first.
            "EXTPROC_DRAIN_SECONDS": "0",
        }
        inherited = {name: value for name, value in os.environ.items() if name.upper() not in own}
        if self.account is None:
            # Settings for a real Aim would change the scenes, and a proxy cannot reach this machine.
            inherited = {
                name: value
                for name, value in inherited.items()
                if not name.upper().startswith(("AIM_API", "EXTPROC_")) and name.upper() not in _PROXIES
            }
            own |= {"AIM_API_BASE": aim_base, "AIM_API": "firewall", "AIM_API_KEY": "local"}
        return inherited | own


def ca_file() -> str:
    """Return the file of CA certificates for https upstreams: SSL_CERT_FILE, else this machine's."""
    candidates = (
        os.environ.get("SSL_CERT_FILE", ""),
        SYSTEM_CA_FILE,
        ssl.get_default_verify_paths().cafile or "",
    )
    return next((file for file in candidates if Path(file).is_file()), SYSTEM_CA_FILE)
