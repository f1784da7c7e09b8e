"""The room of a process: which exchanges give something up if too much is held, and that nothing is lost count of."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.config.settings import Limits
from extproc.processor.load import Load, Share

LIMIT = 64_000


def load() -> Load:
    return Load(lambda: Limits(total_held_bytes=LIMIT))


class Holder:
    """An exchange that holds `size` bytes and, on demand, gives up those that it offers."""

    def __init__(self, load: Load, size: int = 0, *, offers: bool = True, is_first: bool = False) -> None:
        self.demands = 0
        self.frees = True
        self.offers = offers
        self.share: Share = load.share(self.demanded, is_first=is_first)
        self.hold(size)

    def hold(self, size: int) -> None:
        self.share.hold(size, size if self.offers else 0)

    def demanded(self) -> None:
        self.demands += 1
        self.share.hold(0 if self.frees else self.share.held, 0)


def test_fullest_gives_way_and_no_more_than_necessary() -> None:
    room = load()
    holders = [Holder(room, size) for size in (10_000, 40_000, 20_000)]
    room.make_room()
    assert [holder.demands for holder in holders] == [0, 1, 0]
    assert room.held_bytes == 30_000


def test_the_oldest_of_equals_gives_way() -> None:
    room = load()
    holders = [Holder(room, 30_000) for _ in range(3)]
    room.make_room()
    assert [holder.demands for holder in holders] == [1, 0, 0]


def test_nobody_gives_way_at_the_limit() -> None:
    room = load()
    holder = Holder(room, LIMIT)
    room.make_room()
    assert holder.demands == 0
    holder.hold(LIMIT + 1)
    room.make_room()
    assert holder.demands == 1


def test_dry_runs_give_way_first() -> None:
    room = load()
    stream, dry_runs = Holder(room, 40_000), [Holder(room, size, is_first=True) for size in (10_000, 20_000)]
    room.make_room()
    assert (stream.demands, [dry_run.demands for dry_run in dry_runs]) == (0, [0, 1])
    stream.hold(LIMIT + 1)
    room.make_room()
    assert (stream.demands, [dry_run.demands for dry_run in dry_runs]) == (1, [1, 1])


def test_small_streams_stay_beside_large_bodies() -> None:
    room = load()
    Holder(room, 2 * LIMIT, offers=False)
    small = [Holder(room, LIMIT // 64) for _ in range(8)]
    room.make_room()
    assert sum(holder.demands for holder in small) == 4  # what is left is a 16th of the limit
    assert room.stream_bytes == LIMIT // 16
    room.make_room()
    assert sum(holder.demands for holder in small) == 4


def test_what_is_given_up_but_not_yet_sent_does_not_cost_others_their_room() -> None:
    room = load()
    first, second, third = (Holder(room, size) for size in (30_000, 20_000, 10_000))
    first.frees = second.frees = False  # they fail open, and Envoy has not yet taken what they released
    third.hold(15_000)
    room.make_room()
    assert (first.demands, second.demands) == (1, 0)
    third.hold(15_500)
    room.make_room()
    assert second.demands == 0
    third.hold(17_000)  # Envoy takes nothing
    room.make_room()
    assert (second.demands, third.demands) == (1, 0)
    first.hold(0)
    room.make_room()
    assert room.held_bytes < LIMIT


def test_demand_while_others_are_asked_does_not_search_again() -> None:
    room = load()
    first = Holder(room, 60_000)
    second = Holder(room, 30_000)

    def demanded() -> None:
        first.demanded()
        room.make_room()

    first.share.leave()
    first.share = room.share(demanded, is_first=False)
    first.hold(60_000)
    room.make_room()
    assert (first.demands, second.demands) == (1, 0)


def test_exchange_that_has_left_is_asked_for_nothing() -> None:
    room = load()
    holder = Holder(room, LIMIT + 1)
    holder.share.leave()
    holder.share.yield_room()
    assert (room.held_bytes, room.stream_bytes, room.shares, holder.demands) == (0, 0, {}, 0)
    holder.share.leave()
    assert room.held_bytes == 0


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_no_order_of_growth_and_ends_loses_count(data: st.DataObject) -> None:
    room = load()
    holders: list[Holder] = []
    for _ in range(data.draw(st.integers(1, 30))):
        if not holders or data.draw(st.booleans()):
            is_first, offers = data.draw(st.booleans()), data.draw(st.booleans())
            holders.append(Holder(room, offers=offers or is_first, is_first=is_first))
        holder = data.draw(st.sampled_from(holders))
        if data.draw(st.integers(0, 3)):
            holder.hold(data.draw(st.integers(0, LIMIT)))
            room.make_room()
        else:
            holder.share.leave()
            holders.remove(holder)
        assert room.held_bytes == sum(each.share.held for each in holders)
        assert room.stream_bytes == sum(each.share.yields for each in holders if not each.share.is_first)
        assert room.first_bytes == sum(each.share.yields for each in holders if each.share.is_first)
        if room.held_bytes > LIMIT:  # only by what cannot be given up, the reserve of the streams, and a step
            assert room.first_bytes + room.stream_bytes <= LIMIT // 16 + LIMIT // 64
    for holder in holders:
        holder.share.leave()
    assert (room.held_bytes, room.stream_bytes, room.first_bytes) == (0, 0, 0)
