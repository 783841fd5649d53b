"""Blocking calls: what is given up may still succeed, and is then not made twice."""

from __future__ import annotations

import asyncio
import threading

import pytest

from perpwatch.alert.senders.worker import Worker
from perpwatch.errors import DeliveryFailed


class Door:
    """Work that waits until it is let through."""

    def __init__(self) -> None:
        self.calls = 0
        self.is_open = threading.Event()

    def pass_through(self) -> None:
        self.calls += 1
        self.is_open.wait(10)


async def test_work_is_done_in_another_thread_and_its_errors_are_told() -> None:
    worker, threads = Worker("there"), list[str]()
    await worker.run("a", lambda: threads.append(threading.current_thread().name), 5)
    assert threads == ["there"]

    def fail() -> None:
        raise DeliveryFailed("closed")

    for _ in range(2):
        with pytest.raises(DeliveryFailed, match="closed"):
            await worker.run("a", fail, 5)


async def test_a_call_that_was_given_up_is_waited_for_and_not_made_again() -> None:
    worker, door = Worker("there"), Door()
    with pytest.raises(DeliveryFailed, match=r"no answer within 0\.05 s"):
        await worker.run("a", door.pass_through, 0.05)
    with pytest.raises(DeliveryFailed, match="message before"):
        await worker.run("b", door.pass_through, 0.05)
    door.is_open.set()
    await worker.run("a", door.pass_through, 5)
    assert door.calls == 1
    await worker.run("b", door.pass_through, 5)
    await worker.run("a", door.pass_through, 5)
    assert door.calls == 3


async def test_a_call_whose_caller_went_away_is_not_made_again() -> None:
    worker, door = Worker("there"), Door()
    caller = asyncio.create_task(worker.run("a", door.pass_through, 5))
    await asyncio.sleep(0.05)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    door.is_open.set()
    await worker.run("a", door.pass_through, 5)
    assert door.calls == 1


async def test_an_answer_that_nobody_waits_for_does_not_stand_in_the_way() -> None:
    worker, door = Worker("there"), Door()
    with pytest.raises(DeliveryFailed):
        await worker.run("a", door.pass_through, 0.01)
    door.is_open.set()
    async with asyncio.timeout(5):
        while True:
            try:
                await worker.run("b", lambda: None, 1)
                break
            except DeliveryFailed:
                await asyncio.sleep(0.01)


def test_a_call_that_hangs_does_not_keep_the_loop_from_ending() -> None:
    door = Door()

    async def give_up() -> None:
        with pytest.raises(DeliveryFailed):
            await Worker("there").run("a", door.pass_through, 0.01)

    asyncio.run(give_up())
    door.is_open.set()
