from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perpwatch.alert.pacing import Limit, Pacer
from perpwatch.alert.turns import Turns
from perpwatch.errors import DeliveryFailed
from perpwatch.sim.clock import run_virtual

SERVICE = (Limit(30, 1.0),)
CHAT = (Limit(1, 1.0),)
GROUP = (Limit(1, 1.0), Limit(20, 60.0))
#: Small ones, so that random schedules meet all of them.
TIGHT = (Limit(4, 1.0), Limit(7, 5.0))


def limits_of(destination: str) -> Sequence[Limit]:
    return GROUP if destination.startswith("-") else CHAT


def most_within(times_s: Sequence[float], seconds: float) -> int:
    """The most events within any half-open window of that length."""
    ordered = sorted(times_s)
    return max((sum(first <= one < first + seconds for one in ordered) for first in ordered), default=0)


calls = st.tuples(
    st.sampled_from(["1", "2", "-3", "-4"]),
    st.floats(0.0, 3.0),  # seconds until somebody wants to call again
    st.floats(0.0, 4.0),  # how long the call takes
    st.floats(0.0, 1.0),  # when within it the service receives it
    st.sampled_from([None, None, None, 0.5, 7.0]),  # the pause that its answer asks for
)


@given(st.lists(calls, max_size=60), st.sampled_from([SERVICE, TIGHT]))
def test_no_schedule_exceeds_a_limit_as_the_receiver_counts(
    wanted: list[tuple[str, float, float, float, float | None]], service: tuple[Limit, ...]
) -> None:
    pacer = Pacer(service, limits_of)
    now_s = 1_000.0
    received: dict[str, list[float]] = {}
    under_way: list[tuple[float, float | None, object]] = []

    def answer_until(time_s: float) -> None:
        for end_s, pause_s, call in sorted(under_way, key=lambda one: one[0]):
            if end_s <= time_s:
                under_way.remove((end_s, pause_s, call))
                pacer.end(call, end_s)  # type: ignore[arg-type]
                if pause_s is not None:
                    pacer.hold(call.destination, end_s, pause_s)  # type: ignore[attr-defined]

    for destination, gap_s, length_s, share, pause_s in wanted:
        now_s += gap_s
        answer_until(now_s)
        while (free_s := pacer.free_at_s(destination)) > now_s:
            now_s = min(free_s, *(end_s for end_s, _, _ in under_way)) if under_way else free_s
            answer_until(now_s)
        received.setdefault(destination, []).append(now_s + share * length_s)
        under_way.append((now_s + length_s, pause_s, pacer.begin(destination, now_s)))
    for destination, times_s in received.items():
        for limit in limits_of(destination):
            assert most_within(times_s, limit.seconds) <= limit.calls
    for limit in service:
        assert most_within([one for times_s in received.values() for one in times_s], limit.seconds) <= limit.calls


def test_calls_that_are_answered_at_once_use_all_that_is_allowed() -> None:
    pacer = Pacer(SERVICE, limits_of)
    now_s, sent = 0.0, list[float]()
    while len(sent) < 41:
        now_s = max(now_s, pacer.free_at_s("-100"))
        pacer.end(pacer.begin("-100", now_s), now_s)
        sent.append(now_s)
    assert sent[:20] == [float(second) for second in range(20)]
    assert (sent[20], sent[40]) == (60.0, 120.0)


def test_a_call_under_way_counts_until_it_is_answered_and_then_as_new() -> None:
    pacer = Pacer(SERVICE, limits_of)
    call = pacer.begin("7", 10.0)
    assert pacer.free_at_s("7") == math.inf
    assert pacer.free_at_s("8") <= 10.0
    pacer.end(call, 14.5)
    assert pacer.free_at_s("7") == 15.5


def test_thirty_calls_to_as_many_chats_fill_the_second_of_the_service() -> None:
    pacer = Pacer(SERVICE, limits_of)
    flying = [pacer.begin(str(chat), 5.0) for chat in range(30)]
    assert pacer.free_at_s("31") == math.inf
    pacer.end(flying[0], 5.25)
    assert pacer.free_at_s("31") == 6.25


def test_a_pause_asked_for_one_chat_leaves_the_others_alone() -> None:
    pacer = Pacer(SERVICE, limits_of)
    pacer.end(pacer.begin("-1", 0.0), 0.1)
    pacer.hold("-1", 0.1, 12.0)
    assert pacer.free_at_s("-1") == 12.1
    assert pacer.free_at_s("2") <= 0.1


def test_a_second_chat_that_is_told_to_pause_meanwhile_stops_the_whole_service() -> None:
    pacer = Pacer(SERVICE, limits_of)
    for chat, now_s in (("-1", 0.0), ("-2", 5.0)):
        pacer.end(pacer.begin(chat, now_s), now_s)
        pacer.hold(chat, now_s, 12.0)
    assert pacer.free_at_s("3") == 17.0


def test_destinations_are_forgotten_only_when_nothing_counts_any_more() -> None:
    pacer = Pacer((), limits_of)
    for second in range(20):
        pacer.end(pacer.begin("-1", second), second)
    for chat in range(5_000):
        now_s = 20.0 + chat / 200.0
        pacer.end(pacer.begin(f"user {chat}", now_s), now_s)
    assert pacer.free_at_s("-1") == 60.0, "the first call counts for a minute, however many others there were"


def test_calls_of_an_earlier_run_count_in_whatever_order_they_are_recalled() -> None:
    pacer = Pacer(SERVICE, limits_of)
    for second in (*range(10, 20), *range(10)):
        pacer.recall("-1", float(second))
    assert pacer.free_at_s("-1") == 60.0
    pacer.end(pacer.begin("-1", 60.0), 60.0)
    assert pacer.free_at_s("-1") == 61.0


def test_turns_come_in_order_and_a_pause_is_obeyed_for_everybody() -> None:
    async def scenario() -> list[tuple[str, float]]:
        loop = asyncio.get_running_loop()
        turns, log = Turns(Pacer(SERVICE, limits_of), loop.time), list[tuple[str, float]]()

        async def call(name: str, chat: str, error: DeliveryFailed | None = None) -> None:
            async with turns.turn(chat):
                log.append((name, loop.time()))
                await asyncio.sleep(0.5)
                if error is not None:
                    raise error

        asked = DeliveryFailed("too many", retry_after_s=10.0, is_whole_service=True)
        results = await asyncio.gather(
            call("first", "-1"),
            call("second", "-1", asked),
            call("third", "-1"),
            call("elsewhere", "5"),
            return_exceptions=True,
        )
        assert [*results] == [None, asked, None, None]
        await call("later", "6")
        return log

    log = run_virtual(scenario())
    assert log == [
        ("first", 0.0),
        ("elsewhere", 0.0),
        ("second", 1.5),
        ("third", pytest.approx(12.0)),
        ("later", pytest.approx(12.5)),
    ]


def test_a_turn_that_is_cancelled_while_it_waits_holds_nobody_up() -> None:
    async def scenario() -> float:
        loop = asyncio.get_running_loop()
        turns = Turns(Pacer(SERVICE, limits_of), loop.time)
        async with turns.turn("1"):
            pass
        waiting = asyncio.create_task(turns.turn("1").__aenter__())
        await asyncio.sleep(0.2)
        waiting.cancel()
        await asyncio.wait([waiting])
        async with turns.turn("1"):
            return loop.time()

    assert run_virtual(scenario()) == pytest.approx(1.0)
