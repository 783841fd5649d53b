// What must happen in the browser: the live connection, the market's rows, the search, and saying when data is stale.
// Everything else is made by pages.py.
"use strict";

const perpwatch = (() => {
  const STALE_MS = 5000; // without a message
  const OLD_S = 10; // the bot hears the exchange, but nothing new
  const LOST_MS = 2000; // the line is cut, and not back yet
  const RECONNECT_MS = 1000;
  let heard = Date.now(), pulse = null, run = null, isCut = false;

  const escape = (text) =>
    String(text).replace(/[&<>"']/g, (one) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" })[one]);
  const percent = (value) => (value == null ? "–" : (value >= 0 ? "+" : "") + (100 * value).toFixed(2) + " %");
  const share = (value) => (value == null ? "–" : (100 * value).toFixed(0) + " %");
  const funding = (value) => (value == null ? "–" : (100 * value).toFixed(4) + " %");
  const age = (value) => (value == null ? "–" : value + " s");
  const times = (value) => (value == null ? "–" : value.toFixed(1) + " ×");
  const price = (value) => (value == null ? "–" : Number(value.toPrecision(8)).toString());
  const money = (value) => {
    if (value == null) return "–";
    for (const [size, unit] of [[1e9, "B"], [1e6, "M"], [1e3, "k"]]) if (value >= size) return (value / size).toFixed(1) + unit;
    return value.toFixed(0);
  };
  const sign = (params) => ["ag-right-aligned-cell", params.value > 0 ? "up" : params.value < 0 ? "down" : "dim"];
  const isDark = () => document.body.classList.contains("body--dark");
  const open = (symbol) => { location.href = "/symbol/" + encodeURIComponent(symbol); };

  // --- The live connection ---------------------------------------------------------------------------------------

  function listen(path, take) {
    const socket = new WebSocket((location.protocol === "https:" ? "wss://" : "ws://") + location.host + path);
    socket.onmessage = (event) => {
      heard = Date.now();
      isCut = false;
      const message = JSON.parse(event.data);
      pulse = message;
      // Another run of the program knows nothing of this page. It is asked first, lest it is gone again by then.
      if (run !== null && run !== message.run) fetch(location.href).then((answer) => { if (answer.ok) location.reload(); }, () => { run = ""; });
      run = message.run;
      take(message);
      show();
    };
    socket.onclose = () => { isCut = true; setTimeout(() => listen(path, take), RECONNECT_MS); };
  }

  function show() {
    const state = document.getElementById("pw-state"), stale = document.getElementById("pw-stale"), note = document.getElementById("pw-note");
    if (!state) return;
    const silent = Date.now() - heard;
    let trouble = "";
    if (silent > (isCut ? LOST_MS : STALE_MS)) trouble = `Data is stale: no word from perpwatch for ${Math.round(silent / 1000)} s. Connecting again by itself.`;
    else if (pulse && pulse.age_s != null && pulse.age_s > OLD_S) trouble = `Data is stale: perpwatch has heard nothing new of the market for ${Math.round(pulse.age_s)} s.`;
    stale.hidden = !trouble;
    stale.textContent = trouble;
    document.body.dataset.stale = trouble ? "yes" : "no";
    if (!pulse) return;
    const time = pulse.time_ms ? new Date(pulse.time_ms).toISOString().slice(11, 19) + " UTC" : "no market time yet";
    state.className = "pw-state " + (trouble ? "down" : pulse.status);
    state.textContent = `${trouble ? "stale" : pulse.status} · ${pulse.watched} contracts · ${time}`;
    state.title = pulse.reasons.join("\n");
    const told = document.getElementById("pw-feed"), ages = pulse.ages;
    if (told) told.textContent = `${pulse.mode} feed: ${pulse.watched - pulse.polled} streamed, ${pulse.polled} read by REST`
      + (ages.symbols ? ` · data ${ages.median_s.toFixed(0)} s old, worst ${ages.worst_s.toFixed(0)} s` : "");
    note.hidden = !pulse.reasons.length;
    note.textContent = pulse.reasons.join(" · ");
  }

  // --- Search -------------------------------------------------------------------------------------------------------

  function search() {
    const field = document.getElementById("pw-search"), found = document.getElementById("pw-found");
    if (!field) return setTimeout(search, 50);
    let asked = 0, chosen = 0;
    const mark = () => [...found.querySelectorAll("a")].forEach((one, number) => one.setAttribute("aria-selected", String(number === chosen)));
    const ask = async () => {
      const text = field.value.trim(), mine = ++asked;
      if (!text) return found.replaceChildren();
      const answer = await fetch("/api/v1/symbols?limit=8&search=" + encodeURIComponent(text)).then((one) => one.json(), () => ({ rows: [] }));
      if (mine !== asked) return;
      chosen = 0;
      found.replaceChildren(...answer.rows.map((row) => {
        const link = document.createElement("a");
        link.href = "/symbol/" + encodeURIComponent(row.symbol);
        link.textContent = `${row.symbol}  ${percent(row.move_60)}`;
        return link;
      }));
      if (!answer.rows.length) { const none = document.createElement("span"); none.textContent = "no contract of that name"; found.append(none); }
      mark();
    };
    field.addEventListener("input", ask);
    field.addEventListener("keydown", (event) => {
      const links = found.querySelectorAll("a");
      if (event.key === "ArrowDown") chosen = Math.min(chosen + 1, links.length - 1);
      else if (event.key === "ArrowUp") chosen = Math.max(chosen - 1, 0);
      else if (event.key === "Enter" && links[chosen]) location.href = links[chosen].href;
      else if (event.key === "Escape") { field.value = ""; field.blur(); found.replaceChildren(); }
      else return;
      event.preventDefault();
      mark();
    });
    document.addEventListener("keydown", (event) => {
      if (event.key === "/" && !/^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName)) { event.preventDefault(); field.focus(); }
    });
  }

  // --- The market page ------------------------------------------------------------------------------------------------

  const rows = new Map();
  const CLASS = "class "; // no symbol begins so
  const COLOURS = { move_60: ["−5 %", "+5 %", 0.05], move_1: ["−2 %", "+2 %", 0.02], anomaly: ["usual", "10 ×", 0] };
  let fields = [], colour = "move_60", painted = 0, chosenClass = "", classes = "";

  const feed = (row) => (row.is_live ? "stream" : pulse?.mode === "websocket" ? "down" : "REST");
  const feedClass = (row) => (row.is_live ? "dim" : "warn");
  const isClassChosen = () => chosenClass !== "";
  const isOfClass = (row) => !chosenClass || row.asset_class === chosenClass;

  // Buttons for the classes there are; the largest first.
  function offerClasses() {
    const holder = document.getElementById("pw-classes"), counts = {};
    if (!holder) return;
    for (const row of rows.values()) counts[row.asset_class] = (counts[row.asset_class] || 0) + 1;
    const names = Object.keys(counts).sort((one, other) => counts[other] - counts[one] || (one < other ? -1 : 1));
    const made = names.map((name) => `${name} ${counts[name]}`).join();
    if (made === classes) return;
    classes = made;
    holder.replaceChildren(...(names.length < 2 ? [] : ["", ...names]).map((name) => {
      const button = document.createElement("button");
      button.className = "pw-button" + (name === chosenClass ? " on" : "");
      button.dataset.class = name;
      button.textContent = name ? `${name} ${counts[name]}` : "all";
      return button;
    }));
  }

  function market(gridId, treeId) {
    const grid = () => (typeof mounted_app === "undefined" || !mounted_app ? null : getElement(gridId)?.api);
    let waiting = null;
    const named = (row) => Object.fromEntries(fields.map((field, place) => [field, row[place]]));
    listen("/api/v1/market", (message) => {
      if (message.type === "whole") { fields = message.fields; rows.clear(); }
      const add = [], update = [];
      for (const row of message.rows) {
        const one = named(row);
        (rows.has(one.symbol) ? update : add).push(one);
        rows.set(one.symbol, one);
      }
      for (const symbol of message.gone) rows.delete(symbol);
      const api = grid();
      if (!api) waiting = true;
      else if (waiting !== false || message.type === "whole") { api.setGridOption("rowData", [...rows.values()]); waiting = false; }
      else api.applyTransaction({ add, update, remove: message.gone.map((symbol) => ({ symbol })) });
      document.body.dataset.rows = api ? rows.size : 0;
      offerClasses();
      if (Date.now() - painted > 3000 || message.type === "whole") paint(treeId);
    });
    // The page's elements come later than this script.
    document.addEventListener("input", (event) => {
      if (event.target.id === "pw-filter") { grid()?.setGridOption("quickFilterText", event.target.value); tellNone(); }
    });
    document.addEventListener("click", (event) => {
      const button = event.target.closest("[data-colour], [data-class]");
      if (!button) return;
      const kind = button.dataset.colour === undefined ? "class" : "colour";
      if (kind === "colour") {
        colour = button.dataset.colour;
        const scale = document.getElementById("pw-scale");
        document.getElementById("pw-scale-low").textContent = COLOURS[colour][0];
        document.getElementById("pw-scale-high").textContent = COLOURS[colour][1];
        scale.classList.toggle("heat", colour === "anomaly");
      } else {
        chosenClass = button.dataset.class;
        grid()?.onFilterChanged();
        tellNone();
      }
      document.querySelectorAll(`[data-${kind}]`).forEach((one) => one.classList.toggle("on", one === button));
      paint(treeId);
    });
    new MutationObserver(() => paint(treeId)).observe(document.body, { attributeFilter: ["class"] });
    if (innerWidth < 700) {
      const narrow = () => (grid() ? grid().applyColumnState({ state: [{ colId: "symbol", width: 118 }, { colId: "asset_class", hide: true }] }) : setTimeout(narrow, 100));
      narrow();
    }
    const tellNone = () => { document.getElementById("pw-none").hidden = !rows.size || !grid() || grid().getDisplayedRowCount() > 0; };
  }

  function shade(row) {
    const value = row[colour];
    if (value == null) return isDark() ? "#2a313a" : "#d5dae0";
    const weight = colour === "anomaly" ? Math.min(1, Math.max(0, value - 1) / 9) : Math.min(1, Math.abs(value) / COLOURS[colour][2]);
    const middle = isDark() ? [42, 49, 58] : [205, 211, 218];
    const end = colour === "anomaly" ? [224, 140, 40] : value >= 0 ? [24, 150, 104] : [210, 62, 78];
    return `rgb(${middle.map((one, place) => Math.round(one + (end[place] - one) * weight)).join(",")})`;
  }

  function paint(treeId) {
    const tree = typeof mounted_app === "undefined" || !mounted_app ? null : getElement(treeId);
    if (!tree?.chart) return setTimeout(() => paint(treeId), 100);
    painted = Date.now();
    const ground = isDark() ? "#0e1217" : "#fff", ink = isDark() ? "#fff" : "#10151c";
    const figure = (row) => (colour === "anomaly" ? times(row.anomaly) : percent(row[colour]));
    const shown = [...rows.values()].filter((row) => row.turnover_24h > 0 && isOfClass(row));
    const total = shown.reduce((sum, row) => sum + Math.sqrt(row.turnover_24h), 0);
    const area = tree.chart.getWidth() * tree.chart.getHeight();
    const cell = (row) => {
      const value = Math.sqrt(row.turnover_24h), side = Math.sqrt((value / total) * area);
      return {
        name: row.symbol, value, itemStyle: { color: shade(row) },
        label: { show: side > 32 && row.symbol.length - 5 < side / 6, fontSize: side > 90 ? 14 : side > 50 ? 11.5 : 10, lineHeight: side > 90 ? 18 : 14, isLarge: side > 46 },
      };
    };
    const groups = {};
    for (const row of shown) (groups[row.asset_class] ??= []).push(cell(row));
    const names = Object.keys(groups);
    const data = names.length > 1 ? names.map((name) => ({ name: CLASS + name, itemStyle: { color: ground }, children: groups[name] })) : groups[names[0]] || [];
    tree.chart.setOption({
      animation: false,
      tooltip: {
        confine: true,
        backgroundColor: isDark() ? "#151b22" : "#fff", borderColor: isDark() ? "#27303a" : "#dfe3e8", textStyle: { color: isDark() ? "#dfe5ec" : "#1a1f27", fontSize: 12 },
        formatter: ({ name }) => {
          const row = rows.get(name);
          return row ? `<b>${escape(name)}</b> ${escape(row.asset_class)}<br>price ${price(row.price)}<br>1 h ${percent(row.move_60)} · 1 min ${percent(row.move_1)}<br>24 h turnover ${money(row.turnover_24h)}<br>turnover now ${times(row.activity)} the usual · anomaly ${times(row.anomaly)}` : "";
        },
      },
      series: [{
        type: "treemap", animation: false, roam: false, nodeClick: false, breadcrumb: { show: false }, left: 0, top: 0, right: 0, bottom: 0, data,
        itemStyle: { borderColor: ground, borderWidth: 1, gapWidth: 0 },
        levels: names.length > 1 ? [{ itemStyle: { borderWidth: 0, gapWidth: 3, borderColor: ground }, upperLabel: { show: false } }, { itemStyle: { borderColor: ground, borderWidth: 1, gapWidth: 0 } }] : [],
        upperLabel: { show: names.length > 1, height: 15, color: isDark() ? "#8a96a3" : "#66707d", fontSize: 10.5, padding: [0, 3], formatter: ({ name }) => (name.startsWith(CLASS) ? name.slice(CLASS.length) : "") },
        label: { color: ink, formatter: ({ name, data: one }) => (rows.has(name) ? name.replace(/_[^_]*$/, "") + (one.label.isLarge ? "\n" + figure(rows.get(name)) : "") : "") },
      }],
    });
    if (!tree.chart.perpwatch) { tree.chart.perpwatch = true; tree.chart.on("click", (event) => { if (rows.has(event.name)) open(event.name); }); }
  }

  // --- Charts that pages.py draws -----------------------------------------------------------------------------------

  // The band of usual turnover: a piece as wide as a candle.
  function band(_, api) {
    const low = api.coord([api.value(0), api.value(1)]), high = api.coord([api.value(0), api.value(2)]), width = api.size([1, 0])[0];
    return { type: "rect", shape: { x: low[0] - width / 2, y: high[1], width, height: low[1] - high[1] }, style: api.style() };
  }

  function candleTip(parts) {
    const named = (name) => parts.find((one) => one.seriesName === name);
    const trust = named("trust")?.data, candle = named("price")?.data, turnover = named("turnover")?.data;
    if (!trust) return "";
    const lines = [`<b>${escape(trust.time)}</b>`];
    // A candlestick's values follow the place of the candle.
    if (Array.isArray(candle) && candle.length > 4) lines.push(`open ${price(candle[1])} · close ${price(candle[2])}<br>low ${price(candle[3])} · high ${price(candle[4])} · ${percent(candle[2] / candle[1] - 1)}`);
    else lines.push("nobody knows what was traded");
    const usual = ["usual low", "usual", "usual high"].map((name) => named(name)?.data);
    lines.push(`turnover ${money(turnover?.value ?? 0)}` + (typeof usual[1] === "number" ? `, usual ${money(usual[0])} to ${money(usual[2])}` : ""));
    lines.push(`data ${escape(trust.trust)}`, ...trust.found.map(escape));
    return lines.join("<br>");
  }
  // In a corner, where the pointer is not, so that candles stay to be seen.
  const tipPlace = (point, _params, _element, _rect, size) => ({ top: 6, [point[0] < size.viewSize[0] / 2 ? "right" : "left"]: 66 });

  const openRow = (id, event) => open(getElement(id).chart.getOption().yAxis[0].data[event.value[1]]);

  function flipTheme(cookie) {
    const chosen = isDark() ? "light" : "dark";
    document.cookie = `${cookie}=${chosen}; path=/; max-age=31536000; SameSite=Strict`;
    return chosen;
  }

  const pulseOnly = () => listen("/api/v1/pulse", () => {});
  setInterval(show, 1000);
  search();
  return {
    market, pulseOnly, percent, share, funding, times, age, price, money, sign, open, escape, rows, feed, feedClass, isClassChosen, isOfClass,
    band, candleTip, tipPlace, openRow, flipTheme,
  };
})();
