"""The HTTP API under ``/api/v1``: what the watch knows, what it found, a live stream of it, and actions.

Answers are structs of :mod:`perpwatch.app.api_records`, encoded as JSON; the OpenAPI document is made from the same
structs. Errors are ``application/problem+json``. Who may ask is decided before, in :mod:`perpwatch.app.api_security`.
"""

from __future__ import annotations

import enum
import importlib.metadata
import inspect
import logging
from collections.abc import Callable, Iterable, Sequence
from html import escape
from typing import Annotated, Any, Literal, Protocol, TypeVar
from urllib.parse import parse_qs

import msgspec
from fastapi import APIRouter, FastAPI, Header, Query, Request, WebSocket
from fastapi import Path as PathParameter
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse
from pydantic import StringConstraints
from starlette.exceptions import HTTPException

from perpwatch.alert.outcomes import Score
from perpwatch.app.api_actions import Unknown
from perpwatch.app.api_hub import Hub, changed_rule, decoded_alert, key_of, record_of
from perpwatch.app.api_live import TOO_MANY, serve_socket, server_sent
from perpwatch.app.api_problem import PROBLEM_TYPE, Problem, problem
from perpwatch.app.api_records import (
    AlertRecord,
    Candles,
    ConnectionRecord,
    Coverage,
    DeliveryRecord,
    Done,
    LedgerPage,
    Login,
    OutcomeRecord,
    RestRecord,
    RuleChange,
    RuleRecord,
    RuleTrial,
    ServedBy,
    Status,
    StreamEvent,
    SymbolDetail,
    SymbolPage,
    TradesFlow,
)
from perpwatch.app.api_security import COOKIE, SESSION_S, Access, Refusal, address_of
from perpwatch.app.api_stream import Message
from perpwatch.app.api_trial import NOTHING_KEPT, TrialRunning
from perpwatch.app.audit import ActionRecord
from perpwatch.app.delivery import ChannelStatus
from perpwatch.app.planning import PlanReport
from perpwatch.errors import ConfigurationError
from perpwatch.model import AssetClass, Signal, Timeframe, Trust
from perpwatch.store import DeliveryState, Reader

logger = logging.getLogger(__name__)

MAX_TIME_MS = 1 << 53
#: Rules, symbols and connections have shorter names.
MAX_NAME = 100
#: What may be asked of a database.
PRINTABLE = r"^[^\x00-\x1f]*$"
#: Minutes of the ledger in one answer; more would hold the feed up.
MAX_CELLS = 300_000

_T = TypeVar("_T")


class _OfSymbol(Protocol):
    @property
    def symbol(self) -> str: ...


_Of = TypeVar("_Of", bound=_OfSymbol)

_RECORDS: tuple[Any, ...] = (
    ActionRecord,
    AlertRecord,
    Candles,
    ChannelStatus,
    ConnectionRecord,
    Coverage,
    DeliveryRecord,
    Done,
    LedgerPage,
    Login,
    OutcomeRecord,
    PlanReport,
    Problem,
    RestRecord,
    RuleChange,
    RuleRecord,
    RuleTrial,
    Score,
    Signal,
    Status,
    StreamEvent,
    SymbolDetail,
    SymbolPage,
    TradesFlow,
)
_SCHEMAS, _COMPONENTS = msgspec.json.schema_components(_RECORDS, ref_template="#/components/schemas/{name}")
_SCHEMA_OF = dict(zip(_RECORDS, _SCHEMAS, strict=True))


