"""Pictures come from a process of their own, which may die or hang and never outlives the watch."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from perpwatch.alert.chart import Bar, Chart
from perpwatch.app.painter import Painter
from perpwatch.model import MINUTE_MS, Direction

CHART = Chart(
    symbol="BEAT_USDT",
    span="1 min",
    span_ms=MINUTE_MS,
    bars=[Bar(number * MINUTE_MS, 1.0, 1.1, 0.9, 1.0 + number / 100, 5.0) for number in range(20)],
    usual=(1.0, 6.0, 5.0),
    usual_word="usual",
    volume_word="Volume",
    signal_ms=15 * MINUTE_MS,
    price=1.15,
    ratio="3×",
    move="+1.00 %",
    direction=Direction.UP,
    utc_offset_s=0,
    zone="UTC",
)


def children() -> set[int]:
    """Processes that this one has started and that live."""
    return {int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()}


async def test_many_at_once_are_drawn_one_after_the_other() -> None:
    before = children()
    async with asyncio.timeout(60), Painter(deadline_s=30.0) as painter:
        await painter.start()
        charts = [replace(CHART, symbol=f"C{number}_USDT") for number in range(5)]
        pictures = await asyncio.gather(*map(painter.draw, charts))
        assert all(picture is not None and picture.startswith(b"\x89PNG") for picture in pictures)
        assert len(set(pictures)) == 5
        assert len(children() - before) == 1
    assert children() - before == set()


async def test_what_cannot_be_drawn_costs_one_picture(caplog: pytest.LogCaptureFixture) -> None:
    async with asyncio.timeout(60), Painter(deadline_s=30.0) as painter:
        assert await painter.draw(replace(CHART, bars=CHART.bars[:1])) is None
        assert "a card of BEAT_USDT has no picture: ValueError: a chart needs 5 candles, not 1" in caplog.text
        assert await painter.draw(CHART) is not None


async def test_a_process_that_dies_is_replaced(caplog: pytest.LogCaptureFixture) -> None:
    before = children()
    async with asyncio.timeout(60), Painter(deadline_s=30.0) as painter:
        assert await painter.draw(CHART) is not None
        (pid,) = children() - before
        os.kill(pid, signal.SIGKILL)
        pictures = [await painter.draw(CHART), await painter.draw(CHART)]
        assert pictures[-1] is not None


async def test_a_process_that_hangs_costs_the_deadline_and_is_replaced(caplog: pytest.LogCaptureFixture) -> None:
    before = children()
    async with asyncio.timeout(60), Painter(deadline_s=2.0) as painter:
        await painter.start()
        (pid,) = children() - before
        os.kill(pid, signal.SIGSTOP)
        began = time.monotonic()
        assert await painter.draw(CHART) is None
        assert 1.9 < time.monotonic() - began < 20.0
        assert "a card of BEAT_USDT has no picture: TimeoutError" in caplog.text
        assert pid not in children()
        # A busy machine may need more than one deadline for it.
        assert any([await painter.draw(CHART) is not None for _ in range(5)])


async def test_a_card_that_is_given_up_leaves_no_answer_to_the_next() -> None:
    async with asyncio.timeout(60), Painter(deadline_s=30.0) as painter:
        await painter.start()
        given_up = asyncio.create_task(painter.draw(replace(CHART, symbol="OTHER_USDT")))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        given_up.cancel()
        await asyncio.wait([given_up])
        first, second = await painter.draw(CHART), await painter.draw(CHART)
        assert first == second is not None


async def test_without_a_python_there_are_no_pictures_and_no_errors(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    caplog.set_level(logging.WARNING)
    async with asyncio.timeout(20), Painter(deadline_s=30.0) as painter:
        await painter.start()
        assert await painter.draw(CHART) is None
    assert "no pictures for now" in caplog.text


async def test_a_painter_that_is_left_at_once_leaves_no_process() -> None:
    before = children()
    async with asyncio.timeout(20):
        async with Painter():
            pass
        async with Painter():
            await asyncio.sleep(0.1)
    assert children() - before == set()


@pytest.fixture
def watch() -> Iterator[subprocess.Popen[bytes]]:
    """A program that has a painter and says its process."""
    program = (
        "import asyncio\n"
        "from perpwatch.app.painter import Painter\n"
        "async def main():\n"
        "    painter = Painter()\n"
        "    await painter.start()\n"
        "    print(painter.pid, flush=True)\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_no_process_is_left_when_the_watch_is_killed(watch: subprocess.Popen[bytes]) -> None:
    assert watch.stdout is not None
    pid = int(watch.stdout.readline())
    os.kill(pid, 0)
    watch.kill()
    watch.wait(10)
    for _ in range(200):
        status = Path(f"/proc/{pid}/stat")
        # An orphan that has ended may wait for whoever adopted it.
        if not status.exists() or status.read_text().rpartition(")")[2].split()[0] == "Z":
            return
        time.sleep(0.05)
    pytest.fail("the painter outlived the watch by 10 s")
