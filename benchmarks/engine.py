"""What the whole program costs beside receiving and decoding alone.

python benchmarks/engine.py [--runs 5] [--symbols 800]
"""

from __future__ import annotations

import argparse

from harness import flooding, own, race, show, table

#: One minute of the market, with the close of a minute in it.
FRAMES = 300_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--symbols", type=int, default=800)
    arguments = parser.parse_args()
    symbols = arguments.symbols
    reference = own("bare", symbols, FRAMES, "receives (picows) and decodes (msgspec, typed)")
    contenders = [
        own("sink", symbols, FRAMES, "reads bytes off one socket: the flood is no bottleneck"),
        own("picows_only", symbols, FRAMES, "receives, without decoding"),
        reference,
        own("perpwatch", symbols, FRAMES, "everything: candles, ledger, detection, metrics, store, health"),
    ]
    with flooding(symbols) as flood:
        race(contenders, flood, arguments.runs)
    title = f"The whole engine: flood over {symbols} symbols, {arguments.runs} runs, ratio to the bare loop (goal 0.5)"
    show(table(title, contenders, reference, is_reference_better=False))


if __name__ == "__main__":
    main()