#: Why a request is refused or fails, for the OpenAPI document.
REFUSALS: dict[int | str, str] = {
    401: "The token is missing or wrong",
    403: "It comes from another site, or no token is configured",
    404: "No such thing is known",
    409: "Not possible with this watch",
    422: "It cannot be understood, and where",
    429: "Too many; `Retry-After` says for how long",
    503: "Too many are listening already",
    "4XX": "Refused, with the reason",
    "5XX": "Failed, with the reason",
}
ACTION_REFUSALS = (401, 403, 404, 422, 429)
#: How the token is given.
SECURITY_SCHEMES = {
    "token": {"type": "http", "scheme": "bearer", "description": "`dashboard.token`"},
    "session": {"type": "apiKey", "in": "cookie", "name": COOKIE, "description": "from `/api/v1/login`"},
}
NEEDS_TOKEN: dict[str, Any] = {"security": [{"token": []}, {"session": []}]}
_CHANGE = RuleChange(condition=0, name="risk", value=1e-5)


class SortBy(enum.StrEnum):
    """Columns of the market table."""

    symbol = "symbol"
    price = "price"
    move_1 = "move_1"
    move_5 = "move_5"
    move_15 = "move_15"
    move_60 = "move_60"
    turnover_24h = "turnover_24h"
    activity = "activity"
    anomaly = "anomaly"
    open_interest = "open_interest"
    open_interest_value = "open_interest_value"
    open_interest_change = "open_interest_change"
    funding_rate = "funding_rate"
    known = "known"
    age_s = "age_s"


class Order(enum.StrEnum):
    asc = "asc"
    desc = "desc"


Name = Annotated[str, PathParameter(max_length=MAX_NAME, description="of a rule", examples=["default"])]
Symbol = Annotated[
    str, PathParameter(min_length=1, max_length=MAX_NAME, description="of a contract", examples=["BTC_USDT"])
]
Limit = Annotated[int, Query(ge=1, le=2_000, description="so many at most")]
FoundLimit = Annotated[int, Query(ge=1, le=1_000, description="so many at most")]
Offset = Annotated[int, Query(ge=0, le=100_000, description="so many are left out first")]
SinceMs = Annotated[int, Query(ge=0, le=MAX_TIME_MS, description="exchange time from which on, ms")]
UntilMs = Annotated[int | None, Query(ge=0, le=MAX_TIME_MS, description="exchange time before which, ms")]
ChannelName = Annotated[str, StringConstraints(max_length=MAX_NAME, pattern=PRINTABLE)]
SymbolFilter = Annotated[str | None, Query(max_length=60, pattern=PRINTABLE, description="of this contract only")]
Only = Annotated[Literal["signal", "alert"] | None, Query(description="events of this type alone")]
LastId = Annotated[str | None, Query(max_length=60, description="resume after this event")]


def _says(kind: Any, *, is_list: bool = False, refusals: Sequence[int] = (422,)) -> dict[int | str, dict[str, Any]]:
    """What an endpoint answers, for the OpenAPI document."""
    schema: dict[str, Any] = _SCHEMA_OF[kind]
    if is_list:
        schema = {"type": "array", "items": schema}
    answers: dict[int | str, dict[str, Any]] = {
        200: {"description": "Fine", "content": {"application/json": {"schema": schema}}}
    }
    every: list[int | str] = [*refusals, "4XX", "5XX"]
    for status in every:
        answers[status] = {"description": REFUSALS[status], "content": {PROBLEM_TYPE: {"schema": _SCHEMA_OF[Problem]}}}
    return answers


def _takes(kind: Any, example: Any) -> dict[str, Any]:
    content = {"schema": _SCHEMA_OF[kind], "example": msgspec.to_builtins(example)}
    return {"requestBody": {"required": True, "content": {"application/json": content}}}


