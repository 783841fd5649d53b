"""perpwatch beside other programs, on the same flood.

    python benchmarks/peers.py [--runs 5] [--symbols 800]

Each does the least that its users do with it: a callback, or a candle that is kept. They get fewer frames of each
block, as they need longer for them. A peer that cannot be run is shown with the error that it ended with.
"""

from __future__ import annotations

import argparse
import sys

from harness import HERE, Contender, flooding, own, race, show, table

#: What was measured elsewhere as the factor that a user should see.
GOALS = {"naive": "4x", "ccxt_pro": "15x"}


def peer(name: str, symbols: int, frames: int, note: str) -> Contender:
    """A contender of ``peer_contenders.py``."""
    command = [sys.executable, str(HERE / "peer_contenders.py"), name, "{port}", str(symbols), "{core}"]
    return Contender(name, command, frames, f"{note}; goal {GOALS[name]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--symbols", type=int, default=800)
    arguments = parser.parse_args()
    symbols = arguments.symbols
    reference = own("perpwatch", symbols, 300_000, "everything, store and health on")
    contenders = [
        own("sink", symbols, 300_000, "reads bytes off one socket: the flood is no bottleneck"),
        reference,
        peer("naive", symbols, 60_000, "websockets and json, updates candles"),
        peer("ccxt_pro", symbols, 20_000, "watch tasks on all symbols, three streams each"),
    ]
    with flooding(symbols) as flood:
        race(contenders, flood, arguments.runs)
    title = f"Against peers: flood over {symbols} symbols, {arguments.runs} runs, ratio of perpwatch to each"
    show(table(title, contenders, reference, is_reference_better=True))


if __name__ == "__main__":
    main()
