"""How much the exchanges of one process hold, and which of them give something up if that is too much."""

from __future__ import annotations

from collections.abc import Callable

from extproc.config.settings import Limits

_STEP = 64
"""After a search for room that did not free enough, the next takes place once the offers have grown by a 64th of the
limit."""

_RESERVE = 16
"""Event streams that together hold less than a 16th of the limit are left alone. If large bodies fill the process, they
must not end all the streams beside them, which would free next to nothing."""


class Share:
    """What one exchange holds."""

    __slots__ = ("_load", "_yield_room", "held", "is_first", "yields")

    def __init__(self, load: Load, yield_room: Callable[[], None], *, is_first: bool) -> None:
        """Begin with nothing. `Load.share` makes shares."""
        self._load = load
        self._yield_room: Callable[[], None] | None = yield_room
        self.is_first = is_first
        """Whether this exchange gives up what it holds before any other does."""
        self.held = 0
        """Bytes that the exchange holds."""
        self.yields = 0
        """Bytes of them that it gives up on demand."""

    def hold(self, held: int, yields: int) -> None:
        """Count the exchange as holding `held` bytes from now on, of which it gives up `yields` on demand."""
        if held != self.held:
            self._load.held_bytes += held - self.held
            self.held = held
        if yields != self.yields:
            if self.is_first:
                self._load.first_bytes += yields - self.yields
            else:
                self._load.stream_bytes += yields - self.yields
            self.yields = yields

    def yield_room(self) -> None:
        """Tell the exchange to give up what it can."""
        if self._yield_room is not None:
            self._yield_room()

    def leave(self) -> None:
        """Give everything back: the exchange has ended."""
        self.hold(0, 0)
        self._yield_room = None  # frees the exchange
        self._load.shares.pop(self, None)


class Load:
    """The live streams and the held bytes of one process."""

    def __init__(self, limits: Callable[[], Limits]) -> None:
        """Begin with nothing. `limits` returns the limits in force, which a reload may change."""
        self._limits = limits
        self._is_searching = False
        self._left: int | None = None  # the offers after the last search, if it did not free enough
        self.streams = 0
        """gRPC streams that are open."""
        self.held_bytes = 0
        """Bytes that all exchanges hold."""
        self.first_bytes = 0
        """Bytes of them that dry runs give up on demand."""
        self.stream_bytes = 0
        """Bytes of them that event streams give up on demand."""
        self.shares: dict[Share, None] = {}
        """The share of each exchange, the oldest first."""

    @property
    def is_overloaded(self) -> bool:
        """Return whether more streams are open, or more bytes are held, than the limits allow."""
        limits = self._limits()
        return self.streams > limits.streams or self.held_bytes > limits.total_held_bytes

    def is_full(self, own: int) -> bool:
        """Return whether the exchanges beside one that holds `own` bytes leave no room."""
        others = self.held_bytes - own
        return others > 0 and others > self._limits().total_held_bytes

    def share(self, yield_room: Callable[[], None], *, is_first: bool) -> Share:
        """Return the share of a new exchange, which gives up what it can when `yield_room` is called."""
        share = Share(self, yield_room, is_first=is_first)
        self.shares[share] = None
        return share

    def make_room(self) -> None:
        """Let exchanges give up what they can until the limit is kept: dry runs first, then the fullest event streams.

        What an exchange offers counts as freed even if it first has to be sent: a stream that fails open.
        """
        if not (self.first_bytes or self.stream_bytes):
            self._left = None  # as most of the time
            return
        limit = self._limits().total_held_bytes
        if self.held_bytes <= limit:
            self._left = None
            return
        reserve = limit // _RESERVE
        if self._is_searching or not (self.first_bytes or self.stream_bytes > reserve):
            return
        offers = self.first_bytes + self.stream_bytes
        if self._left is not None:
            self._left = min(self._left, offers)
            if offers < self._left + limit // _STEP:
                return
        self._is_searching = True
        try:
            self._search(self.held_bytes - limit, reserve)
        finally:
            self._is_searching = False
            self._left = self.first_bytes + self.stream_bytes if self.held_bytes > limit else None

    def _search(self, excess: int, reserve: int) -> None:
        offers = sorted(
            (share for share in self.shares if share.yields),
            key=lambda share: (share.is_first, share.yields),
            reverse=True,
        )
        for share in offers:
            if excess <= 0 or not (share.is_first or self.stream_bytes > reserve):
                return
            excess -= share.yields
            share.yield_room()
