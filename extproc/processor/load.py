"""How much the exchanges of one process hold, and whether that leaves room for more."""

from __future__ import annotations

from collections.abc import Callable

from extproc.config.settings import Limits


class Load:
    """The live streams and the held bytes of one process."""

    def __init__(self, limits: Callable[[], Limits]) -> None:
        """Begin with nothing. `limits` returns the limits in force, which a reload may change."""
        self._limits = limits
        self.streams = 0
        """gRPC streams that are open."""
        self.held_bytes = 0
        """Bytes that all exchanges hold."""

    @property
    def is_overloaded(self) -> bool:
        """Return whether more streams are open, or more bytes are held, than the limits allow."""
        limits = self._limits()
        return self.streams > limits.streams or self.held_bytes > limits.total_held_bytes

    def is_full(self, own: int) -> bool:
        """Return whether the exchanges beside one that holds `own` bytes leave no room."""
        return self.held_bytes - own > self._limits().total_held_bytes

    def hold(self, size: int) -> None:
        """Count `size` more bytes as held; a negative size frees them."""
        self.held_bytes += size
