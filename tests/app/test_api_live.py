"""The API of a running demonstration over real sockets: what it says is the exchange's truth, and whom it obeys."""

from __future__ import annotations

import asyncio
import http.client
import json
import re
import time
import urllib.error
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest
import requests
import schemathesis
from api_questions import PROBLEM, ask_everything
from requests.adapters import HTTPAdapter
from running_demo import PAIRS, TOKEN, Demo, running_demo

from perpwatch.app.api_security import ACTIONS_PER_MINUTE, COOKIE, MAX_BODY_BYTES, WRONG_TOKENS_PER_MINUTE

BEARER = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    with running_demo(tmp_path_factory.mktemp("demo")) as one:
        yield one


class _From(HTTPAdapter):
    """Requests that come from another address of this machine, so that one test's limits are not another's."""

    def __init__(self, address: str) -> None:
        self._address = address
        super().__init__()

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, **options, source_address=(self._address, 0))


def somebody_at(address: str) -> requests.Session:
    session = requests.Session()
    session.mount("http://", _From(address))
    return session


def ask(demo: Demo, method: str, path: str, **options: Any) -> tuple[int, str, Any]:
    """Status, type and body of an answer."""
    with requests.request(method, demo.url + path, timeout=10, **options) as answer:
        return answer.status_code, answer.headers["Content-Type"], answer.json()


def refusal_of(call: Any) -> tuple[int, str, dict[str, Any]]:
    with pytest.raises(urllib.error.HTTPError) as caught:
        call()
    error = caught.value
    return error.code, error.headers["Content-Type"], json.load(error)


# --- The truth -------------------------------------------------------------------------------------------------------


