"""A Bot API of Telegram on a real local port, for whoever must not touch the internet.

It speaks HTTP as the real one does: methods below ``/bot<token>/``, parameters as a form, JSON or multipart with
files, answers with ``ok``, ``result``, ``error_code``, ``description`` and ``parameters``. It keeps chats, topics and
messages, reads the HTML of texts, is as strict as the real one about what it refuses, and counts its limits by the
moment at which it has received a request. :class:`BotApiServer` also has the other side: people who write, press
buttons and delete.

Source: https://core.telegram.org/bots/api and https://core.telegram.org/bots/faq (limits); the descriptions of errors
are those of https://github.com/tdlib/telegram-bot-api.
"""

from __future__ import annotations

import asyncio
import enum
import itertools
import random
import struct
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import msgspec
from aiohttp import web

MAX_TEXT, MAX_CAPTION, MAX_CALLBACK_BYTES, MAX_PHOTO_BYTES = 4_096, 1_024, 64, 10 * 2**20
MAX_REQUEST_BYTES = 50 * 2**20
#: Calls that reach a chat, and the limits on them.
MESSAGING = ("sendmessage", "sendphoto", "editmessagetext", "editmessagecaption", "editmessagemedia")
#: Calls, seconds: of one chat, of one group, and of all chats together.
CHAT_LIMIT, GROUP_LIMIT, BOT_LIMIT = (1, 1.0), (20, 60.0), (30, 1.0)


class Fault(enum.StrEnum):
    """What can happen to a call."""

    TOO_MANY = "429"  # refused although no limit is exceeded, with a pause
    BROKEN = "500"
    BAD_GATEWAY = "502"  # HTML of a machine in front of the service
    SILENT = "silent"  # never answered, and nothing done
    RESET = "reset"  # cut off before anything is done
    LOST_ANSWER = "lost answer"  # done, and cut off instead of an answer


class Refused(Exception):
    """An answer that is no success."""

    def __init__(self, status: int, description: str, parameters: Mapping[str, int] | None = None) -> None:
        super().__init__(description)
        self.status = status
        self.description = description
        self.parameters = parameters


@dataclass(slots=True)
class SentMessage:
    """A message as people see it; edits change it in place."""

    message_id: int
    thread_id: int | None
    text: str  # what is read, without HTML; the caption where there is a photo
    html: str
    photo: bytes | None
    buttons: list[list[dict[str, str]]]
    received_s: float
    is_silent: bool = False
    edits: int = 0
    is_deleted: bool = False

    def button(self, text: str) -> dict[str, str]:
        """The button with these words on it."""
        return next(one for row in self.buttons for one in row if one["text"] == text)


@dataclass(slots=True)
class Chat:
    chat_id: int
    kind: str  # private, group, supergroup or channel
    topics: set[int] | None = None  # None where it is no forum
    messages: list[SentMessage] = field(default_factory=list)
    refusal: Refused | None = None  # what every call to it is answered with: blocked, kicked ...
    moved_to: int | None = None
    next_message_id: int = 1

    @property
    def shown(self) -> list[SentMessage]:
        """Messages that were not deleted, oldest first."""
        return [message for message in self.messages if not message.is_deleted]


@dataclass(slots=True)
class Received:
    """One call, as it came in."""

    method: str
    parameters: dict[str, Any]
    received_s: float
    status: int = 0  # of the answer; 0 where there was none


