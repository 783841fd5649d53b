"""apprise in a process of its own, one for each URL.

What it does for a message is Python that holds the interpreter's lock: as a thread of the watch, sending a letter held
up the event loop by 4 ms (99th percentile; ``benchmarks/storm.py`` measures it). The process is asked through its
standard input and ends with it, so that none is left behind, however the watch ends.

Only this file knows apprise, and only its process reads it. A URL holds passwords and tokens: it goes through the pipe
and stands in no argument; no part of it is shown, and apprise's own log is read here and goes nowhere else.
"""

from __future__ import annotations

import contextlib
import logging
import re
import subprocess
import threading
import weakref
from collections.abc import Iterable, Sequence
from typing import IO, TYPE_CHECKING, Self, TypeVar
from urllib.parse import unquote

import msgspec

from perpwatch.alert import pipes
from perpwatch.alert.spelling import cleaned
from perpwatch.errors import DeliveryFailed

if TYPE_CHECKING:
    from apprise import Apprise, NotifyBase

T = TypeVar("T")

#: Reading apprise takes half a second, and more on a machine that is busy.
START_S = 60.0
#: A part of the URL that is no longer than this is no secret, and hiding it would hide words.
MAX_PUBLIC_CHARACTERS = 3
MAX_REASON_CHARACTERS = 200
#: Services that hand a message on to a program take it as it is; Slack's own markup knows no escapes.
_PLAIN = frozenset({"json", "jsons", "xml", "xmls", "form", "forms", "slack"})
#: These read Markdown in what apprise takes for text.
_MARKDOWN = frozenset({"mmost", "mmosts", "zulip"})
#: Levels of apprise's log that tell what it does; what a library below has said is hidden among them.
_QUIET = frozenset({"TRACE", "DEBUG", "INFO"})


class Service(msgspec.Struct, frozen=True):
    """What the service of a URL takes; or why it cannot be used."""

    format: str = "text"  # or markdown, or html
    has_title: bool = False
    limit: int = 0  # characters
    takes_pictures: bool = False
    error: str = ""


class Message(msgspec.Struct, frozen=True):
    title: str
    body: str
    format: str
    type: str  # info, success, warning or failure: colours and pictures
    picture: bytes | None = None  # PNG


class Answer(msgspec.Struct, frozen=True):
    error: str = ""  # empty when it was sent


