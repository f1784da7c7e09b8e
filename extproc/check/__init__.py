"""`extproc check`: finds problems of the settings, of the connection to Aim, and of a running Envoy's configuration."""

from __future__ import annotations

from extproc.check.aim import check_aim
from extproc.check.envoy import check_envoy
from extproc.check.finding import Finding, Severity, warning
from extproc.config.settings import Settings

__all__ = ["Finding", "Severity", "check"]


async def check(settings: Settings, envoy: str | None = None, *, probes: bool = False) -> list[Finding]:
    """Return the findings about `settings`, Aim, and the Envoy with the admin URL `envoy`, if given.

    `probes` also finds out how Aim behaves where public sources are silent.

    Raises SettingsError if the settings do not allow a client of Aim.
    """
    count = len(settings.profiles)
    findings = [
        Finding(Severity.OK, "settings", f"{count} profile{'' if count == 1 else 's'}, aim.api {settings.aim.api}")
    ]
    findings += [
        warning(
            f"settings, profile {name}",
            "it has no hooks: its exchanges pass without a question to Aim",
            f"set profiles.{name}.hooks: [pre_call, output]",
        )
        for name, profile in settings.profiles.items()
        if not profile.hooks
    ]
    findings += await check_aim(settings, probes=probes)
    if envoy is not None:
        findings += await check_envoy(settings, envoy)
    return findings
