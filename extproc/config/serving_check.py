"""Problems that only matter for serving, although the settings are valid: missing keys and unusable files."""

from __future__ import annotations

import ssl
from threading import Thread

from extproc.config.key_file import is_key
from extproc.config.settings import Audit, Settings

_AUDIT_SECONDS = 1.0
"""How long to wait for the look at the audit file."""


def problems_when_serving(settings: Settings) -> list[str]:
    """Return each problem as one line that begins with the name of its setting."""
    problems = []
    if settings.listen.port + settings.workers - 1 > 65535:
        problems.append("workers: worker i listens on port+i, which exceeds 65535")
    own_keys = all(profile.api_key_file for profile in settings.profiles.values())
    if not (settings.aim.api_key.get_secret_value() or settings.aim.api_key_file or own_keys):
        problems.append("aim.api_key: no key; set AIM_API_KEY or aim.api_key_file")
    if (problem := _audit_problem(settings.audit)) is not None:
        problems.append(f"audit.file: {problem}")
    files = {
        "aim.api_key_file": settings.aim.api_key_file,
        "aim.ca_file": settings.aim.ca_file,
        "tls.cert_file": settings.tls.cert_file,
        "tls.key_file": settings.tls.key_file,
        "tls.client_ca_file": settings.tls.client_ca_file,
        "audit.key_file": settings.audit.key_file,
    } | {f"profiles.{name}.api_key_file": profile.api_key_file for name, profile in settings.profiles.items()}
    for setting, file in files.items():
        if file is not None:
            try:
                content = file.read_bytes().strip()
                if not content:
                    problems.append(f"{setting}: {file} is empty")
                elif setting.endswith("api_key_file") and not is_key(content.decode("latin-1")):
                    problems.append(f"{setting}: {file} contains characters that an HTTP header cannot carry")
            except (OSError, ValueError) as error:
                problems.append(f"{setting}: cannot read {file}: {getattr(error, 'strerror', None) or error}")
    if not problems and settings.tls.cert_file is not None and settings.tls.key_file is not None:
        try:
            ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(
                settings.tls.cert_file, settings.tls.key_file
            )
        except OSError:  # includes SSLError
            problems.append("tls.cert_file: the certificate does not match tls.key_file")
    return problems


def _audit_problem(audit: Audit) -> str | None:
    """Return why lines cannot be written; None if they can, or if this takes too long, as on a mount that hangs.

    No audit log may prevent a start. Lines that cannot be written later are counted.
    """
    problems: list[str | None] = []
    looking = Thread(target=lambda: problems.append(audit.problem()), name="look at the audit file", daemon=True)
    looking.start()
    looking.join(_AUDIT_SECONDS)
    return problems[0] if problems else None
