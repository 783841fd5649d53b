"""A bounded queue of batches with one reader."""

from __future__ import annotations

import asyncio

import pytest

from perpwatch.feed.outbox import Outbox, Turns
from perpwatch.model import Batch, Candle, CandleHistory, Finality, Kind, Stream, StreamUp, Timeframe, Trust

EVENT = StreamUp(Stream(Kind.TICKERS), "ws-1", 0)


def batch(number: int, events: int = 1) -> Batch:
    return Batch("ws-1", number, 0, [EVENT] * events)


async def put(outbox: Outbox, one: Batch) -> None:
    """As those put who can wait."""
    await outbox.room()
    outbox.put(one)


async def test_batches_come_out_in_the_order_they_went_in() -> None:
    outbox = Outbox()
    for number in range(3):
        outbox.put(batch(number))
    assert [one.received_time_ns for one in await outbox.take()] == [0, 1, 2]
    assert outbox.waiting_events == 0


async def test_a_full_outbox_makes_sources_wait_and_loses_nothing() -> None:
    outbox = Outbox(max_events=4)
    putting = [asyncio.create_task(put(outbox, batch(number, events=2))) for number in range(5)]
    await asyncio.sleep(0)
    assert outbox.waiting_events == 4
    taken: list[int] = []
    async with asyncio.timeout(1):
        while len(taken) < 5:
            taken += [one.received_time_ns for one in await outbox.take()]
    assert sorted(taken) == [0, 1, 2, 3, 4]
    await asyncio.gather(*putting)


async def test_an_empty_batch_takes_room() -> None:
    outbox = Outbox(max_events=2)
    outbox.put(batch(0, events=0))
    await put(outbox, batch(1, events=0))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await outbox.room()


async def test_histories_that_nobody_has_learned_keep_others_from_being_read() -> None:
    candle = Candle("BTC_USDT", Timeframe.Min1, 0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, Finality.REST, Trust.VERIFIED)
    history = Batch("rest", 0, 0, [CandleHistory("BTC_USDT", [candle] * 1_000, 0, 60_000_000)])
    outbox = Outbox(max_events=50_000)
    putting = [asyncio.create_task(put(outbox, history)) for _ in range(4)]
    await asyncio.sleep(0)
    assert sum(one.done() for one in putting) == 3
    async with asyncio.timeout(1):
        assert len(await outbox.take()) == 3
        await asyncio.gather(*putting)


async def test_closing_frees_those_who_wait_and_still_gives_what_is_inside() -> None:
    outbox = Outbox(max_events=1)
    outbox.put(batch(0))
    waiting = asyncio.create_task(put(outbox, batch(1)))
    await asyncio.sleep(0)
    outbox.close()
    async with asyncio.timeout(1):
        await waiting
        assert [one.received_time_ns for one in await outbox.take()] == [0]
        assert await outbox.take() == []


async def test_a_reader_that_waits_is_woken_by_the_end() -> None:
    outbox = Outbox()
    reading = asyncio.create_task(outbox.take())
    await asyncio.sleep(0)
    outbox.close()
    async with asyncio.timeout(1):
        assert await reading == []


async def test_a_read_is_digested_before_the_next_source_decodes() -> None:
    outbox, story = Outbox(), list[str]()

    async def source(name: str) -> None:
        for number in range(3):
            async with outbox.turns:
                story.append(f"decode {name}{number}")
                outbox.put(batch(number))

    async def read() -> None:
        while len(story) < 12:
            story.extend(["digest"] * len(await outbox.take()))

    async with asyncio.timeout(10.0), asyncio.TaskGroup() as tasks:
        tasks.create_task(read())
        for name in "ab":
            tasks.create_task(source(name))
    assert story[1::2] == ["digest"] * 6
    assert sorted(story[::2]) == sorted(f"decode {name}{number}" for name in "ab" for number in range(3))


async def test_a_source_that_fails_or_is_cancelled_in_its_turn_keeps_nobody_waiting() -> None:
    outbox = Outbox(max_events=1)
    outbox.put(batch(0))

    async def waits_for_room() -> None:
        async with outbox.turns:
            outbox.put(batch(1))

    cancelled = asyncio.create_task(waits_for_room())
    await asyncio.sleep(0)
    cancelled.cancel()
    await asyncio.gather(cancelled, return_exceptions=True)
    assert len(await outbox.take()) == 1
    with pytest.raises(ValueError, match="of the wire"):
        async with outbox.turns:
            raise ValueError("a mistake of the wire")
    async with asyncio.timeout(10.0), outbox.turns:
        pass


# --- At once ---------------------------------------------------------------------------------------------------------


async def test_while_the_reader_waits_batches_are_digested_without_waking_it() -> None:
    outbox, digested = Outbox(), list[int]()

    def digest(one: Batch) -> bool:
        if one.received_time_ns == 2:
            return False
        digested.append(one.received_time_ns)
        return True

    outbox.at_once = digest
    outbox.put(batch(0))  # nobody waits yet
    assert not outbox.turns.is_free
    assert [one.received_time_ns for one in await outbox.take()] == [0]
    reading = asyncio.create_task(outbox.take())
    await asyncio.sleep(0)
    assert outbox.turns.is_free
    for number in range(1, 5):
        outbox.put(batch(number))
    # The second is left to the reader, and who comes behind it does not overtake.
    assert digested == [1]
    assert not outbox.turns.is_free
    assert [one.received_time_ns for one in await reading] == [2, 3, 4]


async def test_what_is_put_while_a_batch_is_digested_at_once_comes_behind_it() -> None:
    outbox, digested = Outbox(), list[int]()

    def digest(one: Batch) -> bool:
        outbox.put(batch(one.received_time_ns + 1))
        digested.append(one.received_time_ns)
        return True

    outbox.at_once = digest
    reading = asyncio.create_task(outbox.take())
    await asyncio.sleep(0)
    outbox.put(batch(7))
    assert digested == [7]
    assert [one.received_time_ns for one in await reading] == [8]


async def test_what_goes_wrong_at_once_reaches_the_reader() -> None:
    outbox, digested = Outbox(), list[int]()

    def digest(one: Batch) -> bool:
        digested.append(one.received_time_ns)
        raise ZeroDivisionError(f"batch {one.received_time_ns}")

    outbox.at_once = digest
    reading = asyncio.create_task(outbox.take())
    await asyncio.sleep(0)
    outbox.put(batch(7))
    outbox.put(batch(8))
    with pytest.raises(ZeroDivisionError, match="batch 7"):
        await reading
    assert digested == [7]


async def test_whoever_has_a_turn_keeps_others_from_digesting_at_once() -> None:
    turns = Turns()
    assert turns.is_free
    async with turns:
        assert not turns.is_free
    assert not turns.is_free  # the reader comes first
    await asyncio.sleep(0)
    assert turns.is_free
