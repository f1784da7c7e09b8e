"""Any JSON of an API that no dialect knows: all strings but the common names' are text."""

from __future__ import annotations

from extproc.core.dialects.base import Dialect
from extproc.core.dialects.rules import COMMON, Table


class Generic(Dialect):
    """The dialect; see `extproc.core.dialects.base.Dialect`. Refusals are OpenAI's."""

    name = "generic"
    request = answer = event = Table(*COMMON)
