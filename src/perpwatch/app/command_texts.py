"""Every word with which a watch answers its people, in each language; names in braces are what is put in.

Words of the market and units stand in :mod:`perpwatch.alert.texts`.
"""

from __future__ import annotations

from dataclasses import dataclass

from perpwatch.app.health import Status


@dataclass(frozen=True, kw_only=True)
class CommandTexts:
    help_title: str
    commands: dict[str, str]  # what each is good for; also shown by Telegram's menu
    unknown: str
    failed: str

    # /status
    status: dict[Status, str]
    watched: str
    data: str
    data_none: str
    connections: str
    told: str
    since: str
    channel: str
    channel_latency: str
    running: str

    # /top
    top_title: str
    top_line: str
    top_none: str

    # /symbol
    symbol_unknown: str
    symbol_ambiguous: str
    moves: str
    day: str
    interest: str
    known: str
    is_streamed: str
    is_polled: str
    last_alerts: str
    no_alerts: str
    usage_symbol: str

    # /rules and /budget
    rules_title: str
    rule_told: str
    rule_budget: str
    rule_tag: str
    rule_paused: str
    budget_title: str
    budget_set: str
    budget_none: str
    usage_budget: str
    unknown_rule: str
    here_set: str
    here_none: str
    not_told_here: str

    # /mutes
    mutes_title: str
    mutes_none: str
    muted_until: str
    muted_for_good: str

    # /why
    usage_why: str
    why_unknown: str
    why_detector: str
    why_risk: str
    why_escalation: str
    why_market: str
    why_latency: str
    why_label: str

    # Buttons
    muted: str
    unmuted: str
    less: str
    labelled: str
    not_kept: str
    stale_button: str


EN = CommandTexts(
    help_title="perpwatch: commands",
    commands={
        "status": "is the watch well, and how old is its data",
        "top": "what moved most in five minutes",
        "symbol": "one contract: /symbol BTC",
        "rules": "the rules in force, and what they told",
        "mutes": "what is muted, and until when",
        "budget": "alerts a day: /budget 40, /budget RULE 40, /budget off",
        "why": "every number behind an alert: /why ID",
        "help": "this list",
    },
    unknown="There is no /{command}; /help lists what there is.",
    failed="That failed: {error}",
    status={Status.OK: "✓ All is well", Status.DEGRADED: "⚠ It watches, with limits", Status.DOWN: "✖ It sees nothing"},
    watched="{watched} contracts watched, {covered} known good at this moment",
    data="newest data {age} old, judged {delay} after the exchange's stamp",
    data_none="no data yet",
    connections="{open} of {wanted} connections open, {polled} contracts read by REST",
    told="alerts in 24 h: {told}, signals since the start: {signals}",
    since="{trouble}, since {time}",
    channel="{name}: {sent} sent, {waiting} waiting, {failed} failed",
    channel_latency=", {latency} from signal to receipt",
    running="running for {duration}",
    top_title="Moved most in {minutes} min",
    top_line="{arrow} {symbol} {move}, {turnover} {quote}",
    top_none="no contract has moved yet",
    symbol_unknown="No watched contract is called {symbol}.",
    symbol_ambiguous="Which one? {symbols}",
    moves="{span}: {move}",
    day="24 h: {change}, {turnover} {quote}",
    interest="open interest {interest} {coin}, funding {funding}",
    known="{share} of the last hour is known",
    is_streamed="its candles are streamed",
    is_polled="its candles are read by REST",
    last_alerts="Last alerts:",
    no_alerts="no alert in 24 h",
    usage_symbol="Say which: /symbol BTC",
    rules_title="Rules in force",
    rule_told="{rule}, alerts in 24 h: {told}",
    rule_budget="budget {budget} a day",
    rule_tag="{rule}: stands beside the alerts of the others",
    rule_paused="paused",
    budget_title="Budget",
    budget_set="{rule}: about {budget} alerts a day from now on, the rarest ones, on all channels",
    budget_none="{rule}: no limit from now on",
    usage_budget="Say how many alerts a day: /budget 40, of one rule /budget RULE 40, at most in this chat "
    "/budget here 40; without a limit /budget off",
    unknown_rule="There is no rule {rule}; there are: {rules}",
    here_set="{name}: at most {budget} alerts a day in this chat",
    here_none="{name}: all alerts in this chat",
    not_told_here="Nothing is told in this chat.",
    mutes_title="Muted",
    mutes_none="Nothing is muted.",
    muted_until="{symbol}: until {time}",
    muted_for_good="{symbol}: until somebody lifts it",
    usage_why="Say which: /why ID, with the ID that stands under the alert",
    why_unknown="No alert of the last {days} days has the ID {id}.",
    why_detector="Rule {rule}, detector {detector}, candle {timeframe} of {time}",
    why_risk="it would come by chance in {risk} of all minutes",
    why_escalation="escalation {count} of the episode that began at {time}",
    why_market="{symbols} of {watched} contracts in the minute of {time}",
    why_latency="seen {latency} after the exchange's stamp, told {told}",
    why_label="judged by people: {labels}",
    muted="{symbol} is muted until {time}",
    unmuted="{symbol} is told of again",
    less="{rule}: about {budget} alerts a day from now on (before: {before})",
    labelled="Noted: this alert was wrong. It stands among the labels.",
    not_kept="Nothing is kept by this watch, so this cannot be noted.",
    stale_button="This button is of another bot, or older than the last change of its token.",
)

