"""The contracts of the simulated exchange: names, sizes and temper, drawn from a seed.

The first ones carry the names a reader knows; the others are invented, with the oddities of the real list: multiplier
names, long names, stocks and metals, contract sizes from 0.00001 to 10,000,000 base coins.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass

import numpy as np

CRYPTO = ()
STOCK = ("mc-trade-zone-tradfi", "mc-trade-zone-Stock")
METAL = ("mc-trade-zone-tradfi", "mc-trade-zone-metals")
INDEX = ("mc-trade-zone-tradfi", "mc-trade-zone-stockindex")
FOREX = ("mc-trade-zone-tradfi", "mc-trade-zone-Forex")
COMMODITY = ("mc-trade-zone-tradfi", "mc-trade-zone-Commodities")

#: base coin, first price, contract size (0: chosen by price), zones; most traded first.
_KNOWN: tuple[tuple[str, float, float, tuple[str, ...]], ...] = (
    ("BTC", 84_100.0, 0.0001, ("mc-trade-zone-pow", "mc-trade-zone-layer2")),
    ("ETH", 2_975.4, 0.01, ("mc-trade-zone-layer2",)),
    ("SOL", 98.35, 0.1, ()),
    ("XRP", 2.1134, 1.0, ()),
    ("DOGE", 0.08012, 100.0, ("mc-trade-zone-pow",)),
    ("SUI", 1.8312, 1.0, ()),
    ("PEPE", 0.0000081234, 10_000_000.0, ()),
    ("GOLD", 4_012.3, 0.001, METAL),
    ("BNB", 612.4, 0.01, ()),
    ("ADA", 0.4127, 10.0, ()),
    ("LINK", 13.215, 0.1, ()),
    ("1000BONK", 0.01432, 100.0, ()),
    ("AVAX", 17.36, 0.1, ()),
    ("SILVER", 51.27, 0.01, METAL),
    ("TRX", 0.2871, 10.0, ()),
    ("LTC", 84.55, 0.01, ("mc-trade-zone-pow",)),
    ("TRUMPOFFICIAL", 5.812, 1.0, ()),
    ("SHIB", 0.000012345, 1_000.0, ()),
    ("PUMPFUN", 0.0031245, 1_000.0, ()),
    ("FILECOIN", 1.5312, 1.0, ()),
    ("NVIDIA", 182.41, 0.01, STOCK),
    ("TESLA", 412.7, 0.01, STOCK),
    ("WIF", 0.5512, 1.0, ()),
    ("1000000MOG", 0.4123, 10.0, ()),
    ("ENA", 0.3127, 10.0, ()),
    ("HYPE", 38.112, 0.1, ()),
    ("SKHYNIXSTOCK", 1_235.0, 0.001, STOCK),
    ("BERKSHIRESTOCK", 712_000.0, 0.00001, STOCK),
    ("CHEEMS", 0.0000015036, 1_000_000.0, ()),
    ("1000RATS", 0.02214, 100.0, ()),
    ("LIGHT", 1.276, 1.0, ("mc-trade-zone-0fees",)),
    ("WCT", 0.04114, 10.0, ()),
    ("1000000BABYDOGE", 0.000912, 10_000.0, ()),
    ("RIF", 0.08054, 10.0, ()),
    ("CLO", 0.2134, 10.0, ("mc-trade-zone-contract-new",)),
    ("NAS100", 24_812.0, 0.001, INDEX),
    ("EUR", 1.1623, 10.0, FOREX),
    ("USOIL", 61.84, 0.1, COMMODITY),
)

_ONSETS = ("B", "C", "D", "F", "G", "H", "J", "K", "L", "M", "N", "P", "QU", "R", "S", "T", "V", "W", "X", "Z")
_SYLLABLES = tuple(onset + vowel for onset in _ONSETS for vowel in ("A", "E", "I", "O"))

#: Trades a minute and turnover a day (quote coin) of the most traded contract; the others follow by rank.
_TOP_TRADES_PER_MINUTE = 300.0
_TOP_TURNOVER_PER_DAY = 800e6
_TRADES_EXPONENT = 0.9
_TURNOVER_EXPONENT = 1.25
_FIRST_QUIET_RANK = 6
_QUIET_FACTOR = 0.04


@dataclass(slots=True)
class Instrument:
    """A contract and how it behaves. Rates are averages over a day.

    Prices have ``price_scale`` decimals; ``contract_size`` is in base coin, or in quote coin when coin-margined.
    """

    symbol: str
    base_coin: str
    quote_coin: str
    settle_coin: str
    contract_id: int
    contract_size: float
    price_scale: int
    first_price: float
    zones: tuple[str, ...]
    trades_per_minute: float
    turnover_per_day: float  # quote coin
    volatility: float  # standard deviation of one minute's log return
    key: int  # names the random streams; survives a rename
    state: int = 0  # as on the wire: 0 enabled, 1 delivery, 2 delivered, 3 offline, 4 paused
    opening_time_ms: int = 0
    is_new: bool = False

    @property
    def price_unit(self) -> float:
        return float(f"1e-{self.price_scale}")

    @property
    def is_coin_margined(self) -> bool:
        return self.settle_coin != self.quote_coin


def generator(seed: int, *stream: int) -> np.random.Generator:
    """An independent random stream named by integers."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, *stream])))


