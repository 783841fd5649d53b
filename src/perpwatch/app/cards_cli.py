"""``perpwatch alerts cards``: what past markets would have told, as pictures and texts to look at."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from perpwatch.alert.card import Card
from perpwatch.alert.spelling import TELEGRAM_CAPTION, plain
from perpwatch.alert.spelling import html as telegram_html
from perpwatch.alert.texts import Language
from perpwatch.app.bot import adapter_for
from perpwatch.app.card_samples import Samples
from perpwatch.app.config import file_in_use, load_config
from perpwatch.app.lab_cli import CandlesOption, TradesOption
from perpwatch.app.printing import ConfigOption, console
from perpwatch.app.replay import Past
from perpwatch.app.replay_cli import past_engine, past_feed, run_through
from perpwatch.errors import ConfigurationError

LANGUAGES = tuple(Language)


def cards(
    candles: CandlesOption = None,
    trades: TradesOption = None,
    stored: Annotated[str | None, typer.Option(help="Instead of folders, the store since 6h, 2d ago.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for the page, the pictures and the texts.")] = Path("cards"),
    count: Annotated[int, typer.Option(min=1, max=200, help="So many events.")] = 10,
    rules: Annotated[Path | None, typer.Option(help="Rules (TOML) instead of those of the settings.")] = None,
    config: ConfigOption = None,
) -> None:
    """Draw and word the alerts of past markets as they would have been sent, for looking at on a phone.

    Half of the events are the most unusual ones, half are spread over the rest.
    """
    if not (candles or trades or stored):
        raise ConfigurationError("cards", None, "--candles or --trades, folders of past markets, or --stored")
    _make_folder(out)
    settings, file = load_config(config), file_in_use(config)
    adapter, zone = adapter_for(settings), settings.alerts.zone
    with past_feed(candles or [], trades or [], stored, settings, file) as feed:
        past = Past(feed, past_engine(settings, rules, is_intrabar=bool(trades)))
        samples = Samples(past.engine, LANGUAGES, zone)
        past.on_step = samples.on_step
        run_through(past.steps(), feed.start_ms * 1_000_000, feed.end_ms * 1_000_000, None)
    chosen = samples.chosen(count)
    if not chosen:
        console.print(f"no alert in all that time, among {past.result.signals} signals", soft_wrap=True)
        return
    events = []
    for number, sample in enumerate(chosen, 1):
        url = adapter.symbol_page(sample.first.symbol) if sample.first.symbol else ""
        moments = [sample.moments[0], *sample.moments[1:][-1:]]
        exchange = adapter.name.upper()
        events.append(
            {
                language: [samples.card(moment, language, exchange=exchange, url=url) for moment in moments]
                for language in LANGUAGES
            }
        )
        _write(out, number, events[-1])
    _write_page(out, events)
    console.print(f"{len(chosen)} of {past.result.alerts} alerts are in {out / 'index.html'}", soft_wrap=True)


Cards = dict[Language, list[Card]]


def _name(number: int, language: Language, part: int) -> str:
    return f"{number:02}-{language}-{'alert' if part == 0 else 'later'}"


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError("--out", str(out), f"a folder that can be written ({error})") from error


def _write(out: Path, number: int, cards: Cards) -> None:
    for language, parts in cards.items():
        for part, card in enumerate(parts):
            path = out / _name(number, language, part)
            path.with_suffix(".txt").write_text(plain(card) + "\n", encoding="utf-8")
            if card.picture is not None:
                path.with_suffix(".png").write_bytes(card.picture)


def _write_page(out: Path, events: Sequence[Cards]) -> None:
    sections = []
    for number, cards in enumerate(events, 1):
        columns = []
        for language, parts in cards.items():
            phones = [f'<p class="lock"><b>perpwatch</b><br>{html.escape(parts[0].title)}</p>']
            for part, card in enumerate(parts):
                picture = ""
                if card.picture is not None:
                    picture = f'<img src="{_name(number, language, part)}.png" alt="{html.escape(card.title)}">'
                # Telegram's HTML is HTML, and its line ends are shown.
                phones.append(f'<div class="bubble">{picture}<div>{telegram_html(card, TELEGRAM_CAPTION)}</div></div>')
            columns.append(f'<div class="phone">{"".join(phones)}</div>')
        sections.append(f'<section id="event-{number}">{"".join(columns)}</section>')
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>perpwatch alerts cards</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>'
        + "\n".join(sections)
        + "</body></html>\n"
    )
    (out / "index.html").write_text(page, encoding="utf-8")


_STYLE = """
body{margin:0;background:#0b141a;color:#e9edef;font:15px/1.38 system-ui,"Noto Sans","DejaVu Sans",sans-serif}
section{display:flex;flex-wrap:wrap;gap:16px;padding:16px 8px;border-bottom:1px solid #26323a}
.phone{width:374px}.lock{background:#1c2a33;border-radius:12px;padding:8px 12px;margin:0 0 12px;font-size:14px;
white-space:nowrap;overflow:hidden;text-overflow:ellipsis}
.bubble{background:#1d2b36;border-radius:12px;overflow:hidden;margin:0 0 12px}.bubble img{display:block;width:100%}
.bubble div{padding:8px 12px 10px;white-space:pre-line}a{color:#6ab3f3}i{color:#9fb0bd;font-style:normal;font-size:13px}
"""
