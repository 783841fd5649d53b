"""Stream many pairs over few connections, change them while running, and look at the health of it all.

    python examples/demo_ws_client.py --mode full --duration 60
    python examples/demo_ws_client.py --pairs 100 --connections 5

Runs against the built-in exchange; with --live against the configured one.
"""

import argparse
import asyncio
from collections import Counter
from contextlib import AsyncExitStack

from perpwatch.app.config import load_config
from perpwatch.app.demo import DemoOptions, at_addresses, serve_exchange
from perpwatch.client import Message, create_websocket_client, get_top_volume_pairs


async def main(mode: str, duration: float, pairs: int, connections: int, live: bool) -> None:
    seen: Counter[str] = Counter()

    async def on_message(message: Message) -> None:
        seen[message.channel] += 1

    async with AsyncExitStack() as stack:
        config = load_config()
        if not live:
            server = await stack.enter_async_context(serve_exchange(DemoOptions(pairs=pairs)))
            config = at_addresses(config, server.websocket_url, server.rest_url)
        top = await get_top_volume_pairs(pairs, config)
        types = ["ticker", "kline_Min1", "kline_Min5", "deals"] if mode == "full" else ["ticker", "kline_Min1"]
        client = create_websocket_client(lambda: top, on_message, types, connections, config)
        await client.start()
        await asyncio.sleep(duration / 2)
        if mode == "full":
            client.remove_pairs(top[:1])
            client.add_pairs(top[:1])
        await asyncio.sleep(duration / 2)
        print(dict(seen), client.get_statistics(), await client.check_health(), sep="\n")
        await client.stop()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mode", choices=["basic", "full"], default="basic")
    parser.add_argument("--duration", type=float, default=30.0, help="seconds")
    parser.add_argument("--pairs", type=int, default=100)
    parser.add_argument("--connections", type=int, default=10)
    parser.add_argument("--live", action="store_true", help="the configured exchange instead of the built-in one")
    asyncio.run(main(**vars(parser.parse_args())))
