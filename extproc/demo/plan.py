"""The demo's plan: which Aim, which model, and the settings that the sidecar and Envoy share."""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass
from pathlib import Path

from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from extproc.config.address import Address
from extproc.config.load import load
from extproc.config.settings import Settings
from extproc.core.errors import SettingsError
from extproc.render.envoy import SYSTEM_CA_FILE
from extproc.render.upstream import Upstream

DEFAULT_MODEL = "gpt-4o-mini"
"""The model at a real provider, unless OPENAI_MODEL names another."""

_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


class _Plain(Settings):
    """Settings that ignore the environment."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)


@dataclass(frozen=True, slots=True)
class Plan:
    """`account` holds the settings of the real Aim, `upstream` the real provider; None selects the local stand-ins."""

    account: Settings | None
    upstream: Upstream | None
    model: str = "demo"
    authorization: str = ""

    @classmethod
    def read(cls, upstream: str | None) -> Plan:
        """Read the environment and the command line's `upstream`; raises SettingsError."""
        is_real = bool(os.environ.get("AIM_API_KEY") or os.environ.get("AIM_API_KEY_FILE"))
        account = load(serving=True) if is_real else None
        if upstream is None:
            return cls(account, None)
        try:
            server = Upstream.parse(upstream)
        except ValueError as error:
            raise SettingsError([f"upstream: {error}"]) from None
        key = os.environ.get("OPENAI_API_KEY", "")
        return cls(account, server, os.environ.get("OPENAI_MODEL") or DEFAULT_MODEL, f"Bearer {key}" if key else "")

    @property
    def is_enforced(self) -> bool:
        """Whether the outcome is known; it is not for an account's policies or a provider's answers."""
        return self.account is None and self.upstream is None

    @property
    def chat_path(self) -> str:
        """Envoy's path for the model's chat completions."""
        if self.upstream is None or (self.upstream.prefix == "/" and not self.upstream.path):
            return "/v1/chat/completions"
        # SDKs call a URL with a path the base URL.
        return self.upstream.prefix.rstrip("/") + "/chat/completions"

    def settings(self, listen: Address) -> Settings:
        """Return the settings for rendering Envoy's bootstrap, for a sidecar on `listen`."""
        if self.account is None:
            return _Plain(listen=listen)
        return self.account.model_copy(update={"listen": listen, "workers": 1})

    def environment(self, listen: Address, admin: Address, aim_base: str) -> dict[str, str]:
        """Return the environment of the sidecar; `aim_base` is the local Aim's URL."""
        own = {
            "EXTPROC_LISTEN": str(listen),
            "EXTPROC_ADMIN": str(admin),
            "EXTPROC_WORKERS": "1",
            # The demo reads the access records from the log.
            "EXTPROC_LOG_LEVEL": "info",
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
    """Return the file of this machine's CA certificates, for https upstreams."""
    candidates = (SYSTEM_CA_FILE, ssl.get_default_verify_paths().cafile or "")
    return next((file for file in candidates if Path(file).is_file()), SYSTEM_CA_FILE)