def test_candles_are_those_of_the_exchange(demo: Demo) -> None:
    page = demo.get("/api/v1/symbols?limit=2000")
    assert page["total"] == len(page["rows"]) > PAIRS // 2
    turnovers = [row["turnover_24h"] for row in page["rows"]]
    assert turnovers == sorted(turnovers, reverse=True)
    symbol = page["rows"][1]["symbol"]
    ours = demo.get(f"/api/v1/symbols/{symbol}/candles?limit=30")["candles"]
    # The newest closed minute may still be corrected between the two questions.
    closed = {one["open_time_ms"] // 1_000: one for one in ours[:-2] if one["finality"] != "open"}
    theirs = demo.truth(f"kline/{symbol}?interval=Min1&start={min(closed)}&end={max(closed)}")
    compared = 0
    for place, opened_s in enumerate(theirs["time"]):
        if opened_s in closed:
            one = closed[opened_s]
            assert (one["close"], one["contracts"]) == (theirs["close"][place], theirs["vol"][place])
            compared += 1
    assert compared >= 20


def test_contracts_are_those_of_the_exchange(demo: Demo) -> None:
    deadline_s = time.monotonic() + 20
    while demo.get("/api/v1/symbols?limit=1")["rows"][0]["open_interest"] is None:  # it comes with REST's first word
        assert time.monotonic() < deadline_s
        time.sleep(0.1)
    page = demo.get("/api/v1/symbols?limit=2000&sort=symbol&order=asc")
    rows = {row["symbol"]: row for row in page["rows"]}
    assert list(rows) == sorted(rows)
    listed = {one["symbol"]: one for one in demo.truth("detail")}
    tickers = {one["symbol"]: one for one in demo.truth("ticker")}
    assert rows.keys() <= listed.keys()
    for symbol, row in rows.items():
        ticker = tickers[symbol]
        # Asked one after the other, the figures have moved on a little, and no more.
        assert row["price"] == pytest.approx(ticker["lastPrice"], rel=0.05)
        assert row["turnover_24h"] == pytest.approx(ticker["amount24"], rel=0.05)
        if row["open_interest"] is not None:
            assert row["open_interest"] == pytest.approx(ticker["holdVol"], rel=0.05)
            worth = row["open_interest"] * listed[symbol]["contractSize"] * row["price"]
            assert row["open_interest_value"] == pytest.approx(worth)
        if row["funding_rate"] is not None:
            assert row["funding_rate"] == pytest.approx(ticker["fundingRate"], abs=1e-5)
        assert row["served_by"] == "websocket"
    assert sum(row["open_interest"] is not None for row in rows.values()) > len(rows) // 2
    symbol = next(iter(rows))
    contract = demo.get(f"/api/v1/symbols/{symbol}")["contract"]
    assert contract["contract_size"] == listed[symbol]["contractSize"]
    assert demo.get("/api/v1/symbols?served_by=rest")["total"] == 0
    found = demo.get(f"/api/v1/symbols?search={symbol[:3].lower()}&limit=2000")
    assert [one for one in rows if symbol[:3] in one] == sorted(one["symbol"] for one in found["rows"])
    pages = [demo.get(f"/api/v1/symbols?offset={offset}&limit=7")["rows"] for offset in (0, 7)]
    assert [one["symbol"] for one in pages[0] + pages[1]] == [
        one["symbol"] for one in demo.get("/api/v1/symbols?limit=14")["rows"]
    ]


def test_the_ledger_has_a_digit_for_each_minute(demo: Demo) -> None:
    page = demo.get("/api/v1/ledger?minutes=30&limit=5")
    assert len(page["rows"]) == 5
    for row in page["rows"]:
        assert len(row["codes"]) == 30
        assert set(row["codes"]) <= set(page["legend"])


# --- What is refused -------------------------------------------------------------------------------------------------


def test_every_refusal_is_a_problem_with_its_reason(demo: Demo) -> None:
    evil = {"Origin": "http://evil.example"}
    action = "/api/v1/actions/symbols/NO_SUCH/mute"
    login = "/api/v1/login"
    for method, path, options, status, reason in (
        ("GET", "/api/v1/symbols/NO_SUCH", {}, 404, "NO_SUCH is not watched"),
        ("GET", "/api/v1/nothing", {}, 404, "Not Found"),
        ("GET", "/api/", {}, 404, "Not Found"),
        ("DELETE", "/api/v1/status", {}, 405, "Method Not Allowed"),
        ("GET", "/api/v1/symbols?limit=0", {}, 422, "limit"),
        ("GET", "/api/v1/ledger?minutes=2880&limit=2000", {}, 422, "at most"),
        ("GET", "/api/v1/symbols", {"headers": {"Host": "rebound.example"}}, 421, "names of this machine"),
        ("GET", "/api/v1/symbols", {"headers": evil}, 403, "another site"),
        ("GET", "/api/v1/symbols", {"headers": {"Sec-Fetch-Site": "cross-site"}}, 403, "another site"),
        ("POST", action, {}, 401, "need the token"),
        ("POST", action, {"headers": {"Authorization": "Basic nobody"}}, 401, "Bearer"),
        ("POST", action, {"headers": BEARER | evil}, 403, "another site"),
        ("POST", action, {"headers": BEARER}, 404, "a contract that is watched"),
        ("POST", "/api/v1/actions/rules/nothing/pause", {"headers": BEARER}, 404, "default"),
        ("POST", "/api/v1/actions/rules/default/change", {"headers": BEARER, "data": "{"}, 422, "the body"),
        ("POST", "/api/v1/rules/nothing/trial", {"json": {"condition": 0, "name": "a", "value": 1}}, 404, "default"),
        ("POST", login, {"data": b"\xff"}, 422, "the body"),
        ("POST", login, {"json": {"token": 1}}, 422, "the body"),
        ("POST", login, {"data": b"x" * (MAX_BODY_BYTES + 1)}, 413, str(MAX_BODY_BYTES)),
        ("POST", login, {"data": iter([b"x" * MAX_BODY_BYTES, b"x"])}, 413, str(MAX_BODY_BYTES)),
    ):
        code, kind, problem = ask(demo, method, path, **options)
        assert (code, kind, problem["status"]) == (status, PROBLEM, status), (method, path, problem)
        assert reason in problem["detail"]
        assert problem["title"]


def test_a_websocket_of_another_site_is_refused_with_the_reason(demo: Demo) -> None:
    host = demo.url.removeprefix("http://")
    wanted = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
    }
    pages = "/_nicegui_ws/socket.io/?EIO=4&transport="
    for path in ("/api/v1/stream", "/api/v1/market", "/api/v1/pulse", pages + "websocket", pages + "polling"):
        for origin, status in ((f"http://{host}", 101), ("http://evil.example", 403), ("null", 403)):
            connection = http.client.HTTPConnection(host, timeout=10)
            is_polling = path.endswith("polling")
            connection.request("GET", path, headers={"Origin": origin} | ({} if is_polling else wanted))
            answer = connection.getresponse()
            if status == 101:
                # Nobody asks for a page first, which the pages' own socket wants.
                assert answer.status in ((200, 400) if is_polling else (101,)), path
            else:
                assert (answer.status, answer.headers["Content-Type"]) == (403, PROBLEM), path
                assert "another site" in json.load(answer)["detail"]
            connection.close()


