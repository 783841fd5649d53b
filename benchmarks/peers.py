"""perpwatch beside other programs, on the same flood.

    make peers && python benchmarks/peers.py [--runs 5] [--symbols 800]

Each does the least that its users do with it: a callback, or a candle that is kept. They get fewer frames of each
block, as they need longer for them. The flood speaks MEXC's language, and Binance's to those who know that one better,
with the same trades behind it. They live in an environment of their own (``benchmarks/peers.txt``). A peer that cannot
be run is shown with the error that it ended with.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass

from harness import HERE, Contender, flooding, own, race, show, table

PEERS_PYTHON = HERE / ".peers" / "bin" / "python"


@dataclass(frozen=True, slots=True)
class Peer:
    """Another program.

    Args:
        goal: the factor that a user of perpwatch should see.
        frames: of each flood; so many take about a second.
    """

    name: str
    goal: int
    frames: int
    note: str
    speaks: str = "mexc"

    def contender(self, symbols: int) -> Contender:
        command = [str(PEERS_PYTHON), str(HERE / "peer_contenders.py"), self.name, "{port}", str(symbols), "{core}"]
        tag = self.name if self.speaks == "mexc" else f"{self.speaks}_{self.name}"
        return Contender(self.name, command, self.frames, f"{self.note}; goal {self.goal}x", tag)


PEERS = (
    Peer("naive", 4, 60_000, "websockets and json, updates candles"),
    Peer("ccxt_pro", 15, 20_000, "watch tasks on all symbols, three streams each"),
    Peer("cryptofeed", 5, 60_000, "Binance's shapes, objects to callbacks", "binance"),
    Peer("pymexc", 4, 40_000, "its synchronous client, updates candles"),
    Peer("nautilus", 5, 50_000, "Binance's shapes, Python client, data engine, cache", "binance"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--symbols", type=int, default=800)
    arguments = parser.parse_args()
    if not PEERS_PYTHON.exists():
        sys.exit(f"{PEERS_PYTHON} is missing: `make peers` installs what benchmarks/peers.txt names")
    symbols = arguments.symbols
    reference = own("perpwatch", symbols, 300_000, "everything: store, metrics, health, API and pages on")
    contenders = [
        own("sink", symbols, 300_000, "reads bytes off one socket: the flood is no bottleneck"),
        reference,
        *(peer.contender(symbols) for peer in PEERS),
    ]
    with flooding(symbols) as flood:
        race(contenders, flood, arguments.runs)
    title = f"Against peers: flood over {symbols} symbols, {arguments.runs} runs, ratio of perpwatch to each"
    show(table(title, contenders, reference, is_reference_better=True))


if __name__ == "__main__":
    main()
