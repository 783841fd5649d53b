"""The parts of the API that need no server: who is let in, and what a slow reader costs."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest
from pydantic import ValidationError
from starlette.requests import HTTPConnection

from perpwatch.app.api_security import COOKIE, WRONG_TOKENS_PER_MINUTE, Access, Refusal
from perpwatch.app.api_stream import Events, Message, Topic, Turns
from perpwatch.app.api_trial import to_toml
from perpwatch.app.config import load_config
from perpwatch.app.dashboard_config import DashboardConfig
from perpwatch.detect.rules import PRESETS, read_rules
from perpwatch.errors import ConfigurationError

TOKEN = "a-token-nobody-would-guess"


class Time:
    now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


def access(time: Time | None = None, **settings: object) -> Access:
    return Access(DashboardConfig.model_validate({"token": TOKEN} | settings), time or Time())


def connection(path: str, method: str = "GET", kind: str = "http", **headers: str) -> HTTPConnection:
    raw = [
        (name.replace("_", "-").encode(), value.encode()) for name, value in ({"host": "127.0.0.1:1"} | headers).items()
    ]
    scope = {
        "type": kind,
        "method": method,
        "path": path,
        "headers": raw,
        "client": ("127.0.0.1", 9),
        "query_string": b"",
    }
    return HTTPConnection(scope)


def status(refusal: Refusal | None) -> int:
    return refusal.status if refusal is not None else 200


def test_another_address_than_loopback_demands_a_token() -> None:
    for host in ("0.0.0.0", "192.168.1.7", "::", "example.org"):
        with pytest.raises(ValidationError, match="demands a token"):
            DashboardConfig(host=host)
    for host in ("127.0.0.1", "127.9.9.9", "::1", "localhost"):
        DashboardConfig(host=host)


def test_a_bad_token_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERPWATCH_DASHBOARD__TOKEN", "too-short")
    with pytest.raises(ConfigurationError) as caught:
        load_config()
    assert "16 characters" in str(caught.value)
    assert "too-short" not in str(caught.value)
    for unfit in ("a token with spaces in it", "ein-schlüssel-ohne-ascii", "a-token-nobody-knows\n"):
        with pytest.raises(ValidationError, match="goes into a header"):
            DashboardConfig.model_validate({"token": unfit})
    monkeypatch.setenv("PERPWATCH_DASHBOARD__TOKEN", TOKEN)
    assert TOKEN not in str(load_config().model_dump(mode="json"))


def test_looking_is_free_on_this_machine_and_acting_is_not() -> None:
    gate = access()
    assert status(gate.refusal(connection("/api/v1/status"))) == 200
    action = "/api/v1/actions/test-alert"
    assert status(gate.refusal(connection(action, "POST"))) == 401
    assert status(gate.refusal(connection(action, "POST", authorization=f"Bearer {TOKEN}"))) == 200
    assert status(gate.refusal(connection(action, "POST", authorization="Bearer wrong"))) == 401
    assert status(gate.refusal(connection(action, "POST", authorization=f"Basic {TOKEN}"))) == 401
    without = Access(DashboardConfig(), Time())
    assert status(without.refusal(connection(action, "POST", authorization=f"Bearer {TOKEN}"))) == 403


def test_elsewhere_looking_needs_the_token_too() -> None:
    gate = access(host="0.0.0.0")
    for path in ("/", "/api/v1/status", "/api/v1/market", "/_nicegui_ws/socket.io/"):
        assert status(gate.refusal(connection(path, host="watch.example"))) == 401
    assert status(gate.refusal(connection("/login", host="watch.example"))) == 200
    session = gate.sign_in(TOKEN, "10.0.0.1")
    assert isinstance(session, str)
    assert status(gate.refusal(connection("/", host="watch.example", cookie=f"{COOKIE}={session}"))) == 200
    gate.sign_out(session)
    assert status(gate.refusal(connection("/", host="watch.example", cookie=f"{COOKIE}={session}"))) == 401


def test_other_sites_are_refused() -> None:
    gate = access()
    session = gate.sign_in(TOKEN, "127.0.0.1")
    cookie = f"{COOKIE}={session}"
    action = "/api/v1/actions/test-alert"
    assert status(gate.refusal(connection(action, "POST", cookie=cookie, origin="http://evil.example"))) == 403
    assert status(gate.refusal(connection(action, "POST", cookie=cookie, origin="null"))) == 403
    assert status(gate.refusal(connection(action, "POST", cookie=cookie))) == 403
    assert status(gate.refusal(connection(action, "POST", cookie=cookie, origin="http://127.0.0.1:1"))) == 200
    for path in ("/api/v1/stream", "/_nicegui_ws/socket.io/"):
        assert status(gate.refusal(connection(path, kind="websocket", origin="http://evil.example"))) == 403
        assert status(gate.refusal(connection(path, kind="websocket", origin="http://127.0.0.1:1"))) == 200
    assert status(gate.refusal(connection("/", host="rebound.example"))) == 421


def test_guessing_is_slowed_down_and_forgiven_after_a_minute() -> None:
    time = Time()
    gate = access(time)
    for _ in range(WRONG_TOKENS_PER_MINUTE):
        assert gate.sign_in("wrong", "10.0.0.1") == Refusal(401, "the token is wrong", {"WWW-Authenticate": "Bearer"})
    refusal = gate.sign_in(TOKEN, "10.0.0.1")
    assert isinstance(refusal, Refusal)
    assert (refusal.status, refusal.headers["Retry-After"]) == (429, "61")
    assert isinstance(gate.sign_in(TOKEN, "10.0.0.2"), str)
    time.now_s += 61.0
    assert isinstance(gate.sign_in(TOKEN, "10.0.0.1"), str)


async def test_a_slow_reader_is_dropped_with_a_reason_and_the_others_miss_nothing() -> None:
    topic = Topic(max_subscribers=10)
    slow, quick = topic.subscribe(max_waiting=3), topic.subscribe(max_waiting=3)
    read = []
    for number in range(5):
        topic.publish(Message(b"%d" % number))
        read.append((await anext(quick)).text)
    assert read == ["0", "1", "2", "3", "4"]
    assert (slow.reason, topic.dropped, len(topic)) == ("too slow: 3 messages were waiting", 1, 1)
    with pytest.raises(StopAsyncIteration):
        await anext(slow)


def test_a_reader_goes_on_where_it_was() -> None:
    events = Events("run", 10, kept=3)
    for _ in range(5):
        events.tell("alert", str.encode)

    def after(last_id: str | None) -> tuple[list[str], str]:
        missed, reason = events.after(last_id)
        return [message.text for message in missed], reason

    assert after(None) == ([], "")
    assert after("run.4") == (["run.5"], "")
    assert after("run.5") == ([], "")
    assert after("run.1") == (["run.3", "run.4", "run.5"], "events 2 to 2 are no longer kept")
    for other in ("before.4", "nonsense", "run.²", ""):
        missed, reason = after(other)
        assert (missed, "not of this run" in reason) == (["run.3", "run.4", "run.5"], True)


async def test_a_reader_gets_the_kind_it_wants() -> None:
    events = Events("run", 10)
    alerts, everything = events.subscribe(kind="alert"), events.subscribe()
    for kind in ("signal", "alert", "signal"):
        events.tell(kind, str.encode)
    assert (await anext(alerts)).id == "run.2"
    assert [(await anext(everything)).id for _ in range(3)] == ["run.1", "run.2", "run.3"]


async def test_sockets_are_looked_at_between_the_turns_of_many_readers() -> None:
    turns, order = Turns(at_once=4), []

    async def read(number: int) -> None:
        await turns.take()
        order.append(number)

    readers = [asyncio.create_task(read(number)) for number in range(50)]
    readers[2].cancel()  # whoever goes while it waits is passed over
    rounds = 0
    while len(order) < 49:
        await asyncio.sleep(0)
        rounds += 1
    assert order == [number for number in range(50) if number != 2]
    assert rounds >= 49 / 4


def test_a_rule_survives_its_way_into_a_file() -> None:
    for rule in PRESETS.values():
        assert read_rules(to_toml(rule)) == (rule,)


def test_a_watch_without_pages_does_not_load_them() -> None:
    program = """
import sys
from perpwatch.app.cli import app
try:
    app(["demo", "--no-dashboard", "--pairs", "5", "--duration", "0.5", "--format", "log"])
finally:
    print([name for name in ("fastapi", "nicegui", "uvicorn", "starlette") if name in sys.modules])
"""
    env = {"PERPWATCH_HEALTH__PORT": "0", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=env, timeout=60, check=False
    )
    assert done.stdout.strip() == "[]", done.stderr
