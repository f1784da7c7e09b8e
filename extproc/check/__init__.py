"""`extproc check`: what stands in the way of guarding traffic, each finding in words: Aim, and a running Envoy."""

from __future__ import annotations

from extproc.check.aim import check_aim
from extproc.check.envoy import check_envoy
from extproc.check.finding import Finding, Severity, warning
from extproc.config.settings import Settings

__all__ = ["Finding", "Severity", "check"]


async def check(settings: Settings, envoy: str | None = None) -> list[Finding]:
    """Return what is found about `settings`, the Aim that they name and the Envoy whose admin URL is `envoy`, if any.

    Raises SettingsError for settings that no client of Aim can be made of.
    """
    count = len(settings.profiles)
    findings = [
        Finding(Severity.OK, "settings", f"{count} profile{'' if count == 1 else 's'}, aim.api {settings.aim.api}")
    ]
    findings += [
        warning(
            f"settings, profile {name}",
            "it has no hooks: whatever it is for passes without a question to Aim",
            f"set profiles.{name}.hooks: [pre_call, output]",
        )
        for name, profile in settings.profiles.items()
        if not profile.hooks
    ]
    findings += await check_aim(settings)
    if envoy is not None:
        findings += await check_envoy(settings, envoy)
    return findings
