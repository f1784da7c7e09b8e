"""Addresses to listen on, as the settings and the command line spell them."""

from __future__ import annotations

import os
import re

from pydantic import BaseModel, ConfigDict, StrictInt

_PATH_BYTES = 100
"""Linux allows 107 bytes, and a worker appends its number."""


class Address(BaseModel):
    """An address to listen on: a TCP host and port, or the path of a unix socket."""

    model_config = ConfigDict(frozen=True)

    host: str = ""
    port: StrictInt = 0
    path: str = ""

    @classmethod
    def parse(cls, text: str) -> Address:
        """Parse `host:port`, `[v6]:port` or `unix:/path`.

        Raises ValueError, with a message for the operator, for any other text.
        """
        if text.startswith("unix:"):
            path = text.removeprefix("unix:")
            if not path.startswith("/") or path.endswith("/"):
                raise ValueError("a unix socket is written unix:/absolute/path")
            if len(os.fsencode(path)) > _PATH_BYTES:
                raise ValueError(f"the path of a unix socket has at most {_PATH_BYTES} bytes")
            return cls(path=path)
        match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.%]+)\]|([^:\s/\[\]]+)):(\d{1,5})", text)
        if match is None or int(match[3]) > 65535:
            raise ValueError("an address is host:port, [host]:port or unix:/path")
        return cls(host=match[1] or match[2], port=int(match[3]))

    def for_worker(self, worker: int) -> Address:
        """Return the address of worker `worker`, counted from 0: port+i, or <socket>-i from the second on."""
        if not worker:
            return self
        if self.path:
            return Address(path=f"{self.path}-{worker}")
        return Address(host=self.host, port=self.port + worker)

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def unaddressed(error: OSError) -> str:
    """Return why listening failed, without the address that Python adds to the message."""
    return str(error.strerror).partition(" (while")[0]