def test_wrong_tokens_are_limited_for_whoever_guesses_and_nobody_else(demo: Demo) -> None:
    guesser, other = somebody_at("127.0.0.41"), somebody_at("127.0.0.42")
    login, action = demo.url + "/api/v1/login", demo.url + "/api/v1/actions/symbols/NO_SUCH/mute"
    for number in range(WRONG_TOKENS_PER_MINUTE):
        if number % 2:
            answer = guesser.post(login, json={"token": f"wrong {number}"})
        else:
            answer = guesser.post(action, headers={"Authorization": f"Bearer wrong-{number}"})
        assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
    for answer in (guesser.post(login, json={"token": TOKEN}), guesser.post(action, headers=BEARER)):
        assert (answer.status_code, answer.headers["Content-Type"]) == (429, PROBLEM)
        assert 0 < int(answer.headers["Retry-After"]) <= 61
    assert guesser.get(demo.url + "/api/v1/status").status_code == 200
    assert other.post(login, json={"token": TOKEN}).status_code == 200


def test_actions_are_limited_for_whoever_acts_and_nobody_else(demo: Demo) -> None:
    busy, other = somebody_at("127.0.0.43"), somebody_at("127.0.0.44")
    action = demo.url + "/api/v1/actions/rules/nothing/pause"
    codes = [busy.post(action, headers=BEARER).status_code for _ in range(ACTIONS_PER_MINUTE + 1)]
    assert codes == [404] * ACTIONS_PER_MINUTE + [429]
    assert other.post(action, headers=BEARER).status_code == 404


def test_a_session_is_a_cookie_that_only_this_site_sends(demo: Demo) -> None:
    browser = somebody_at("127.0.0.45")
    answer = browser.post(demo.url + "/api/v1/login", json={"token": TOKEN})
    flags = {part.strip().lower() for part in answer.headers["Set-Cookie"].split(";")[1:]}
    assert {"httponly", "samesite=strict", "path=/"} <= flags
    assert TOKEN not in answer.headers["Set-Cookie"]
    action = demo.url + "/api/v1/actions/rules/nothing/pause"
    ours = {"Origin": demo.url}
    assert browser.post(action).status_code == 403  # a browser says where it comes from
    assert browser.post(action, headers={"Origin": "http://evil.example"}).status_code == 403
    assert browser.post(action, headers=ours).status_code == 404
    cookie = browser.cookies[COOKIE]
    browser.post(demo.url + "/api/v1/logout", headers=ours)
    assert COOKIE not in browser.cookies
    assert browser.post(action, headers=ours | {"Cookie": f"{COOKIE}={cookie}"}).status_code == 401


def test_the_form_to_sign_in_leads_nowhere_else_and_shows_what_it_is_given_as_text(demo: Demo) -> None:
    browser = somebody_at("127.0.0.50")
    shown = browser.get(demo.url + "/login", params={"next": '/"><script>alert(1)</script>'}).text
    assert "<script" not in shown
    assert "&quot;&gt;&lt;script&gt;" in shown
    for target, led in (("/rules", "/rules"), ("//evil.example", "/"), ("/\\evil.example", "/"), ("http://evil", "/")):
        form = {"token": TOKEN, "next": target}
        answer = browser.post(demo.url + "/login", data=form, headers={"Origin": demo.url}, allow_redirects=False)
        assert (answer.status_code, answer.headers["Location"]) == (303, led)
    assert browser.post(demo.url + "/login", data=form, headers={"Origin": "http://evil.example"}).status_code == 403


def test_answers_carry_the_security_headers(demo: Demo) -> None:
    for path in ("/", "/login", "/api/v1/status", "/api/v1/nothing", "/static/perpwatch.css"):
        headers = requests.get(demo.url + path, timeout=10).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert "server" not in {name.lower() for name in headers}
        assert "access-control-allow-origin" not in {name.lower() for name in headers}