class BotApiServer:
    """Serves one bot on loopback.

    Args:
        token: the bot's; any other is unauthorized.
        port: 0 takes a free one.
        is_strict: answers 429 to a call that exceeds a limit; it is counted as exceeding either way.
        monotonic: the clock that limits are counted by.
    """

    def __init__(
        self,
        token: str = "123456789:local-bot-token_for-tests-of-perpwatch",
        port: int = 0,
        *,
        is_strict: bool = True,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.token = token
        self.port = port
        self.username = "perpwatch_test_bot"
        self.is_strict = is_strict
        self.chats: dict[int, Chat] = {}
        self.received: list[Received] = []
        self.exceeded: list[str] = []  # calls beyond a limit, in words
        self.faulty = set(MESSAGING)  # methods that faults befall
        self.faults: deque[Fault | None] = deque()  # of the next calls of these; None lets one pass
        self.fault_shares: dict[Fault, float] = {}  # of all others, drawn at random
        self.retry_after_s = 1
        self.answered_queries: dict[str, dict[str, Any]] = {}
        self.commands: list[dict[str, str]] = []
        self._random = random.Random(1)
        self._monotonic = monotonic
        self._arrivals: dict[str, deque[float]] = {}
        self._updates: list[dict[str, Any]] = []
        self._news = asyncio.Event()
        self._update_ids = itertools.count(1_000)
        self._query_ids = itertools.count(1)
        self._open_queries: set[str] = set()
        self._polls = 0
        self._runner: web.AppRunner | None = None

    # --- Life -------------------------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """The base URL of its Bot API."""
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> BotApiServer:
        application = web.Application(client_max_size=MAX_REQUEST_BYTES)
        application.router.add_route("*", "/bot{token}/{method}", self._call)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    # --- Chats and people -------------------------------------------------------------------------------------------

    def add_chat(self, chat_id: int, *, topics: Sequence[int] | None = None, kind: str = "") -> Chat:
        """A chat that the bot is in; negative ids are groups, those with ``topics`` forums."""
        kind = kind or ("private" if chat_id > 0 else "supergroup")
        self.chats[chat_id] = chat = Chat(chat_id, kind, set(topics) if topics is not None else None)
        return chat

    def move(self, chat_id: int, new_id: int) -> Chat:
        """Make a supergroup of a group, which gives it another id."""
        self.chats[chat_id].moved_to = new_id
        return self.add_chat(new_id)

    def delete(self, chat_id: int, message_id: int) -> None:
        """Somebody deletes a message of the bot."""
        self._message(self.chats[chat_id], message_id).is_deleted = True

    def say(self, user_id: int, chat_id: int, text: str, thread_id: int | None = None) -> None:
        """Somebody writes to a chat."""
        message: dict[str, Any] = {
            "message_id": self._next_message_id(self.chats[chat_id]),
            "date": int(time.time()),
            "chat": self._chat_fields(self.chats[chat_id]),
            "from": _user(user_id),
            "text": text,
        }
        if text.startswith("/"):
            length = len(text.split()[0])
            message["entities"] = [{"type": "bot_command", "offset": 0, "length": length}]
        if thread_id is not None:
            message |= {"message_thread_id": thread_id, "is_topic_message": True}
        self.push({"message": message})

    def press(self, user_id: int, chat_id: int, message_id: int, data: str) -> str:
        """Somebody presses a button, or a program says that he did; returns the id of the query."""
        query_id = str(next(self._query_ids))
        self._open_queries.add(query_id)
        chat = self.chats[chat_id]
        message = self._message_fields(chat, self._message(chat, message_id))
        self.push(
            {
                "callback_query": {
                    "id": query_id,
                    "from": _user(user_id),
                    "chat_instance": "1",
                    "message": message,
                    "data": data,
                }
            }
        )
        return query_id

    def push(self, update: Mapping[str, Any]) -> None:
        """Have the bot told something."""
        self._updates.append({"update_id": next(self._update_ids), **update})
        self._news.set()

    # --- Calls ------------------------------------------------------------------------------------------------------

    async def _call(self, request: web.Request) -> web.StreamResponse:
        parameters, files = await _parameters(request)
        method = request.match_info["method"].lower()
        received = Received(method, parameters, self._monotonic())
        self.received.append(received)
        try:
            if request.match_info["token"] != self.token:
                raise Refused(401, "Unauthorized")
            fault = None
            if method in MESSAGING:
                self._count(parameters, received.received_s)
            if method in self.faulty:
                fault = self._next_fault()
            await self._suffer(request, fault)
            result = await self._answer(method, parameters, files)
            if fault is Fault.LOST_ANSWER:
                return _cut(request)
        except Refused as refused:
            received.status = refused.status
            body: dict[str, Any] = {"ok": False, "error_code": refused.status, "description": refused.description}
            if refused.parameters is not None:
                body["parameters"] = refused.parameters
            return _json(refused.status, body)
        except ConnectionResetError:
            return _cut(request)
        except _BadGateway:
            received.status = 502
            return web.Response(status=502, text="<html><h1>502 Bad Gateway</h1></html>", content_type="text/html")
        received.status = 200
        return _json(200, {"ok": True, "result": result})

    def _next_fault(self) -> Fault | None:
        if self.faults:
            return self.faults.popleft()
        number = self._random.random()
        for fault, share in self.fault_shares.items():
            number -= share
            if number < 0.0:
                return fault
        return None

    async def _suffer(self, request: web.Request, fault: Fault | None) -> None:
        match fault:
            case Fault.TOO_MANY:
                raise _too_many(self.retry_after_s)
            case Fault.BROKEN:
                raise Refused(500, "Internal Server Error")
            case Fault.BAD_GATEWAY:
                raise _BadGateway
            case Fault.RESET:
                raise ConnectionResetError
            case Fault.SILENT:
                await asyncio.get_running_loop().create_future()  # until the client hangs up

    def _count(self, parameters: Mapping[str, Any], now_s: float) -> None:
        """Count a call against the limits; every call counts, whatever becomes of it."""
        chat = str(parameters.get("chat_id", ""))
        limits = [("all", "all chats", BOT_LIMIT), (f"chat {chat}", f"chat {chat}", CHAT_LIMIT)]
        if chat.startswith(("-", "@")):
            limits.append((f"group {chat}", f"group {chat}", GROUP_LIMIT))
        longest_s = 0.0
        for name, words, (calls, seconds) in limits:
            arrivals = self._arrivals.setdefault(name, deque(maxlen=calls))
            if len(arrivals) == calls and now_s - arrivals[0] < seconds:
                self.exceeded.append(f"{words}: more than {calls} within {seconds:g} s")
                longest_s = max(longest_s, arrivals[0] + seconds - now_s)
            arrivals.append(now_s)
        if longest_s and self.is_strict:
            raise _too_many(int(longest_s) + 1)

    async def _answer(self, method: str, parameters: dict[str, Any], files: Mapping[str, bytes]) -> Any:
        match method:
            case "getme":
                return {**_user(int(self.token.partition(":")[0])), "is_bot": True, "username": self.username}
            case "getupdates":
                return await self._get_updates(parameters)
            case "answercallbackquery":
                return self._answer_query(parameters)
            case "setmycommands":
                self.commands = _json_of(parameters.get("commands"), [])
                return True
            case "deletewebhook":
                return True
            case "sendmessage" | "sendphoto":
                return self._send(method, parameters, files)
            case "editmessagetext" | "editmessagecaption" | "editmessagemedia":
                return self._edit(method, parameters, files)
        raise Refused(404, "Not Found: method not found")

    # --- Messages ---------------------------------------------------------------------------------------------------

    def _send(self, method: str, parameters: dict[str, Any], files: Mapping[str, bytes]) -> dict[str, Any]:
        chat = self._chat(parameters)
        thread_id = int(parameters["message_thread_id"]) if "message_thread_id" in parameters else None
        if thread_id is not None and (chat.topics is None or thread_id not in chat.topics):
            raise Refused(400, "Bad Request: message thread not found")
        buttons = _buttons(parameters)
        photo: bytes | None = None
        if method == "sendphoto":
            html = str(parameters.get("caption", ""))
            text = _read(html, parameters, MAX_CAPTION, "Bad Request: message caption is too long")
            photo = _photo(str(parameters.get("photo", "")), files)
        else:
            html = str(parameters.get("text", ""))
            text = _read(html, parameters, MAX_TEXT, "Bad Request: message is too long")
            if not text.strip():
                raise Refused(400, "Bad Request: message text is empty")
        message = SentMessage(
            self._next_message_id(chat), thread_id, text, html, photo, buttons, self._monotonic(),
            is_silent=str(parameters.get("disable_notification", "")).lower() == "true",
        )  # fmt: skip
        chat.messages.append(message)
        return self._message_fields(chat, message)

    def _edit(self, method: str, parameters: dict[str, Any], files: Mapping[str, bytes]) -> dict[str, Any]:
        chat = self._chat(parameters)
        message = self._message(chat, int(parameters.get("message_id", 0)))
        if message.is_deleted:
            raise Refused(400, "Bad Request: message to edit not found")
        buttons, photo = _buttons(parameters), message.photo
        if method == "editmessagetext":
            if photo is not None:
                raise Refused(400, "Bad Request: there is no text in the message to edit")
            html = str(parameters.get("text", ""))
            text = _read(html, parameters, MAX_TEXT, "Bad Request: MESSAGE_TOO_LONG")
        elif method == "editmessagecaption":
            if photo is None:
                raise Refused(400, "Bad Request: there is no caption in the message to edit")
            html = str(parameters.get("caption", ""))
            text = _read(html, parameters, MAX_CAPTION, "Bad Request: message caption is too long")
        else:
            media = _json_of(parameters.get("media"), {})
            if media.get("type") != "photo":
                raise Refused(400, "Bad Request: type of the media is not supported here")
            html = str(media.get("caption", ""))
            text = _read(html, media, MAX_CAPTION, "Bad Request: message caption is too long")
            photo = _photo(str(media.get("media", "")), files)
        is_new_photo = method == "editmessagemedia"  # an upload is another file, even of the same bytes
        if not is_new_photo and (html, buttons) == (message.html, message.buttons):
            raise Refused(
                400,
                "Bad Request: message is not modified: specified new message content and reply markup are exactly "
                "the same as a current content and reply markup of the message",
            )
        message.text, message.html, message.buttons, message.photo = text, html, buttons, photo
        message.edits += 1
        return self._message_fields(chat, message)

    def _chat(self, parameters: Mapping[str, Any]) -> Chat:
        try:
            chat = self.chats[int(parameters.get("chat_id", 0))]
        except (KeyError, ValueError):
            raise Refused(400, "Bad Request: chat not found") from None
        if chat.moved_to is not None:
            raise Refused(
                400,
                "Bad Request: group chat was upgraded to a supergroup chat",
                {"migrate_to_chat_id": chat.moved_to},
            )
        if chat.refusal is not None:
            raise chat.refusal
        return chat

    def _message(self, chat: Chat, message_id: int) -> SentMessage:
        for message in chat.messages:
            if message.message_id == message_id:
                return message
        raise Refused(400, "Bad Request: message to edit not found")

    def _next_message_id(self, chat: Chat) -> int:
        chat.next_message_id += 1
        return chat.next_message_id - 1

    def _chat_fields(self, chat: Chat) -> dict[str, Any]:
        fields: dict[str, Any] = {"id": chat.chat_id, "type": chat.kind}
        fields |= {"first_name": f"User {chat.chat_id}"} if chat.kind == "private" else {"title": "A group"}
        return fields | ({"is_forum": True} if chat.topics is not None else {})

    def _message_fields(self, chat: Chat, message: SentMessage) -> dict[str, Any]:
        fields: dict[str, Any] = {
            "message_id": message.message_id,
            "date": int(time.time()),
            "chat": self._chat_fields(chat),
            "from": {**_user(int(self.token.partition(":")[0])), "is_bot": True},
        }
        if message.thread_id is not None:
            fields |= {"message_thread_id": message.thread_id, "is_topic_message": True}
        if message.buttons:
            fields["reply_markup"] = {"inline_keyboard": message.buttons}
        if message.photo is None:
            return fields | {"text": message.text}
        width, height = _png_size(message.photo)
        photo = {"file_id": "f", "file_unique_id": "u", "width": width, "height": height}
        return fields | {"caption": message.text, "photo": [photo]}

    # --- Updates ----------------------------------------------------------------------------------------------------

    async def _get_updates(self, parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
        self._polls += 1
        poll = self._polls
        self._news.set()  # an older poll learns that it has been overtaken
        offset = int(parameters.get("offset", 0))
        self._updates = [update for update in self._updates if update["update_id"] >= offset]
        deadline_s = asyncio.get_running_loop().time() + float(parameters.get("timeout", 0))
        while not self._updates:
            left_s = deadline_s - asyncio.get_running_loop().time()
            if left_s <= 0:
                break
            self._news.clear()
            try:
                async with asyncio.timeout(left_s):
                    await self._news.wait()
            except TimeoutError:
                break
            if self._polls != poll:
                raise Refused(
                    409,
                    "Conflict: terminated by other getUpdates request; make sure that only one bot instance is running",
                )
        return self._updates[: int(parameters.get("limit", 100))]

    def _answer_query(self, parameters: dict[str, Any]) -> bool:
        query_id = str(parameters.get("callback_query_id", ""))
        if query_id not in self._open_queries:
            raise Refused(400, "Bad Request: query is too old and response timeout expired or query ID is invalid")
        if len(str(parameters.get("text", ""))) > 200:
            raise Refused(400, "Bad Request: MESSAGE_TOO_LONG")
        self._open_queries.remove(query_id)
        self.answered_queries[query_id] = parameters
        return True


# --- HTTP ------------------------------------------------------------------------------------------------------------


class _BadGateway(Exception):
    pass


def _json(status: int, body: Mapping[str, Any]) -> web.Response:
    return web.Response(status=status, body=msgspec.json.encode(body), content_type="application/json")


def _cut(request: web.Request) -> web.Response:
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=503)


def _too_many(retry_after_s: int) -> Refused:
    description = f"Too Many Requests: retry after {retry_after_s}"
    return Refused(429, description, {"retry_after": retry_after_s})


async def _parameters(request: web.Request) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Parameters and files, in any of the spellings that the Bot API takes."""
    parameters: dict[str, Any] = dict(request.query)
    files: dict[str, bytes] = {}
    if request.content_type == "application/json":
        parameters |= await request.json()
    elif request.content_type in ("application/x-www-form-urlencoded", "multipart/form-data"):
        for name, value in (await request.post()).items():
            if isinstance(value, web.FileField):
                files[name] = value.file.read()
            else:
                parameters[name] = value
    return parameters, files


def _json_of(value: Any, default: Any) -> Any:
    """A parameter that is JSON in a form, and itself in a JSON body."""
    if value is None:
        return default
    try:
        return msgspec.json.decode(value) if isinstance(value, str) else value
    except msgspec.DecodeError:
        raise Refused(400, "Bad Request: can't parse JSON object") from None


def _user(user_id: int) -> dict[str, Any]:
    return {"id": user_id, "is_bot": False, "first_name": f"User {user_id}"}


# --- What a message may hold ------------------------------------------------------------------------------------------


class _Html(HTMLParser):
    """Reads the HTML that Telegram takes."""

    TAGS = frozenset(
        (
            "a",
            "b",
            "blockquote",
            "code",
            "del",
            "em",
            "i",
            "ins",
            "pre",
            "s",
            "span",
            "strike",
            "strong",
            "tg-spoiler",
            "u",
        )
    )

    def __init__(self) -> None:
        super().__init__(convert_charrefs=False)
        self.text: list[str] = []
        self._open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.TAGS:
            raise Refused(400, f'Bad Request: can\'t parse entities: Unsupported start tag "{tag}"')
        self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open.pop() != tag:
            raise Refused(400, f'Bad Request: can\'t parse entities: Unexpected end tag "{tag}"')

    def handle_data(self, data: str) -> None:
        if "<" in data:
            raise Refused(400, "Bad Request: can't parse entities: Unsupported start tag")
        self.text.append(data)

    def handle_entityref(self, name: str) -> None:
        self.text.append({"lt": "<", "gt": ">", "amp": "&", "quot": '"'}.get(name, f"&{name};"))

    def handle_charref(self, name: str) -> None:
        self.text.append(chr(int(name[1:], 16) if name[:1] in ("x", "X") else int(name)))

    def read(self, html: str) -> str:
        self.feed(html)
        self.close()
        if self._open:
            raise Refused(
                400, f"Bad Request: can't parse entities: Can't find end tag corresponding to {self._open[-1]}"
            )
        return "".join(self.text)


def _read(html: str, parameters: Mapping[str, Any], limit: int, too_long: str) -> str:
    mode = str(parameters.get("parse_mode", "")).lower()
    if mode not in ("", "html"):
        raise Refused(400, "Bad Request: unsupported parse_mode")
    text = _Html().read(html) if mode == "html" else html
    if len(text.encode("utf-16-le")) // 2 > limit:
        raise Refused(400, too_long)
    return text


def _buttons(parameters: Mapping[str, Any]) -> list[list[dict[str, str]]]:
    rows: list[list[dict[str, str]]] = _json_of(parameters.get("reply_markup"), {}).get("inline_keyboard", [])
    for button in (one for row in rows for one in row):
        if not button.get("text"):
            raise Refused(400, "Bad Request: can't parse inline keyboard button: Text must be non-empty")
        if "callback_data" in button:
            if not 1 <= len(button["callback_data"].encode()) <= MAX_CALLBACK_BYTES:
                raise Refused(400, "Bad Request: BUTTON_DATA_INVALID")
        elif "url" in button:
            parts = urlsplit(button["url"])
            if parts.scheme not in ("http", "https", "tg") or "." not in (parts.hostname or ""):
                raise Refused(
                    400, f"Bad Request: inline keyboard button URL '{button['url']}' is invalid: Wrong HTTP URL"
                )
        else:
            raise Refused(400, "Bad Request: can't parse inline keyboard button: Text buttons are unallowed")
    return rows


def _photo(name: str, files: Mapping[str, bytes]) -> bytes:
    if not name.startswith("attach://") or name.removeprefix("attach://") not in files:
        raise Refused(400, "Bad Request: there is no photo in the request")
    photo = files[name.removeprefix("attach://")]
    if len(photo) > MAX_PHOTO_BYTES:
        raise Refused(413, "Request Entity Too Large")
    width, height = _png_size(photo)
    if width + height > 10_000 or max(width, height) > 20 * min(width, height):
        raise Refused(400, "Bad Request: PHOTO_INVALID_DIMENSIONS")
    return photo


def _png_size(photo: bytes) -> tuple[int, int]:
    if photo[:8] != b"\x89PNG\r\n\x1a\n" or photo[12:16] != b"IHDR":
        raise Refused(400, "Bad Request: IMAGE_PROCESS_FAILED")
    width, height = struct.unpack(">II", photo[16:24])
    return width, height
