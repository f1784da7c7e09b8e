"""Any JSON of an API that no dialect knows: all strings but the common names' are text."""

from __future__ import annotations

from extproc.core.dialects.base import Dialect
from extproc.core.dialects.rules import COMMON, Table, inert, opaque, url

_NAMES = (
    inert(
        "**.*Id",
        "**.*Reason",
        "**.*Time",
        "**.*Type",
        "**.jsonrpc",
        "**.modality",
        "**.owned_by",
        "**.service_tier",
        "**.serviceTier",
    ),
    url("**.*Uri", "**.*Url"),
    opaque("**.encrypted_content", "**.next_page_token", "**.nextPageToken", "**.signature", "**.thoughtSignature"),
)
"""Further names that mean the same in most APIs, above all in camelCase."""


class Generic(Dialect):
    """The dialect; see `extproc.core.dialects.base.Dialect`. Refusals are OpenAI's."""

    name = "generic"
    request = answer = event = Table(*COMMON, *_NAMES)