def test_a_page_runs_the_scripts_that_it_was_sent_with_and_no_others(demo: Demo) -> None:
    seen: list[tuple[str, int]] = []
    for path in ("/symbol/nothing", "/symbol/%3Cscript%3Ealert(1)%3C%2Fscript%3E", "/symbol/nothing"):
        answer = requests.get(demo.url + path, headers={"Accept": "text/html"}, timeout=10)
        policy = answer.headers["Content-Security-Policy"]
        scripts = re.search(r"script-src ([^;]+);", policy)
        assert scripts
        assert "unsafe-inline" not in scripts[1]
        nonce = re.search(r"'nonce-([^']+)'", scripts[1])
        assert nonce
        assert answer.text.count("<script") == answer.text.count(f'<script nonce="{nonce[1]}"')
        assert "<script>alert" not in answer.text
        seen.append((nonce[1], answer.text.count("<script")))
    assert len({nonce for nonce, _ in seen}) == 3
    assert len({count for _, count in seen}) == 1
    assert seen[0][1] > 3


def test_the_token_is_nowhere_to_be_read(demo: Demo) -> None:
    document = demo.get("/api/v1/openapi.json")
    for path, methods in document["paths"].items():
        if "get" in methods and "{" not in path and not path.endswith("/events"):
            assert TOKEN not in requests.get(demo.url + path, timeout=10).text
    for page in ("/", "/signals", "/health", "/rules", "/login"):
        assert TOKEN not in requests.get(demo.url + page, timeout=10).text
    assert TOKEN not in json.dumps(document)
    assert TOKEN not in demo.log.read_text()


# --- Actions ---------------------------------------------------------------------------------------------------------


def test_actions_change_the_watch_and_are_noted_with_who_and_when(demo: Demo) -> None:
    began_ms = time.time() * 1_000
    symbol = demo.get("/api/v1/symbols?limit=5")["rows"][4]["symbol"]
    demo.act(f"symbols/{symbol}/pin")
    demo.act(f"symbols/{symbol}/mute")
    detail = demo.get(f"/api/v1/symbols/{symbol}")
    assert (detail["is_pinned"], detail["is_muted"]) == (True, True)
    assert (detail["row"]["is_pinned"], detail["row"]["is_muted"]) == (True, True)
    demo.act(f"symbols/{symbol}/unpin")
    demo.act(f"symbols/{symbol}/unmute")
    demo.act("rules/default/pause")
    assert {rule["name"]: rule["is_paused"] for rule in demo.get("/api/v1/rules")}["default"]
    demo.act("rules/default/resume")
    source = demo.get("/api/v1/connections")[0]["source"]
    demo.act(f"connections/{source}/restart")
    refusal_of(lambda: demo.act("rules/no%0Asuch/pause"))
    deadline_s = time.monotonic() + 15
    while demo.get("/api/v1/connections")[0]["reconnects"] == 0:
        assert time.monotonic() < deadline_s
        time.sleep(0.1)
    noted = [one for one in demo.get("/api/v1/actions?limit=2000") if one["time_ms"] >= began_ms - 1]
    ours = [one for one in noted if one["target"] in (symbol, source) or "such" in one["target"]]
    assert [(one["action"], one["target"], one["is_done"]) for one in ours] == [
        ("pin", symbol, True),
        ("mute", symbol, True),
        ("unpin", symbol, True),
        ("unmute", symbol, True),
        ("restart", source, True),
        ("pause", "no\nsuch", False),
    ]
    assert {one["who"] for one in ours} == {"the token at 127.0.0.1"}
    assert all(began_ms - 1 <= one["time_ms"] <= time.time() * 1_000 for one in ours)
    log = demo.log.read_text()
    assert f"the token at 127.0.0.1: pin '{symbol}' done" in log
    assert re.search(r"pause 'no\\+nsuch' refused", log)


# --- Live ------------------------------------------------------------------------------------------------------------


READERS, TOLD = 50, 12