def _json(value: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")


async def _body(request: Request, kind: type[_T]) -> _T:
    """
    Raises:
        HTTPException: it is not what is wanted.
    """
    try:
        return msgspec.json.decode(await request.body(), type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise HTTPException(422, f"the body: {error}") from error


def create_api(hub: Hub, access: Access) -> FastAPI:
    """The application; it answers to ``/api/v1`` alone."""
    app = FastAPI(
        title="perpwatch",
        version=importlib.metadata.version("perpwatch"),
        description=__doc__.partition("\n\n")[0].replace("``", "`"),
        openapi_url="/api/v1/openapi.json",
        docs_url=None,  # its pages come from elsewhere
        redoc_url=None,
    )
    app.include_router(_watch(hub), prefix="/api/v1", tags=["watch"])
    app.include_router(_market(hub), prefix="/api/v1", tags=["market"])
    app.include_router(_found(hub), prefix="/api/v1", tags=["found"])
    app.include_router(_streams(hub), prefix="/api/v1", tags=["live"])
    app.include_router(_actions(hub, access), prefix="/api/v1/actions", tags=["actions"])
    app.include_router(_session(access), prefix="/api/v1", tags=["session"])
    app.include_router(_login_page(access))

    @app.exception_handler(HTTPException)
    async def refused(_request: Request, error: HTTPException) -> Response:
        return problem(error.status_code, str(error.detail), error.headers)

    @app.exception_handler(RequestValidationError)
    async def misunderstood(_request: Request, error: RequestValidationError) -> Response:
        texts = [f"{'.'.join(map(str, one['loc'][1:]))}: {one['msg']}" for one in error.errors()]
        return problem(422, "; ".join(texts))

    @app.exception_handler(ConfigurationError)
    async def unusable(_request: Request, error: ConfigurationError) -> Response:
        return problem(404 if isinstance(error, Unknown) else 422, str(error))

    @app.exception_handler(Exception)
    async def failed(_request: Request, _error: Exception) -> Response:
        return problem(500, "perpwatch made a mistake; its log says more")

    describe = app.openapi

    def openapi() -> dict[str, Any]:
        document = describe()
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        if "Problem" not in schemas:
            schemas |= _COMPONENTS
            document["components"]["securitySchemes"] = SECURITY_SCHEMES
            schemas.pop("HTTPValidationError", None)
            schemas.pop("ValidationError", None)
        return document

    app.openapi = openapi  # type: ignore[method-assign]
    return app


# --- The watch -------------------------------------------------------------------------------------------------------


def _watch(hub: Hub) -> APIRouter:
    router = APIRouter(default_response_class=Response)

    @router.get("/status", responses=_says(Status))
    async def status() -> Response:
        """The watch at one moment, and how well it is."""
        return _json(hub.status())

    @router.get("/connections", responses=_says(ConnectionRecord, is_list=True))
    async def connections() -> Response:
        """Every connection to the exchange."""
        return _json(hub.connections())

    @router.get("/rest", responses=_says(RestRecord))
    async def rest() -> Response:
        """The requests: budget, refusals, breakers."""
        return _json(hub.rest())

    @router.get("/plan", responses=_says(PlanReport))
    async def plan() -> Response:
        """Which stream should go where, and what is not streamed and why."""
        return _json(hub.plan())

    @router.get("/coverage", responses=_says(Coverage))
    async def coverage() -> Response:
        """How much of the market is known, and why the rest is not."""
        return _json(hub.coverage())

    @router.get("/ledger", responses=_says(LedgerPage))
    async def ledger(
        symbol: SymbolFilter = None,
        minutes: Annotated[int, Query(ge=1, le=2_880, description="so many minutes back")] = 60,
        offset: Offset = 0,
        limit: Limit = 100,
    ) -> Response:
        """What is known of each of the last closed minutes, most traded contracts first."""
        if limit * minutes > MAX_CELLS:
            raise HTTPException(422, f"limit times minutes is {limit * minutes}; at most {MAX_CELLS} in one answer")
        symbols = [one for one in hub.table.rows if symbol is None or one == symbol]
        return _json(hub.ledger(symbols[offset : offset + limit], minutes))

    return router


# --- The market ------------------------------------------------------------------------------------------------------


def _market(hub: Hub) -> APIRouter:
    router = APIRouter(default_response_class=Response)

    @router.get("/symbols", responses=_says(SymbolPage))
    async def symbols(
        search: Annotated[str | None, Query(max_length=60, description="part of the symbol, in any case")] = None,
        trust: Annotated[Trust | None, Query(description="of the last closed minute")] = None,
        served_by: Annotated[ServedBy | None, Query(description="how the candles come")] = None,
        asset_class: Annotated[AssetClass | None, Query(description="what the price follows")] = None,
        minimum_turnover: Annotated[float, Query(ge=0, allow_inf_nan=False, description="24 h, quote coin")] = 0.0,
        sort: Annotated[SortBy, Query(description="by this figure")] = SortBy.turnover_24h,
        order: Annotated[Order, Query(description="smallest or largest first")] = Order.desc,
        offset: Offset = 0,
        limit: Limit = 100,
    ) -> Response:
        """Watched contracts; those whose figure is not known come last."""
        rows = [
            row
            for row in hub.symbol_rows()
            if (search is None or search.upper() in row.symbol.upper())
            and (trust is None or row.trust is trust)
            and (served_by is None or row.served_by is served_by)
            and (asset_class is None or row.asset_class is asset_class)
            and (row.turnover_24h or 0.0) >= minimum_turnover
        ]
        key = str(sort)
        known = [row for row in rows if getattr(row, key) is not None]
        known.sort(key=lambda row: getattr(row, key), reverse=order is Order.desc)
        ordered = known + [row for row in rows if getattr(row, key) is None]
        return _json(SymbolPage(hub.table.updated_ms, len(rows), ordered[offset : offset + limit]))

    @router.get("/symbols/{symbol:path}/candles", responses=_says(Candles, refusals=(404, 422)))
    async def candles(
        symbol: Symbol,
        timeframe: Annotated[Timeframe, Query(description="of each candle")] = Timeframe.Min1,
        limit: Annotated[int, Query(ge=1, le=1_000, description="so many at most")] = 120,
    ) -> Response:
        """The newest candles of a contract, oldest first; the last one may be open."""
        return _json(_known(await hub.candles(symbol, timeframe, limit), symbol))

    @router.get("/symbols/{symbol:path}/trades", responses=_says(TradesFlow, refusals=(404, 422)))
    async def trades(symbol: Symbol) -> Response:
        """Who traded in each of the last hour's minutes, where trades are subscribed."""
        _known(hub.table.rows.get(symbol), symbol)
        return _json(hub.trades(symbol))

    # Behind those that have more to their path: a name may hold a slash itself.
    @router.get("/symbols/{symbol:path}", responses=_says(SymbolDetail, refusals=(404, 422)))
    async def symbol(symbol: Symbol) -> Response:
        """One contract."""
        return _json(_known(hub.symbol(symbol), symbol))

    return router


def _known(found: _T | None, symbol: str) -> _T:
    if found is None:
        raise HTTPException(404, f"{symbol} is not watched; /api/v1/symbols lists what is")
    return found


# --- What was found --------------------------------------------------------------------------------------------------


def _found(hub: Hub) -> APIRouter:
    router = APIRouter(default_response_class=Response)

    @router.get("/signals", responses=_says(Signal, is_list=True))
    async def signals(
        since_ms: SinceMs = 0, until_ms: UntilMs = None, symbol: SymbolFilter = None, limit: FoundLimit = 200
    ) -> Response:
        """The newest signals, oldest first: of the store, where there is one, else of this run."""
        stored = await hub.read(lambda reader: reader.signals(since_ms, symbol, limit, until_ms))
        ours = _between(hub.bot.signals, lambda one: one.event_time_ms, since_ms, until_ms, symbol)
        known = {key_of(one): one for one in [*(stored or ()), *ours]}
        return _json(sorted(known.values(), key=lambda one: one.event_time_ms)[-limit:])

    @router.get("/alerts", responses=_says(AlertRecord, is_list=True))
    async def alerts(
        since_ms: SinceMs = 0, until_ms: UntilMs = None, symbol: SymbolFilter = None, limit: FoundLimit = 200
    ) -> Response:
        """The newest alerts, oldest first, and where they are kept, how far each has come on each channel."""
        earlier = await hub.read(lambda reader: _kept_alerts(reader, since_ms, until_ms, symbol, limit)) or []
        ours = _between(hub.alerts(), lambda one: one.time_ms, since_ms, until_ms, symbol)
        by_key = {one.key: one for one in [*earlier, *ours]}
        return _json(await hub.delivered(sorted(by_key.values(), key=lambda one: one.time_ms)[-limit:]))

    @router.get("/deliveries", responses=_says(DeliveryRecord, is_list=True, refusals=(409, 422)))
    async def deliveries(
        since_ms: SinceMs = 0,
        until_ms: UntilMs = None,
        state: Annotated[list[DeliveryState] | None, Query(description="only in these states")] = None,
        channel: Annotated[list[ChannelName] | None, Query(max_length=50, description="only on these")] = None,
        limit: FoundLimit = 200,
    ) -> Response:
        """The newest notices on each channel, oldest first: alerts, how they went on, operational ones."""
        rows = await hub.read(lambda reader: reader.deliveries(since_ms, state or (), channel or (), limit, until_ms))
        if rows is None:
            raise HTTPException(409, "what was delivered is known where a watch keeps it, and nothing is kept here")
        return _json([DeliveryRecord.of(one) for one in rows])

    @router.get("/channels", responses=_says(ChannelStatus, is_list=True))
    async def channels() -> Response:
        """The channels that alerts go out by, and how they do."""
        return _json(hub.channels())

    @router.get("/outcomes", responses=_says(OutcomeRecord, is_list=True))
    async def outcomes(
        since_ms: SinceMs = 0, until_ms: UntilMs = None, symbol: SymbolFilter = None, limit: FoundLimit = 200
    ) -> Response:
        """What came of the newest alerts, oldest first."""
        found = _between(hub.outcome_records(), lambda one: one.time_ms, since_ms, until_ms, symbol)
        return _json(found[-limit:])

    @router.get("/scorecard", responses=_says(Score, is_list=True))
    async def scores() -> Response:
        """How well each rule's alerts did against random moments."""
        return _json(hub.scores())

    @router.get("/rules", responses=_says(RuleRecord, is_list=True))
    async def rules() -> Response:
        """The rules in force, how often each spoke today, its budget and its hit rate."""
        return _json(hub.rules())

    @router.post(
        "/rules/{name}/trial",
        responses=_says(RuleTrial, refusals=(404, 409, 422, 429)),
        openapi_extra=_takes(RuleChange, _CHANGE),
    )
    async def trial(name: Name, request: Request) -> Response:
        """How many alerts a rule would have given in the last 24 h with one number changed; nothing is saved."""
        change = await _body(request, RuleChange)
        rule = changed_rule(hub, name, change.condition, change.name, change.value)
        if not hub.has_store:
            raise HTTPException(409, NOTHING_KEPT)
        try:
            return _json(await hub.try_rule(rule))
        except TrialRunning as error:
            raise HTTPException(429, str(error), {"Retry-After": "10"}) from error

    return router


def _between(
    found: Iterable[_Of], time_of: Callable[[_Of], int], since_ms: int, until_ms: int | None, symbol: str | None
) -> list[_Of]:
    end_ms = MAX_TIME_MS if until_ms is None else until_ms
    return [one for one in found if since_ms <= time_of(one) < end_ms and (symbol is None or one.symbol == symbol)]


def _kept_alerts(
    reader: Reader, since_ms: int, until_ms: int | None, symbol: str | None, limit: int
) -> list[AlertRecord]:
    stored = reader.alerts(since_ms, symbol, limit, until_ms)
    return [record_of(alert) for one in stored if (alert := decoded_alert(one.body)) is not None]


# --- Live ------------------------------------------------------------------------------------------------------------


def _streams(hub: Hub) -> APIRouter:
    router = APIRouter()

    @router.websocket("/stream")
    async def stream(socket: WebSocket, last_id: LastId = None, only: Only = None) -> None:
        """Signals and alerts as they are found, a ``StreamEvent`` each; resumable by ``last_id``."""
        missed, reason = hub.events.after(last_id)
        first = [Message(msgspec.json.encode({"type": "reset", "reason": reason}))] if reason else []
        await serve_socket(socket, hub.events, first, missed, only or "")

    @router.websocket("/pulse")
    async def pulse(socket: WebSocket) -> None:
        """How well the watch is, at each tick."""
        await serve_socket(socket, hub.pulse, [hub.pulse_now()])

    @router.websocket("/market")
    async def market(socket: WebSocket) -> None:
        """The market table: whole at first, then at each tick what changed."""
        await serve_socket(socket, hub.market, [hub.market_now()])

    sse = {"description": "Fine", "content": {"text/event-stream": {"schema": {"type": "string"}}}}

    @router.get(
        "/events", responses={**_says(StreamEvent, refusals=(422, 503)), 200: sse}, response_class=StreamingResponse
    )
    async def events(
        request: Request,
        last_id: LastId = None,
        only: Only = None,
        last_event_id: Annotated[str | None, Header(max_length=60, description="as `last_id`")] = None,
        for_s: Annotated[float | None, Query(ge=0, le=3_600, description="end after so many seconds")] = None,
    ) -> Response:
        """Signals and alerts as server-sent events, a `StreamEvent` each; browsers resume by themselves."""
        if hub.events.is_full:
            raise HTTPException(503, TOO_MANY, {"Retry-After": "5"})
        last = last_event_id or last_id
        text = server_sent(hub.events, last, kind=only or "", name=address_of(request), for_s=for_s)
        return StreamingResponse(text, media_type="text/event-stream")

    return router


# --- Actions ---------------------------------------------------------------------------------------------------------


def _actions(hub: Hub, access: Access) -> APIRouter:
    router = APIRouter(default_response_class=Response)
    actions = hub.actions

    def add(path: str, act: Callable[[str, str], None], said: str, example: str) -> None:
        name = path[path.index("{") + 1 : path.index("}")].removesuffix(":path")

        named = PathParameter(alias=name, max_length=MAX_NAME, examples=[example])

        async def endpoint(request: Request, target: str = named) -> Response:
            act(target, access.who(request))
            return _json(Done(said.format(target)))

        router.add_api_route(
            path,
            endpoint,
            methods=["POST"],
            name=act.__name__,
            summary=act.__name__.replace("_", " ").capitalize(),
            description=inspect.getdoc(act),
            responses=_says(Done, refusals=ACTION_REFUSALS),
            openapi_extra=NEEDS_TOKEN,
        )

    add("/rules/{name}/pause", actions.pause, "{} is paused", "default")
    add("/rules/{name}/resume", actions.resume, "{} tells again", "default")
    add("/symbols/{symbol:path}/mute", actions.mute, "{} is muted", "BTC_USDT")
    add("/symbols/{symbol:path}/unmute", actions.unmute, "{} is heard again", "BTC_USDT")
    add("/symbols/{symbol:path}/pin", actions.pin, "{} is pinned", "BTC_USDT")
    add("/symbols/{symbol:path}/unpin", actions.unpin, "{} is no longer pinned", "BTC_USDT")
    add("/connections/{source}/restart", actions.restart_connection, "{} dials anew", "c1")

    @router.post(
        "/rules/{name}/change",
        responses=_says(Done, refusals=ACTION_REFUSALS),
        openapi_extra=NEEDS_TOKEN | _takes(RuleChange, _CHANGE),
    )
    async def change(name: Name, request: Request) -> Response:
        """Change a number of a rule, in force at once, until its file changes or the program ends."""
        wanted = await _body(request, RuleChange)
        rule = changed_rule(hub, name, wanted.condition, wanted.name, wanted.value)
        changes = actions.change_rule(rule, access.who(request))
        return _json(Done("; ".join(changes) or "nothing changed"))

    @router.post("/test-alert", responses=_says(Done, refusals=ACTION_REFUSALS), openapi_extra=NEEDS_TOKEN)
    async def test_alert(request: Request) -> Response:
        """Tell an alert that no market made, on every way that real ones take."""
        return _json(Done(f"alert {actions.test_alert(access.who(request)).key} is on its way"))

    @router.get("", responses=_says(ActionRecord, is_list=True))
    async def done(limit: Limit = 100) -> Response:
        """What was done to this watch and by whom, and what was refused; oldest first, of this run."""
        return _json(list(hub.bot.audit.records)[-limit:])

    return router


# --- Sessions --------------------------------------------------------------------------------------------------------


def _session(access: Access) -> APIRouter:
    router = APIRouter(default_response_class=Response)

    @router.post(
        "/login",
        responses=_says(Done, refusals=(401, 403, 422, 429)),
        openapi_extra=_takes(Login, Login("the token of the configuration")),
    )
    async def login(request: Request) -> Response:
        """Exchange the token for a session cookie."""
        wanted = await _body(request, Login)
        session = access.sign_in(wanted.token, address_of(request))
        if isinstance(session, Refusal):
            return problem(session.status, session.detail, session.headers)
        return with_session(_json(Done("signed in")), session, request)

    @router.post("/logout", responses=_says(Done))
    async def logout(request: Request) -> Response:
        """End the session."""
        access.sign_out(request.cookies.get(COOKIE, ""))
        response = _json(Done("signed out"))
        response.delete_cookie(COOKIE, httponly=True, samesite="strict")
        return response

    return router


def _login_page(access: Access) -> APIRouter:
    """A form that works without scripts, because nothing else is shown before somebody has signed in."""
    router = APIRouter(include_in_schema=False)

    @router.get("/login")
    async def form(next: str = "/") -> Response:
        said = "" if access.has_token else "No token is configured: set dashboard.token and restart."
        return HTMLResponse(_form(next, said))

    @router.post("/login")
    async def submit(request: Request) -> Response:
        fields = parse_qs((await request.body()).decode(errors="replace"))
        target = fields.get("next", ["/"])[0]
        session = access.sign_in(fields.get("token", [""])[0], address_of(request))
        if isinstance(session, Refusal):
            return HTMLResponse(_form(target, f"{session.detail[:1].upper()}{session.detail[1:]}."), session.status)
        # Only within this site: "//elsewhere" would lead away from it.
        is_ours = target.startswith("/") and not target.startswith(("//", "/\\"))
        return with_session(RedirectResponse(target if is_ours else "/", 303), session, request)

    return router


def _form(target: str, said: str) -> str:
    return f"""<!doctype html><html lang="en"><head><meta charset="utf-8"><title>perpwatch: sign in</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="stylesheet" href="/static/perpwatch.css"></head><body class="sign-in">
<form method="post" action="/login"><h1>perpwatch</h1><p>Actions change a running watch, so they need its token.</p>
<label for="token">Token</label><input id="token" name="token" type="password" autocomplete="current-password"
 required autofocus><input type="hidden" name="next" value="{escape(target, quote=True)}">
<p class="said" role="alert">{escape(said)}</p><button type="submit">Sign in</button></form></body></html>"""


def with_session(response: Response, session: str, request: Request) -> Response:
    """The response with the cookie of a session."""
    # A proxy in front speaks HTTP with us, but the browser says how it came.
    is_secure = request.headers.get("origin", "").startswith("https:")
    response.set_cookie(COOKIE, session, int(SESSION_S), httponly=True, samesite="strict", secure=is_secure)
    return response