RU = CommandTexts(
    help_title="perpwatch: команды",
    commands={
        "status": "всё ли в порядке и насколько свежи данные",
        "top": "что больше всего сдвинулось за пять минут",
        "symbol": "один контракт: /symbol BTC",
        "rules": "действующие правила и сколько они сообщили",
        "mutes": "что заглушено и до какого времени",
        "budget": "сигналов в день: /budget 40, /budget ПРАВИЛО 40, /budget off",
        "why": "все числа за сигналом: /why ID",
        "help": "этот список",
    },
    unknown="Команды /{command} нет; /help покажет, какие есть.",
    failed="Не получилось: {error}",
    status={
        Status.OK: "✓ Всё в порядке",
        Status.DEGRADED: "⚠ Работает с ограничениями",
        Status.DOWN: "✖ Ничего не видно",
    },
    watched="контрактов под наблюдением: {watched}, из них сейчас достоверны: {covered}",
    data="новейшим данным {age}, оценены через {delay} после метки биржи",
    data_none="данных ещё нет",
    connections="соединений открыто: {open} из {wanted}, контрактов читается по REST: {polled}",
    told="сигналов за 24 ч сообщено: {told}, найдено с запуска: {signals}",
    since="{trouble}, с {time}",
    channel="{name}: отправлено {sent}, ждёт {waiting}, не удалось {failed}",
    channel_latency=", {latency} от сигнала до доставки",
    running="работает {duration}",
    top_title="Сильнее всего за {minutes} мин",
    top_line="{arrow} {symbol} {move}, {turnover} {quote}",
    top_none="пока ничего не сдвинулось",
    symbol_unknown="Контракта {symbol} под наблюдением нет.",
    symbol_ambiguous="Какой из них? {symbols}",
    moves="{span}: {move}",
    day="24 ч: {change}, {turnover} {quote}",
    interest="открытый интерес {interest} {coin}, фандинг {funding}",
    known="известно {share} последнего часа",
    is_streamed="свечи приходят потоком",
    is_polled="свечи читаются по REST",
    last_alerts="Последние сигналы:",
    no_alerts="за 24 ч сигналов не было",
    usage_symbol="Укажите контракт: /symbol BTC",
    rules_title="Действующие правила",
    rule_told="{rule}, сигналов за 24 ч: {told}",
    rule_budget="бюджет {budget} в день",
    rule_tag="{rule}: показывается рядом с сигналами других",
    rule_paused="на паузе",
    budget_title="Бюджет",
    budget_set="{rule}: отныне около {budget} сигналов в день, самые редкие, на всех каналах",
    budget_none="{rule}: отныне без ограничения",
    usage_budget="Сколько сигналов в день: /budget 40, для правила /budget ПРАВИЛО 40, не больше в этом чате "
    "/budget здесь 40; без ограничения /budget off",
    unknown_rule="Правила {rule} нет; есть: {rules}",
    here_set="{name}: в этом чате не больше {budget} сигналов в день",
    here_none="{name}: в этом чате все сигналы",
    not_told_here="В этот чат ничего не сообщается.",
    mutes_title="Заглушено",
    mutes_none="Ничего не заглушено.",
    muted_until="{symbol}: до {time}",
    muted_for_good="{symbol}: пока кто-нибудь не снимет",
    usage_why="Укажите сигнал: /why ID, этот ID стоит под ним",
    why_unknown="За последние {days} дней сигнала с ID {id} не было.",
    why_detector="Правило {rule}, детектор {detector}, свеча {timeframe} от {time}",
    why_risk="случайно бывает в {risk} всех минут",
    why_escalation="усиление {count}, эпизод начался в {time}",
    why_market="{symbols} из {watched} контрактов в минуту {time}",
    why_latency="увиден через {latency} после метки биржи, сообщён {told}",
    why_label="оценки людей: {labels}",
    muted="{symbol}: тишина до {time}",
    unmuted="{symbol}: снова сообщаем",
    less="{rule}: отныне около {budget} сигналов в день (было: {before})",
    labelled="Отмечено: сигнал ошибочный. Метка сохранена.",
    not_kept="Эта программа ничего не хранит, отметить нельзя.",
    stale_button="Кнопка от другого бота или старше последней смены его токена.",
)

#: By the language of the settings.
COMMAND_TEXTS = {"en": EN, "ru": RU}