async def test_fifty_readers_get_every_alert_once_also_those_who_were_away(demo: Demo) -> None:
    """Half of them by WebSocket, half by server-sent events; a third leave in the middle and come back."""
    got: list[list[str]] = [[] for _ in range(READERS)]
    resets: list[object] = []
    listening, away = asyncio.Semaphore(0), asyncio.Event()
    told: list[str] = []

    async def read(number: int, session: aiohttp.ClientSession) -> None:
        last_id, leaves = "", number % 3 == 0
        while len(got[number]) < TOLD:
            parameters = {"last_id": last_id} if last_id else {}
            async for event in _events(demo, session, parameters, by_socket=number % 2 == 0):
                if event.get("type") == "open":
                    listening.release()
                elif event.get("type") == "alert":
                    last_id = event["id"]
                    if event["alert"]["rule"] == "test":
                        got[number].append(event["alert"]["key"])
                elif "reason" in event:
                    resets.append(event)
                if leaves and len(got[number]) == TOLD // 3:
                    break
                if len(got[number]) == TOLD:
                    return
            leaves = False
            await away.wait()

    # The token's limit is per address, and the other tests have acted, too.
    async with (
        asyncio.timeout(60),
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(local_addr=("127.0.0.46", 0))) as actor,
        asyncio.TaskGroup() as tasks,
    ):
        for number in range(READERS):
            tasks.create_task(read(number, session))
        for _ in range(READERS):
            await listening.acquire()
        for number in range(TOLD):
            async with actor.post(demo.url + "/api/v1/actions/test-alert", headers=BEARER) as answer:
                told.append((await answer.json())["text"].split()[1])
            if number == TOLD * 2 // 3:
                away.set()
            await asyncio.sleep(0.02)
    assert resets == []
    assert len(set(told)) == TOLD
    assert all(keys == told for keys in got)


async def _events(demo: Demo, session: aiohttp.ClientSession, parameters: dict[str, str], *, by_socket: bool) -> Any:
    """Events as dictionaries, the first of which says that the server listens."""
    if by_socket:
        url = demo.url.replace("http", "ws") + "/api/v1/stream"
        async with session.ws_connect(url, params=parameters) as socket:
            yield {"type": "open"}
            async for message in socket:
                yield json.loads(message.data)
    else:
        async with session.get(demo.url + "/api/v1/events", params=parameters) as answer:
            async for line in answer.content:
                if line.startswith(b"retry"):
                    yield {"type": "open"}
                elif line.startswith(b"data: "):
                    yield json.loads(line[6:])


async def test_a_reader_of_another_run_is_told_that_something_is_missing(demo: Demo) -> None:
    await asyncio.to_thread(demo.act, "test-alert")
    async with asyncio.timeout(20), aiohttp.ClientSession() as session:
        for by_socket in (True, False):
            seen = []
            async for event in _events(demo, session, {"last_id": "before.1", "only": "alert"}, by_socket=by_socket):
                seen.append(event)
                if event.get("alert", {}).get("rule") == "test":
                    break
            assert "not of this run" in seen[1]["reason"]
            assert {event["type"] for event in seen[2:]} == {"alert"}


# --- The document ----------------------------------------------------------------------------------------------------


def test_every_answer_is_what_the_document_says(demo: Demo) -> None:
    """Actions with the token and signing in included; the stream of events ends only when asked to."""
    schema = schemathesis.openapi.from_url(f"{demo.url}/api/v1/openapi.json").exclude(path_regex="/events$")
    looking, acting, guessing = (somebody_at(f"127.0.0.{number}") for number in (47, 48, 49))
    acting.headers.update(BEARER)

    def session_for(path: str) -> requests.Session:
        return acting if "/actions/" in path else guessing if "/log" in path else looking

    asked = ask_everything(schema, session_for)
    assert asked.keys() >= {200, 401, 404, 422}
    assert asked.total() >= 120


def test_the_document_tells_what_everything_is_for(demo: Demo) -> None:
    document = demo.get("/api/v1/openapi.json")
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            where = f"{method} {path}"
            assert operation["description"], where
            assert "4XX" in operation["responses"], where
            assert all(name in operation["responses"]["4XX"]["content"] for name in (PROBLEM,)), where
            assert ("security" in operation) == path.startswith("/api/v1/actions/"), where
            for parameter in operation.get("parameters", ()):
                assert parameter.get("description") or parameter["in"] == "path", (where, parameter)
            body = operation.get("requestBody")
            assert body is None or body["content"]["application/json"]["example"], where
