"""REST under one budget: in virtual time over a scripted line, and over real sockets on the loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from aiohttp import web

from perpwatch.errors import ApiError, ProtocolError, RateLimited, RequestFailed
from perpwatch.exchanges.adapter import Request
from perpwatch.feed import rest as feed_rest
from perpwatch.feed.breaker import BreakerState
from perpwatch.feed.connection import SystemClock
from perpwatch.feed.rest import TIMEOUT_S, Priority, RestClient, http_over_network
from perpwatch.sim import Clock, run_virtual

URL = "https://api.example"


@dataclass
class Answer:
    status: int = 200
    body: bytes = b"ok"
    headers: Mapping[str, str] = field(default_factory=dict)


class Line:
    """Answers what it is told to, in order; the last answer again and again. Notes when it was asked for what."""

    def __init__(self, *answers: Answer | Exception | None) -> None:
        self.answers = list(answers) or [Answer()]
        self.asked: list[tuple[float, str]] = []

    async def get(self, url: str, params: Mapping[str, str | int]) -> Answer:
        self.asked.append((round(asyncio.get_running_loop().time(), 3), url.removeprefix(URL)))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer is None:
            await asyncio.get_running_loop().create_future()
        if isinstance(answer, Exception):
            raise answer
        assert isinstance(answer, Answer)
        return answer


def parse(body: bytes) -> str:
    match body:
        case b"510":
            raise RateLimited(URL, "code 510", 10.0)
        case b"1001":
            raise ApiError(1001, "Contract does not exist")
        case b"" | b"<html>" | b'{"data":[':
            raise ProtocolError("not JSON", body)
    return body.decode()


def request(path: str = "/x", endpoint: str = "x", weight: float = 1.0) -> Request[str]:
    return Request(endpoint, path, parse, weight=weight)


def client(line: Line, rate: float = 5.0) -> RestClient:
    return RestClient(URL + "/", line.get, Clock.starting_at(0), rate)


async def outcome(rest: RestClient, asked: Request[str], priority: Priority = Priority.POLL) -> object:
    try:
        return await rest.fetch(asked, priority)
    except Exception as error:
        return type(error).__name__


def test_calls_are_paced_and_the_most_urgent_go_first() -> None:
    async def story() -> None:
        line = Line()
        rest = client(line)
        order = [Priority.POLL, Priority.AUDIT, Priority.CONTROL, Priority.REPAIR, Priority.CONTROL]
        calls = [rest.fetch(request(f"/{at}"), priority) for at, priority in enumerate(order)]
        assert await asyncio.gather(*calls) == ["ok"] * 5
        assert line.asked == [(0.0, "/2"), (0.2, "/4"), (0.4, "/3"), (0.6, "/0"), (0.8, "/1")]

    run_virtual(story())


def test_a_weighty_call_costs_more() -> None:
    async def story() -> None:
        line = Line()
        rest = client(line)
        await asyncio.gather(*[rest.fetch(request(weight=5.0), Priority.POLL) for _ in range(3)])
        assert [at_s for at_s, _ in line.asked] == [0.0, 1.0, 2.0]

    run_virtual(story())


def test_code_510_pauses_everything_slows_down_and_is_forgotten_step_by_step() -> None:
    async def story() -> None:
        line = Line(Answer(body=b"510"), Answer())
        rest = client(line)
        assert await outcome(rest, request()) == "RateLimited"
        assert await asyncio.gather(*[outcome(rest, request(endpoint=f"{at}")) for at in range(3)]) == ["ok"] * 3
        assert line.asked[1][0] == 10.0
        assert line.asked[2][0] - line.asked[1][0] == pytest.approx(1 / 3, abs=0.01)
        assert rest.rate == pytest.approx(3.0 + 3 * 0.025)
        assert rest.breaker_state("x") is BreakerState.CLOSED

    run_virtual(story())


@pytest.mark.parametrize(
    ("header", "pause_s"), [("7", 7.0), ("", 10.0), ("soon", 10.0), ("\u00b2", 10.0), ("9" * 400, 600.0)]
)
def test_http_429_is_waited_out(header: str, pause_s: float) -> None:
    async def story() -> None:
        line = Line(Answer(429, b"", {"retry-after": header}), Answer())
        rest = client(line)
        assert await outcome(rest, request()) == "RateLimited"
        assert await outcome(rest, request()) == "ok"
        assert line.asked[1][0] == pytest.approx(pause_s)

    run_virtual(story())


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (Answer(body=b"<html>"), "not JSON"),
        (Answer(body=b""), "not JSON"),
        (Answer(body=b'{"data":['), "not JSON"),
        (Answer(302, b"", {"location": "https://blocked.example"}), "redirected to https://blocked.example"),
        (Answer(403), "forbidden"),
        (Answer(500), "HTTP 500"),
        (None, f"no answer within {TIMEOUT_S:g} s"),
        (RequestFailed(URL, "connection reset"), "connection reset"),
    ],
)
def test_an_answer_of_no_use_is_a_failed_request(answer: Answer | Exception | None, text: str) -> None:
    async def story() -> None:
        rest = client(Line(answer))
        with pytest.raises(RequestFailed, match=text):
            await rest.fetch(request(), Priority.POLL)
        assert rest.counters.failures == 1

    run_virtual(story())


def test_each_endpoint_has_a_breaker_of_its_own() -> None:
    async def story() -> None:
        line = Line(*[Answer(500)] * 5, Answer())
        rest = client(line)
        for _ in range(5):
            assert await outcome(rest, request()) == "RequestFailed"
        with pytest.raises(RequestFailed, match="not asked: x fails repeatedly"):
            await rest.fetch(request(), Priority.POLL)
        assert await outcome(rest, request(endpoint="y")) == "ok"
        assert len(line.asked) == 6
        await asyncio.sleep(5)
        assert await outcome(rest, request()) == "ok"
        assert rest.breaker_state("x") is BreakerState.CLOSED

    run_virtual(story())


def test_a_refusal_with_reason_is_a_good_sign() -> None:
    async def story() -> None:
        rest = client(Line(Answer(body=b"1001")))
        for _ in range(9):
            assert await outcome(rest, request()) == "ApiError"
        assert rest.breaker_state("x") is BreakerState.CLOSED
        assert rest.counters.api_errors == 9

    run_virtual(story())


def test_a_caller_that_goes_away_gives_its_turn_and_its_try_back() -> None:
    async def story() -> None:
        line = Line(*[Answer(500)] * 5, None, Answer())
        rest = client(line)
        for _ in range(5):
            await outcome(rest, request())
        await asyncio.sleep(5)
        trying = asyncio.create_task(outcome(rest, request()))
        await asyncio.sleep(1)
        trying.cancel()
        waiting = [asyncio.create_task(outcome(rest, request(f"/{at}"))) for at in range(3)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        assert await outcome(rest, request(endpoint="y")) == "ok"
        await asyncio.sleep(60)
        assert await outcome(rest, request()) == "ok"
        assert rest.waiting == 0

    run_virtual(story())


# --- Over real sockets -----------------------------------------------------------------------------------------------


@asynccontextmanager
async def serving(answer: Callable[[web.Request], web.StreamResponse]) -> AsyncIterator[str]:
    async def reply(asked: web.Request) -> web.StreamResponse:
        return answer(asked)

    app = web.Application()
    app.router.add_get("/{path:.*}", reply)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    try:
        async with asyncio.timeout(10):
            yield f"http://{host}:{port}"
    finally:
        await runner.cleanup()


async def test_a_large_body_arrives_whole() -> None:
    """The contract list is 2.3 MB and comes in many pieces."""
    body = b"x" * 2_300_000
    async with serving(lambda asked: web.Response(body=body)) as url, http_over_network() as get:
        answer = await get(url + "/detail", {"a": 1})
        assert (answer.status, answer.body == body) == (200, True)


async def test_a_body_without_end_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_rest, "MAX_BODY_BYTES", 100_000)
    async with serving(lambda asked: web.Response(body=b"x" * 200_000)) as url, http_over_network() as get:
        with pytest.raises(RequestFailed, match="larger than 100000 bytes"):
            await get(url, {})


async def test_parameters_headers_and_redirects_are_passed_on_as_they_are() -> None:
    def answer(asked: web.Request) -> web.Response:
        assert asked.headers["User-Agent"] == "perpwatch"
        return web.Response(status=302, headers={"Location": f"/{asked.query['interval']}"})

    async with serving(answer) as url, http_over_network() as get:
        response = await get(url + "/kline", {"interval": "Min1"})
        assert (response.status, response.headers["location"]) == (302, "/Min1")


async def test_a_body_that_ends_early_and_a_port_nobody_listens_on_are_failed_requests() -> None:
    async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        writer.close()

    server = await asyncio.start_server(half, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with asyncio.timeout(10), http_over_network() as get:
        async with server:
            with pytest.raises(RequestFailed):
                await get(f"http://127.0.0.1:{port}/", {})
        with pytest.raises(RequestFailed):
            await get(f"http://127.0.0.1:{port}/", {})


async def test_the_client_reads_over_the_network() -> None:
    async with serving(lambda asked: web.Response(body=b"hello")) as url, http_over_network() as get:
        rest = RestClient(url, get, SystemClock(), 100.0)
        assert await rest.fetch(request("/hello"), Priority.CONTROL) == "hello"
