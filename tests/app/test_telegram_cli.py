from __future__ import annotations

import asyncio

import pytest

from local_exchange import until
from perpwatch.app.telegram_cli import print_chats
from perpwatch.errors import ConfigurationError
from perpwatch.sim.bot_api import BotApiServer


async def test_numbers_of_chats_topics_and_people_are_printed_once_as_they_write(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with BotApiServer() as api:
        api.add_chat(77)
        api.add_chat(-100123, topics=[5])
        for _ in range(2):
            api.say(77, 77, "/start")
        api.push({"message": {"chat": {"id": 1, "title": "\x1b[2Jbad"}, "from": {"id": 2, "first_name": "x\r\ny"}}})
        api.push({"message": {"text": "of nobody"}})
        printing = asyncio.create_task(print_chats(api.token, api.url, None, 2.0))
        await until(lambda: len(api.received) > 1)
        api.say(78, -100123, "/start", 5)
        await printing
        assert capsys.readouterr().out.splitlines() == [
            "chat = 77  (private); user 77 (User 77)",
            "chat = 1  ([2Jbad); user 2 (x y)",
            "chat = -100123, topic = 5  (A group); user 78 (User 78)",
        ]


async def test_a_token_that_telegram_does_not_know_is_said() -> None:
    async with BotApiServer() as api:
        with pytest.raises(ConfigurationError, match="does not know this token") as error:
            await print_chats("123456:wrong-and-secret", api.url, None, 2.0)
    assert "secret" not in str(error.value)
