// What must happen in the browser: the live connection, the market's rows, the search, and saying when data is stale.
// Everything else is made by pages.py.
"use strict";

const perpwatch = (() => {
  const STALE_MS = 5000; // without a message
  const OLD_S = 10; // the bot hears the exchange, but nothing new
  const RECONNECT_MS = 1000;
  let heard = Date.now(), pulse = null, run = null;

  const escape = (text) =>
    String(text).replace(/[&<>"']/g, (one) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" })[one]);
  const percent = (value) => (value == null ? "–" : (value >= 0 ? "+" : "") + (100 * value).toFixed(2) + " %");
  const share = (value) => (value == null ? "–" : (100 * value).toFixed(0) + " %");
  const funding = (value) => (value == null ? "–" : (100 * value).toFixed(4) + " %");
  const times = (value) => (value == null ? "–" : value.toFixed(1) + " ×");
  const price = (value) => (value == null ? "–" : Number(value.toPrecision(8)).toString());
  const money = (value) => {
    if (value == null) return "–";
    for (const [size, unit] of [[1e9, "B"], [1e6, "M"], [1e3, "k"]]) if (value >= size) return (value / size).toFixed(1) + unit;
    return value.toFixed(0);
  };
  const sign = (params) => ["ag-right-aligned-cell", params.value > 0 ? "up" : params.value < 0 ? "down" : "dim"];
  const open = (symbol) => { location.href = "/symbol/" + encodeURIComponent(symbol); };

  // --- The live connection ---------------------------------------------------------------------------------------

  function listen(path, take) {
    const socket = new WebSocket((location.protocol === "https:" ? "wss://" : "ws://") + location.host + path);
    socket.onmessage = (event) => {
      heard = Date.now();
      const message = JSON.parse(event.data);
      pulse = message;
      if (run !== null && run !== message.run) location.reload(); // another run of the program
      run = message.run;
      take(message);
      show();
    };
    socket.onclose = () => setTimeout(() => listen(path, take), RECONNECT_MS);
  }

  function show() {
    const state = document.getElementById("pw-state"), stale = document.getElementById("pw-stale"), note = document.getElementById("pw-note");
    if (!state) return;
    const silent = Date.now() - heard;
    let trouble = "";
    if (silent > STALE_MS) trouble = `Data is stale: no word from perpwatch for ${Math.round(silent / 1000)} s. Connecting again by itself.`;
    else if (pulse && pulse.age_s != null && pulse.age_s > OLD_S) trouble = `Data is stale: perpwatch has heard nothing new of the market for ${Math.round(pulse.age_s)} s.`;
    stale.hidden = !trouble;
    stale.textContent = trouble;
    document.body.dataset.stale = trouble ? "yes" : "no";
    if (!pulse) return;
    const time = pulse.time_ms ? new Date(pulse.time_ms).toISOString().slice(11, 19) + " UTC" : "no market time yet";
    state.className = "pw-state " + (trouble ? "down" : pulse.status);
    state.textContent = `${trouble ? "stale" : pulse.status} · ${pulse.watched} contracts · ${time}`;
    state.title = pulse.reasons.join("\n");
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
  let fields = [], colour = "move_60", painted = 0;

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
      if (Date.now() - painted > 3000 || message.type === "whole") paint(treeId);
    });
    // The page's elements come later than this script.
    document.addEventListener("input", (event) => {
      if (event.target.id === "pw-filter") grid()?.setGridOption("quickFilterText", event.target.value);
    });
    document.addEventListener("click", (event) => {
      const button = event.target.closest("[data-colour]");
      if (!button) return;
      colour = button.dataset.colour;
      document.querySelectorAll("[data-colour]").forEach((one) => one.classList.toggle("on", one === button));
      paint(treeId);
    });
  }

  function shade(row) {
    const isDark = document.body.classList.contains("body--dark"), value = row[colour];
    if (value == null) return isDark ? "#2a313a" : "#d5dae0";
    const weight = colour === "anomaly" ? Math.min(1, Math.max(0, value - 1) / 9) : Math.min(1, Math.abs(value) / (colour === "move_60" ? 0.05 : 0.02));
    const middle = isDark ? [42, 49, 58] : [205, 211, 218];
    const end = colour === "anomaly" ? [224, 140, 40] : value >= 0 ? [24, 150, 104] : [210, 62, 78];
    return `rgb(${middle.map((one, place) => Math.round(one + (end[place] - one) * weight)).join(",")})`;
  }

  function paint(treeId) {
    const tree = typeof mounted_app === "undefined" || !mounted_app ? null : getElement(treeId);
    if (!tree?.chart) return setTimeout(() => paint(treeId), 100);
    painted = Date.now();
    const isDark = document.body.classList.contains("body--dark");
    const figure = (row) => (colour === "anomaly" ? times(row.anomaly) : percent(row[colour]));
    const data = [...rows.values()].filter((row) => row.turnover_24h > 0).map((row) => ({
      name: row.symbol, value: Math.sqrt(row.turnover_24h), itemStyle: { color: shade(row) },
    }));
    tree.chart.setOption({
      animation: false,
      tooltip: {
        backgroundColor: isDark ? "#151b22" : "#fff", borderColor: isDark ? "#27303a" : "#dfe3e8", textStyle: { color: isDark ? "#dfe5ec" : "#1a1f27", fontSize: 12 },
        formatter: ({ name }) => {
          const row = rows.get(name);
          return row ? `<b>${escape(name)}</b><br>price ${price(row.price)}<br>1 h ${percent(row.move_60)} · 1 min ${percent(row.move_1)}<br>24 h turnover ${money(row.turnover_24h)}<br>now ${times(row.activity)} the usual` : escape(name);
        },
      },
      series: [{
        type: "treemap", roam: false, nodeClick: false, breadcrumb: { show: false }, left: 0, top: 0, right: 0, bottom: 0, data,
        itemStyle: { borderColor: isDark ? "#0e1217" : "#fff", borderWidth: 1, gapWidth: 0 },
        label: { color: isDark ? "#fff" : "#10151c", fontSize: 11, lineHeight: 14, formatter: ({ name }) => (rows.has(name) ? `${name.replace(/_.*/, "")}\n${figure(rows.get(name))}` : name) },
      }],
    });
    if (!tree.chart.perpwatch) { tree.chart.perpwatch = true; tree.chart.on("click", (event) => open(event.name)); }
  }

  const pulseOnly = () => listen("/api/v1/pulse", () => {});
  setInterval(show, 1000);
  search();
  return { market, pulseOnly, percent, share, funding, times, price, money, sign, open, escape, rows };
})();