def universe(seed: int, contracts: int, quiet_share: float = 0.15, coin_margined: int = 0) -> list[Instrument]:
    """The contracts of an exchange, most traded first.

    A longer list begins with the shorter one of the same seed.

    Args:
        quiet_share: of the contracts below the top, how many trade only a few times an hour.
        coin_margined: how many of BTC_USD, ETH_USD ... are appended.
    """
    names = _names(seed, contracts)
    instruments = [
        instrument(seed, f"{name}_USDT", rank, quiet_share, price, size, zones)
        for rank, (name, price, size, zones) in enumerate(names, start=1)
    ]
    for number, (name, price, _, zones) in enumerate(_KNOWN[:coin_margined]):
        inverse = instrument(seed, f"{name}_USD", 20 + number, 0.0, price, 100.0 if number == 0 else 10.0, zones)
        inverse.contract_id = contracts + 10 + number
        instruments.append(inverse)
    return instruments


def instrument(
    seed: int,
    symbol: str,
    rank: int,
    quiet_share: float = 0.0,
    price: float = 0.0,
    contract_size: float = 0.0,
    zones: tuple[str, ...] = (),
) -> Instrument:
    """One contract as busy as the ``rank``-th of the exchange; 0 means: draw the price, choose the size by price."""
    base, quote = symbol.rsplit("_", 1)
    key = zlib.crc32(symbol.encode())
    random = generator(seed, key, 1)
    drawn_price = 10.0 ** random.uniform(-5.5, 1.8)
    is_quiet = random.random() < quiet_share and rank >= _FIRST_QUIET_RANK
    activity = _QUIET_FACTOR * random.uniform(0.3, 1.5) if is_quiet else random.lognormal(0.0, 0.25)
    price = price or drawn_price
    magnitude = math.floor(math.log10(price))
    scale = max(0, 4 - magnitude + (magnitude >= 4))
    size = contract_size or min(1e7, max(1e-5, 10.0 ** round(math.log10(5.0 / price))))
    return Instrument(
        symbol=symbol,
        base_coin=base,
        quote_coin=quote,
        settle_coin=base if quote == "USD" else quote,
        contract_id=9 + rank,
        contract_size=float(f"{size:.5g}"),
        price_scale=scale,
        first_price=round(price, scale),
        zones=zones,
        trades_per_minute=_TOP_TRADES_PER_MINUTE * rank**-_TRADES_EXPONENT * activity,
        turnover_per_day=_TOP_TURNOVER_PER_DAY * rank**-_TURNOVER_EXPONENT * activity,
        volatility=0.0004 if rank == 1 else random.uniform(0.0005, 0.0015),
        key=key,
    )


def _names(seed: int, count: int) -> list[tuple[str, float, float, tuple[str, ...]]]:
    names = list(_KNOWN[:count])
    seen = {name for name, *_ in names}
    random = generator(seed, 0)
    while len(names) < count:
        name = "".join(_SYLLABLES[i] for i in random.integers(0, len(_SYLLABLES), int(random.integers(1, 4))))
        kind = random.random()
        prefix = "1000" if kind < 0.02 else ""
        suffix = "STOCK" if kind > 0.95 else ""
        name = f"{prefix}{name}{suffix}"
        if name in seen or len(name) < 3:
            continue
        seen.add(name)
        names.append((name, 0.0, 0.0, STOCK if suffix else CRYPTO))
    return names