class AppriseProcess:
    """The watch's side. Calls block, and are made one at a time."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._process: subprocess.Popen[bytes] | None = None
        self._turn = threading.Lock()
        self._ending: weakref.finalize[[subprocess.Popen[bytes]], AppriseProcess] | None = None

    @property
    def pid(self) -> int | None:
        """Of the process; None while there is none."""
        return self._process.pid if self._process is not None else None

    def start(self) -> Service:
        """Start the process, and ask what the service takes.

        Raises:
            ValueError: the URL cannot be used, and why.
        """
        with self._turn:
            return self._start()

    def send(self, message: Message) -> None:
        """
        Raises:
            DeliveryFailed: and why.
        """
        with self._turn:
            if self._process is None or self._process.poll() is not None:
                try:
                    self._start()
                except ValueError as error:
                    raise DeliveryFailed(str(error), may_be_shown=False) from error
            assert self._process is not None
            try:
                answer = _ask(self._process, message, Answer)
            except (OSError, EOFError) as error:
                self._end()
                raise DeliveryFailed("apprise has ended before it answered") from error
        if answer.error:
            raise DeliveryFailed(answer.error)

    def close(self) -> None:
        """End the process, whatever it does."""
        if self._process is not None:
            self._process.kill()  # and whoever waits for its answer waits no longer
        with self._turn:
            self._end()

    def _start(self) -> Service:
        self._end()
        process = self._process = subprocess.Popen(
            pipes.command(__name__),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the watch, which ends it in its own time
        )
        self._ending = weakref.finalize(self, _end, process)
        limit = threading.Timer(START_S, process.kill)
        limit.start()
        try:
            service = _ask(process, self._url, Service)
        except (OSError, EOFError) as error:
            self._end()
            raise ValueError("apprise cannot be started") from error
        finally:
            limit.cancel()
        if service.error:
            self._end()
            raise ValueError(service.error)
        return service

    def _end(self) -> None:
        self._process = None
        if self._ending is not None:
            self._ending()
            self._ending = None


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):  # what it did not read is lost with it
                pipe.close()
    process.wait()


def _ask(process: subprocess.Popen[bytes], request: str | Message, answer: type[T]) -> T:
    assert process.stdin is not None
    assert process.stdout is not None
    pipes.write(process.stdin, request)
    return msgspec.msgpack.decode(pipes.read(process.stdout), type=answer)


# --- The process ----------------------------------------------------------------------------------------------------


def serve(requests: IO[bytes], answers: IO[bytes]) -> None:
    """Open the URL that comes first, and send what follows, until nobody asks any more."""
    url = msgspec.msgpack.decode(pipes.read(requests), type=str)
    secrets = _secrets(url)
    try:
        apprise, service = _load(url, secrets)
    except ValueError as error:
        pipes.write(answers, Service(error=str(error)))
        return
    pipes.write(
        answers,
        Service(
            format=service.resolve_format().value,
            has_title=service.title_maxlen > 0,
            limit=service.body_maxlen,
            takes_pictures=bool(service.attachment_support),
        ),
    )
    while True:
        message = msgspec.msgpack.decode(pipes.read(requests), type=Message)
        try:
            why = _send(apprise, message, secrets)
        except Exception as error:
            why = _told([f"{type(error).__name__}: {error}"], secrets)
        pipes.write(answers, Answer(why))


def _send(apprise: Apprise, message: Message, secrets: Sequence[str]) -> str:
    """Why it could not be sent; empty when it was."""
    from apprise.attachment.memory import AttachMemory

    picture = None
    if message.picture is not None:
        picture = AttachMemory(content=message.picture, name="chart.png", mimetype="image/png")
    with apprise.notify(
        body=message.body,
        title=message.title,
        notify_type=message.type,
        body_format=message.format,
        attach=picture,
        log_level=logging.DEBUG,
    ) as result:
        if result:
            return ""
        entries = [entry for one in result.results for entry in one.logs()]
        reasons = [entry.message for entry in entries if entry.level not in _QUIET or "Exception: " in entry.message]
        return _told(reasons, secrets) or "apprise does not say why it could not be sent"


def _load(url: str, secrets: Sequence[str]) -> tuple[Apprise, NotifyBase]:
    from apprise import Apprise, AppriseAsset
    from apprise.plugins import url_to_dict

    # Nothing is followed to another address and nothing is kept on disk; the time limit is ours.
    asset = AppriseAsset(
        app_id="perpwatch",
        app_desc="perpwatch",
        app_url="",
        image_url_mask="",  # nobody is sent to a third party for a picture
        image_url_logo="",
        async_mode=False,
        http_redirects=False,
        service_timeout=0,
        storage_mode="memory",
        allow_templates=False,
    )
    with _Heard() as heard:
        parts = url_to_dict(url)
        if parts is not None and parts["schema"] == "tgram":
            raise ValueError('for Telegram there is type = "telegram", which paces, edits and takes commands')
        # Trying again is ours, and what may fail unseen would be lost. Too long a message is sent in parts.
        settings = {"overflow": "split", **(parts or {}), "retry": 0, "optional": False}
        service = Apprise.instantiate(settings, asset=asset) if parts is not None else None
        if service is None:
            reasons = [one for one in heard.messages if " URL" not in one]  # such a one shows parts of it
            raise ValueError(_told(reasons, secrets) or "apprise cannot use this URL on this machine")
        wanted = _format_for(service, str(settings["schema"]))
        if wanted and "format" not in settings:
            service = Apprise.instantiate({**settings, "format": wanted}, asset=asset)
    assert service is not None, "only the format was added"
    if service.request_rate_per_sec == _guessed_rate():
        service.request_rate_per_sec = 0.0
    apprise = Apprise(asset=asset)
    apprise.add(service)
    return apprise, service


def _format_for(service: NotifyBase, schema: str) -> str:
    """In which a service is told things so that it takes nothing in them for markup; empty for its own choice."""
    formats = [one.value for one in service._formats()]
    if schema in _PLAIN and "text" in formats:
        return "text"
    # A chat takes asterisks for markup in what apprise calls text, too.
    if schema in _MARKDOWN or ("markdown" in formats and formats[0] != "html"):
        return "markdown"
    return ""


def _guessed_rate() -> float:
    """Seconds between two requests where apprise knows no limit of the service. Ours is kept anyway."""
    from apprise import NotifyBase

    return float(NotifyBase.request_rate_per_sec)


class _Heard(logging.Handler):
    """What apprise complains about while this is open."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []
        self._logger = logging.getLogger("apprise")

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())

    def __enter__(self) -> Self:
        self._logger.addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._logger.removeHandler(self)


# --- What is shown --------------------------------------------------------------------------------------------------


def _secrets(url: str) -> list[str]:
    """All parts of a URL, as written and as meant, longest first; whoever needs the host finds it in the settings."""
    rest = url.partition("://")[2]
    parts = {rest, *re.split(r"[/?&=:@#,;+\s]+", rest)}
    spellings = {spelling for part in parts for spelling in (part, unquote(part))}
    return sorted((one for one in spellings if len(one) > MAX_PUBLIC_CHARACTERS), key=len, reverse=True)


def _told(messages: Iterable[str], secrets: Sequence[str]) -> str:
    """Complaints in one line, without secrets."""
    text = "; ".join(dict.fromkeys(" ".join(one.split()) for one in messages))
    for secret in secrets:
        # A short one may be part of a word that means something else.
        pattern = re.escape(secret) if len(secret) > 8 else rf"(?<!\w){re.escape(secret)}(?!\w)"
        text = re.sub(pattern, "***", text, flags=re.IGNORECASE)
    return cleaned(text)[:MAX_REASON_CHARACTERS]


def main() -> None:
    logging.getLogger("apprise").setLevel(logging.DEBUG)
    with contextlib.suppress(EOFError, BrokenPipeError):
        serve(*pipes.opened_in_child())


if __name__ == "__main__":
    main()
