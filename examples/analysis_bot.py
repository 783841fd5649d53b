"""A bot that is told about candles and signals: override what you want to hear.

python examples/analysis_bot.py --duration 60
"""

import argparse
import asyncio

from perpwatch.app.bot import AsyncMexcAnalysisBot
from perpwatch.app.config import load_config
from perpwatch.app.demo import DemoOptions, at_addresses, serve_exchange
from perpwatch.app.messages import Message
from perpwatch.model import Signal


class MyBot(AsyncMexcAnalysisBot):
    candles = 0

    async def _handle_kline_message(self, message: Message) -> None:
        self.candles += 1

    def _handle_signal(self, signal: Signal) -> None:
        print(signal.symbol, signal.timeframe, signal.direction, *(reason.text for reason in signal.reasons[:2]))


async def main(duration: float) -> None:
    async with serve_exchange(DemoOptions(pairs=100)) as server:
        config = at_addresses(load_config(), server.websocket_url, server.rest_url)
        bot = MyBot(timeframes=["Min1", "Min5"], analysis_interval=60, config=config)
        asyncio.get_running_loop().call_later(duration, bot.stop)
        await bot.run_async()
        print(f"{bot.candles} candle messages")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--duration", type=float, default=30.0, help="seconds")
    asyncio.run(main(**vars(parser.parse_args())))
