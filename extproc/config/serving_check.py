"""Problems that only matter for serving: missing keys and unusable files. They are found beside all others."""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path
from threading import Thread
from typing import Any

from pydantic import SecretStr

from extproc.config.key_file import is_key
from extproc.config.profile import DEFAULT_PROFILE
from extproc.config.settings import Audit, Settings

_AUDIT_SECONDS = 1.0
"""How long to wait for the look at the audit file."""

_TLS_PAIR = ("tls.cert_file", "tls.key_file")


def problems_when_serving(settings: Settings, *, needs_key: bool = True) -> list[str]:
    """Return each problem as one line that begins with the name of its setting."""
    problems = problems_of_files(settings.model_dump(), needs_key=needs_key)
    if settings.listen.port + settings.workers - 1 > 65535:
        problems.insert(0, "workers: worker i listens on port+i, which exceeds 65535")
    return problems


def problems_of_files(data: Mapping[str, Any], *, needs_key: bool = True) -> list[str]:
    """Return the problems with keys and files of settings that need not be valid; `data` is nested as in the file."""
    aim, tls, audit = (_group(data, name) for name in ("aim", "tls", "audit"))
    profiles = {
        str(name): profile for name, profile in _group(data, "profiles").items() if isinstance(profile, Mapping)
    }
    profiles.setdefault(DEFAULT_PROFILE, {})
    problems = []
    own_keys = all(profile.get("api_key_file") is not None for profile in profiles.values())
    needs_key = needs_key and isinstance(data.get("aim"), Mapping | None)
    if needs_key and not (_has_text(aim.get("api_key")) or aim.get("api_key_file") is not None or own_keys):
        problems.append("aim.api_key: no key; set AIM_API_KEY or aim.api_key_file")
    if isinstance(audit.get("file"), str) and (problem := _audit_problem(Audit(file=audit["file"]))) is not None:
        problems.append(f"audit.file: {problem}")
    files = {
        "aim.api_key_file": aim.get("api_key_file"),
        "aim.ca_file": aim.get("ca_file"),
        "tls.cert_file": tls.get("cert_file"),
        "tls.key_file": tls.get("key_file"),
        "tls.client_ca_file": tls.get("client_ca_file"),
        "audit.key_file": audit.get("key_file"),
    } | {f"profiles.{name}.api_key_file": profile.get("api_key_file") for name, profile in profiles.items()}
    unusable = {
        setting: problem
        for setting, file in files.items()
        if isinstance(file, str | Path)
        for problem in _problems_of_file(Path(file), is_api_key=setting.endswith("api_key_file"))
    }
    problems += [f"{setting}: {problem}" for setting, problem in unusable.items()]
    certificate, key = (files[name] for name in _TLS_PAIR)
    if isinstance(certificate, str | Path) and isinstance(key, str | Path) and unusable.keys().isdisjoint(_TLS_PAIR):
        try:
            ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(certificate, key)
        except OSError:  # includes SSLError
            problems.append("tls.cert_file: the certificate does not match tls.key_file")
    return problems


def _group(data: Mapping[str, Any], name: str) -> Mapping[Any, Any]:
    group = data.get(name)
    return group if isinstance(group, Mapping) else {}


def _has_text(key: Any) -> bool:
    """Return whether there is a key. One of another type is a problem of its own."""
    value = key.get_secret_value() if isinstance(key, SecretStr) else key
    return bool(value.strip() if isinstance(value, str) else value)


def _problems_of_file(file: Path, *, is_api_key: bool) -> Iterator[str]:
    try:
        content = file.read_bytes().strip()
    except (OSError, ValueError) as error:
        yield f"cannot read {file}: {getattr(error, 'strerror', None) or error}"
    else:
        if not content:
            yield f"{file} is empty"
        elif is_api_key and not is_key(content.decode("latin-1")):
            yield f"{file} contains characters that an HTTP header cannot carry"


def _audit_problem(audit: Audit) -> str | None:
    """Return why lines cannot be written; None if they can, or if this takes too long, as on a mount that hangs.

    No audit log may prevent a start. Lines that cannot be written later are counted.
    """
    problems: list[str | None] = []
    looking = Thread(target=lambda: problems.append(audit.problem()), name="look at the audit file", daemon=True)
    looking.start()
    looking.join(_AUDIT_SECONDS)
    return problems[0] if problems else None
