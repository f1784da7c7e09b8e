"""Puts the settings of one source over those of another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from extproc.config.model import Model
from extproc.config.profile import for_both_legs
from extproc.config.settings import Settings

ORDERED = ("paths", "models")
"""The maps of a profile in which the first match wins. They are replaced as a whole: merged, they would have an order
that neither source has."""

_GROUPS = {name for name, field in Settings.model_fields.items() if isinstance(field.default, Model)} | {"profiles"}

_KEYS = ("api_key", "api_key_file")


def layered(above: Mapping[str, Any], below: Mapping[str, Any]) -> dict[str, Any]:
    """Return `below` with the settings of `above` in its place; both as they are written, and not checked.

    A key or key file in `above` replaces both in `below`, so that a key there does not win over the key file.
    """
    aim, own = below.get("aim"), above.get("aim")
    if isinstance(aim, Mapping) and isinstance(own, Mapping) and any(name in own for name in _KEYS):
        below = {**below, "aim": {name: value for name, value in aim.items() if name not in _KEYS}}
    merged: dict[str, Any] = _merged(above, below, ())
    return merged


def _merged(above: Any, below: Any, path: tuple[Any, ...]) -> Any:
    match path:
        case (_,) | ("profiles", _) if path[0] in _GROUPS and not isinstance(below, Mapping | None):
            return below  # a problem, which nothing above may hide
        case ("profiles", _, "failure_mode_allow") if isinstance(above, Mapping):
            below = for_both_legs(below)
        case ("profiles", _, name) if name in ORDERED:
            return above
    if not isinstance(above, Mapping) or not isinstance(below, Mapping):
        return above
    added = {
        name: _merged(value, below[name], (*path, name)) if name in below else value for name, value in above.items()
    }
    return {**below, **added}
