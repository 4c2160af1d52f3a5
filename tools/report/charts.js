"use strict";
// Draws the report: every picture from a table of the data, which stands behind it unrounded.

const data = JSON.parse(document.getElementById("data").textContent);
const tables = Object.fromEntries(
  Object.entries(data.tables).map(([name, { columns, rows }]) => [
    name,
    rows.map((row) => Object.fromEntries(columns.map((column, i) => [column, row[i]]))),
  ]),
);
const rowsOf = (table, wanted = {}) =>
  (tables[table] ?? []).filter((row) => Object.entries(wanted).every(([key, value]) => row[key] === value));
const distinct = (rows, key) => [...new Set(rows.map((row) => row[key]))];
const isNumber = (value) => typeof value === "number";

// ---- elements

function make(namespace, name, attributes, children) {
  const element = namespace ? document.createElementNS(namespace, name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value !== null && value !== undefined) element.setAttribute(key, value);
  }
  element.append(...children.filter((child) => child !== null).map((child) => (isNumber(child) ? String(child) : child)));
  return element;
}
const html = (name, attributes = {}, ...children) => make(null, name, attributes, children);
const svg = (name, attributes = {}, ...children) => make("http://www.w3.org/2000/svg", name, attributes, children);

function short(value) {
  if (value === null || value === undefined) return "–";
  if (!isNumber(value)) return String(value);
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size < 1e-3 || size >= 1e5) return value.toExponential(2).replace("e-", "e−").replace("e+", "e");
  return String(Number(value.toPrecision(3)));
}

const tip = document.getElementById("tip");
function showTip(text, x, y) {
  tip.textContent = text;
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(4, Math.min(x + 14, innerWidth - box.width - 4))}px`;
  tip.style.top = `${y + 18 + box.height > innerHeight ? Math.max(4, y - box.height - 10) : y + 18}px`;
}
const hideTip = () => (tip.hidden = true);

// ---- colours

// Stops of cividis: even steps of lightness, the same for colour-blind eyes.
const sequential = [[0, 34, 78], [35, 62, 108], [87, 92, 109], [122, 121, 120], [163, 152, 116], [208, 187, 94], [254, 232, 56]];
// Blue, neutral, orange.
const diverging = [[33, 102, 172], [103, 169, 207], [240, 240, 238], [253, 174, 97], [200, 85, 10]];

function colourAt(stops, share) {
  const place = Math.max(0, Math.min(1, share)) * (stops.length - 1);
  const from = Math.min(Math.floor(place), stops.length - 2);
  return stops[from].map((channel, i) => Math.round(channel + (stops[from + 1][i] - channel) * (place - from)));
}
const css = (colour) => `rgb(${colour.join(",")})`;
function inkOn(colour) {
  const [r, g, b] = colour.map((channel) => ((channel / 255 + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.18 ? "#111" : "#fff";
}

function logScale(values) {
  const positive = values.filter((value) => isNumber(value) && value > 0);
  const least = Math.min(...positive), most = Math.max(...positive);
  const low = Math.max(least, most * 1e-4);  // single underflows would take the colours of all others
  const span = Math.log10(most / low);
  return {
    low, high: most, isEmpty: positive.length === 0, isCut: low > least,
    share: (value) => (span > 0 ? Math.log10(value / low) / span : 1),
  };
}

function scaleBar(scale, label) {
  if (scale.isEmpty) return null;
  const stops = sequential.map((colour) => css(colour)).join(", ");
  return html("div", { class: "scale" }, label, html("span", {}, `${scale.isCut ? "≤ " : ""}${short(scale.low)}`),
    html("span", { class: "bar", style: `background: linear-gradient(90deg, ${stops})`, "aria-hidden": "true" }),
    html("span", {}, short(scale.high)), html("span", {}, "(log scale; hatched: no finite value)"));
}

function heatCell(value, scale, description) {
  const text = short(value);
  const attributes = { title: `${description}: ${value ?? "no finite value"}` };
  if (!isNumber(value)) return html("td", { ...attributes, class: "none" }, text);
  if (value === 0) return html("td", { ...attributes, class: "zero" }, text);
  const colour = colourAt(sequential, scale.share(value));
  return html("td", { ...attributes, style: `background: ${css(colour)}; color: ${inkOn(colour)}` }, text);
}

// ---- the table behind a picture

function csvOf(columns, rows) {
  const field = (value) => {
    if (value === null || value === undefined) return "";
    const text = String(value);
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return [columns, ...rows.map((row) => columns.map((column) => row[column]))].map((line) => line.map(field).join(",")).join("\n") + "\n";
}

function tableBehind(name, rows) {
  const columns = data.tables[name].columns.filter((column) => rows.some((row) => row[column] !== null));
  const details = html("details", {}, html("summary", {}, `Table (${rows.length} rows)`));
  details.addEventListener("toggle", () => {
    if (details.childElementCount > 1) return;
    const body = rows.map((row) =>
      html("tr", {}, ...columns.map((column) => html("td", { class: isNumber(row[column]) ? null : "text" }, row[column] ?? "–"))));
    const download = html("a", { href: "#", download: `${name}.csv` }, "Download as CSV");
    download.addEventListener("click", () => {
      download.href = URL.createObjectURL(new Blob([csvOf(columns, rows)], { type: "text/csv" }));
    });
    details.append(
      html("div", { class: "scroll", tabindex: 0 },
        html("table", {}, html("thead", {}, html("tr", {}, ...columns.map((column) => html("th", { scope: "col" }, column)))),
          html("tbody", {}, ...body))),
      download);
  });
  return details;
}

// ---- controls

function choice(label, options, chosen, onchange) {
  const select = html("select", { onchange: () => onchange(select.value) },
    ...options.map((option) => html("option", { value: option, ...(option === chosen ? { selected: "" } : {}) }, option)));
  return html("label", {}, label, options.length > 1 ? select : html("strong", {}, options[0] ?? "none"));
}

// A part of a section that is drawn again when a control changes. `draw` gets the choices, which
// `controls` describes as [key, label, options for the choices so far].
function interactive(controls, draw) {
  const box = html("div");
  const chosen = {};
  const update = () => {
    const bar = html("div", { class: "controls" });
    for (const [key, label, optionsFor] of controls) {
      const options = optionsFor(chosen);
      if (!options.includes(chosen[key])) chosen[key] = options[0];
      bar.append(choice(label, options, chosen[key], (value) => {
        chosen[key] = value;
        update();
      }));
    }
    box.replaceChildren(bar);
    box.append(...draw(chosen).filter((part) => part !== null));
    if (box.isConnected) drawFitted();
  };
  update();
  return box;
}

function section(title, explanation, ...parts) {
  document.getElementById("report").append(html("section", {}, html("h2", {}, title), html("p", {}, explanation), ...parts));
  drawFitted();
}

// ---- line charts

const looks = [
  ["var(--c0)", "", "circle"], ["var(--c1)", "6 3", "square"], ["var(--c2)", "2 3", "diamond"], ["var(--c3)", "8 3 2 3", "triangle"],
  ["var(--c4)", "", "square"], ["var(--c5)", "4 4", "diamond"], ["var(--c6)", "", "triangle"], ["var(--c7)", "10 4", "circle"],
  ["var(--c1)", "", "circle"], ["var(--c0)", "3 3", "triangle"], ["var(--c3)", "", "square"], ["var(--c2)", "", "triangle"],
  ["var(--c4)", "7 3", "diamond"], ["var(--c6)", "2 3", "square"],
];
const shapes = {
  circle: (r) => `M${-r},0a${r},${r} 0 1,0 ${2 * r},0a${r},${r} 0 1,0 ${-2 * r},0`,
  square: (r) => `M${-r},${-r}h${2 * r}v${2 * r}h${-2 * r}z`,
  diamond: (r) => `M0,${-1.3 * r}L${1.3 * r},0L0,${1.3 * r}L${-1.3 * r},0z`,
  triangle: (r) => `M0,${-1.2 * r}L${1.2 * r},${r}H${-1.2 * r}z`,
};

function legend(names) {
  return html("div", { class: "legend" }, ...names.map((name, i) => {
    const [colour, dash, shape] = looks[i % looks.length];
    return html("span", {}, svg("svg", { width: 34, height: 12, "aria-hidden": "true" },
      svg("line", { x1: 0, y1: 6, x2: 34, y2: 6, stroke: colour, "stroke-width": 2, "stroke-dasharray": dash }),
      svg("path", { d: shapes[shape](3.5), fill: colour, transform: "translate(17,6)" })), name);
  }));
}

function tickText(power) {
  const value = 10 ** power;
  if (Math.abs(power) <= 2) return String(Number(value.toPrecision(2)));
  return value.toExponential(Number.isInteger(power) ? 0 : 1).replace("-", "−").replace("+", "");
}

// `series`: [{name, points: [{x, y, label}]}]; x are whole numbers, y positive ones on a log axis.
// Pointer or arrow keys move a cursor over the points. What is far below the others lies on the lower edge.
function lineChart(series, { title, xLabel, yLabel, width }) {
  const height = 260, left = 70, right = 12, top = 12, bottom = 40;
  const found = series.flatMap((line, of) => line.points.filter((point) => isNumber(point.y) && point.y > 0).map((point) => ({ ...point, of })));
  if (found.length === 0) return html("p", {}, `${title}: no values above zero.`);
  const least = Math.max(...found.map((point) => point.y)) * 1e-4;
  const points = found.map((point) => ({ ...point, y: Math.max(point.y, least) }));
  const isCut = found.some((point) => point.y < least);
  const xs = points.map((point) => point.x), ys = points.map((point) => Math.log10(point.y));
  const xLow = Math.min(...xs), xHigh = Math.max(...xs);
  const yLow = isCut ? Math.log10(least) : Math.floor(Math.min(...ys) * 2 - 0.02) / 2, yHigh = Math.max(Math.ceil(Math.max(...ys) * 2 + 0.02) / 2, yLow + 0.5);
  const x = (value) => left + (xHigh > xLow ? (value - xLow) / (xHigh - xLow) : 0.5) * (width - left - right);
  const y = (value) => top + (1 - (Math.log10(value) - yLow) / (yHigh - yLow)) * (height - top - bottom);
  const chart = svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", tabindex: 0, "aria-label": `${title}. Arrow keys go from point to point.` });
  const step = yHigh - yLow > 6 ? 2 : yHigh - yLow > 2 ? 1 : 0.5;
  for (let tick = Math.ceil(yLow / step) * step; tick <= yHigh + 1e-9; tick += step) {
    const at = y(10 ** tick);
    chart.append(svg("line", { class: "grid", x1: left, x2: width - right, y1: at, y2: at }),
      svg("text", { x: left - 8, y: at + 4, "text-anchor": "end" }, isCut && at > height - bottom - 14 ? "" : tickText(tick)));
  }
  if (isCut) chart.append(svg("text", { x: left - 8, y: height - bottom + 4, "text-anchor": "end" }, `≤ ${tickText(yLow)}`));
  const every = Math.max(1, Math.ceil((xHigh - xLow + 1) / Math.max(2, (width - left) / 34)));
  for (let tick = xLow; tick <= xHigh; tick += every) {
    chart.append(svg("text", { x: x(tick), y: height - bottom + 18, "text-anchor": "middle" }, tick));
  }
  chart.append(svg("line", { class: "axis", x1: left, x2: width - right, y1: height - bottom, y2: height - bottom }),
    svg("text", { x: (left + width - right) / 2, y: height - 4, "text-anchor": "middle" }, xLabel),
    svg("text", { x: 12, y: (top + height - bottom) / 2, "text-anchor": "middle", transform: `rotate(-90 12 ${(top + height - bottom) / 2})` }, yLabel));
  series.forEach((line, of) => {
    const [colour, dash, shape] = looks[of % looks.length];
    const own = points.filter((point) => point.of === of).sort((a, b) => a.x - b.x);
    chart.append(svg("polyline", { points: own.map((point) => `${x(point.x)},${y(point.y)}`).join(" "), fill: "none", stroke: colour, "stroke-width": 1.6, "stroke-dasharray": dash }));
    for (const point of own) chart.append(svg("path", { d: shapes[shape](2.8), fill: colour, transform: `translate(${x(point.x)},${y(point.y)})` }));
  });
  const cursor = svg("circle", { class: "cursor", r: 7, visibility: "hidden" });
  chart.append(cursor);
  let current = null;
  const select = (point) => {
    current = point;
    cursor.setAttribute("cx", x(point.x));
    cursor.setAttribute("cy", y(point.y));
    cursor.setAttribute("visibility", "visible");
    const box = chart.getBoundingClientRect();
    showTip(point.label, box.left + x(point.x) * (box.width / width), box.top + y(point.y) * (box.height / height));
  };
  const leave = () => {
    cursor.setAttribute("visibility", "hidden");
    hideTip();
  };
  const nearest = (candidates, px, py) => candidates.reduce((best, point) => {
    const distance = Math.hypot(x(point.x) - px, y(point.y) - py);
    return best === null || distance < best.distance ? { point, distance } : best;
  }, null)?.point;
  chart.addEventListener("pointermove", (event) => {
    const box = chart.getBoundingClientRect();
    select(nearest(points, (event.clientX - box.left) * (width / box.width), (event.clientY - box.top) * (height / box.height)));
  });
  chart.addEventListener("pointerleave", leave);
  chart.addEventListener("blur", leave);
  chart.addEventListener("focus", () => select(current ?? points[0]));
  chart.addEventListener("keydown", (event) => {
    const from = current ?? points[0];
    const side = { ArrowRight: 1, ArrowLeft: -1 }[event.key], level = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    const ahead = points.filter((point) =>
      side ? point.of === from.of && (point.x - from.x) * side > 0
        : level && point.x === from.x && (y(point.y) - y(from.y)) * level > 0);
    if (!side && !level) return;
    event.preventDefault();
    const next = nearest(ahead, x(from.x), y(from.y));
    if (next) select(next);
  });
  return chart;
}

// A picture that is drawn for the width it has, once that is known, and again when it changes.
const undrawn = [];
const drawFitted = () => undrawn.splice(0).forEach((draw) => draw());
function fitted(caption, draw) {
  const figure = html("figure");
  let drawn = 0;
  const redraw = () => {
    const width = Math.floor(figure.clientWidth);
    if (width === drawn || width === 0) return;
    drawn = width;
    figure.replaceChildren(...(caption ? [html("figcaption", {}, caption)] : []), draw(width));
  };
  undrawn.push(redraw);
  new ResizeObserver(() => requestAnimationFrame(redraw)).observe(figure);
  return figure;
}

// ---- bars

// `bars`: [{name, value, note, look, tag}] on a linear axis from zero.
function barChart(bars, { title, width }) {
  const rowHeight = 22, valueRoom = 76 + (bars.some((bar) => bar.tag) ? 90 : 0);
  const nameRoom = Math.min(width * 0.55, 12 + 6.6 * Math.max(...bars.map((bar) => bar.name.length)));
  const most = Math.max(...bars.map((bar) => bar.value ?? 0), Number.MIN_VALUE);
  const chart = svg("svg", { width, height: rowHeight * bars.length + 4, role: "img", "aria-label": title });
  const letters = Math.floor((nameRoom - 12) / 6.6);
  bars.forEach((bar, i) => {
    const top = i * rowHeight, room = width - nameRoom - valueRoom;
    const length = isNumber(bar.value) ? Math.max(1, (bar.value / most) * room) : 0;
    const name = bar.name.length > letters ? `…${bar.name.slice(1 - letters)}` : bar.name;
    chart.append(svg("g", {
      onpointermove: (event) => showTip(`${bar.name}\n${bar.note}: ${bar.value ?? "not finite"}`, event.clientX, event.clientY),
      onpointerleave: hideTip,
    },
      svg("rect", { x: 0, y: top, width, height: rowHeight, fill: "transparent" }),
      svg("text", { x: nameRoom - 8, y: top + 15, "text-anchor": "end" }, name),
      svg("rect", { x: nameRoom, y: top + 4, width: length, height: rowHeight - 8, rx: 2, fill: looks[bar.look % looks.length][0] }),
      svg("text", { class: "value", x: nameRoom + length + 6, y: top + 15 }, bar.value === null ? "not finite" : short(bar.value),
        svg("tspan", { class: "tag", dx: 8 }, bar.tag ?? ""))));
  });
  return chart;
}

// ---- sections

const runsWith = (table, test = () => true) => distinct((tables[table] ?? []).filter(test), "run");
const kindName = { linear: "Linears", attention: "Attention" };

function drawRuns() {
  const ofSettings = new Set(["input_fmt", "output_fmt", "rules", "requests", "measured", "start", "end"]);
  const cards = data.runs.map((run) => {
    const hidden = run.kind === "bench" ? new Set() : ofSettings;
    const facts = [["source", run.source], ["kind", run.kind], ...Object.entries(run.meta).filter(([key]) => !hidden.has(key))];
    return html("div", {}, html("h3", {}, run.name), html("dl", {}, ...facts.flatMap(([key, value]) =>
      [html("dt", {}, key.replaceAll("_", " ")), html("dd", {}, value === null ? "none" : [].concat(value).join(", ") || "none")])));
  });
  section("What was measured", `Made ${data.made} with pi0 ${data.version.replace(/^pi0 /, "")}. RMSE compares a layer's output with that in full precision, per call; components are means over their layers.`,
    html("div", { class: "panels" }, ...cards));
}

function heatMap(run) {
  const settings = rowsOf("settings", { run }), cells = rowsOf("components", { run });
  const columns = [];
  for (const kind of ["linear", "attention"]) {
    for (const component of distinct(cells.filter((cell) => cell.kind === kind), "component")) columns.push({ kind, component });
  }
  const scale = logScale(cells.map((cell) => cell.mean_rmse));
  const actions = settings.some((setting) => isNumber(setting.action_rmse));
  const actionScale = logScale(settings.map((setting) => setting.action_rmse));
  const groups = Object.entries(kindName).map(([kind, name]) => [name, columns.filter((column) => column.kind === kind).length]).filter(([, count]) => count > 0);
  const head = html("thead", {},
    html("tr", {}, html("th", {}), ...(actions ? [html("th", { class: "group", scope: "colgroup" }, "Actions")] : []),
      ...groups.map(([name, count]) => html("th", { class: "group", scope: "colgroup", colspan: count }, name))),
    html("tr", {}, html("th", { scope: "col" }, "input / output format"), ...(actions ? [html("th", { scope: "col" }, "RMSE")] : []),
      ...columns.map(({ component }) => html("th", { scope: "col" }, component.replaceAll("_", " ")))));
  const body = settings.map(({ setting, action_rmse: action }) =>
    html("tr", {}, html("th", { scope: "row" }, setting), ...(actions ? [heatCell(action, actionScale, `${setting}, actions`)] : []),
      ...columns.map(({ kind, component }) => {
        const cell = cells.find((row) => row.setting === setting && row.kind === kind && row.component === component);
        return heatCell(cell?.mean_rmse ?? null, scale, `${setting}, ${component}, ${kind}`);
      })));
  return [scaleBar(scale, "Mean RMSE"), html("div", { class: "scroll", tabindex: 0 }, html("table", { class: "heat" }, head, html("tbody", {}, ...body))),
    tableBehind("components", cells)];
}

function drawHeatMaps() {
  const runs = runsWith("components");
  if (runs.length === 0) return;
  section("Formats and components", "Mean RMSE of each component's layers under each pair of formats, and the RMSE of the actions as the model gives them.",
    interactive([["run", "Run", () => runs]], ({ run }) => heatMap(run)));
}

function drawActionMap() {
  const runs = runsWith("settings", (row) => isNumber(row.action_rmse) && row.input_fmt !== null);
  if (runs.length === 0) return;
  section("Action error by format", "RMSE of the model's actions against its own without quantization. Rows: format of inputs and weights; columns: of outputs.",
    interactive([["run", "Run", () => runs]], ({ run }) => {
      const rows = rowsOf("settings", { run }), inputs = distinct(rows, "input_fmt"), outputs = distinct(rows, "output_fmt");
      const scale = logScale(rows.map((row) => row.action_rmse));
      const body = inputs.map((input) => html("tr", {}, html("th", { scope: "row" }, input), ...outputs.map((output) =>
        heatCell(rows.find((row) => row.input_fmt === input && row.output_fmt === output)?.action_rmse ?? null, scale, `${input} / ${output}`))));
      return [scaleBar(scale, "Action RMSE"), html("div", { class: "scroll", tabindex: 0 }, html("table", { class: "heat" },
        html("thead", {}, html("tr", {}, html("th", {}, "input \\ output"), ...outputs.map((output) => html("th", { scope: "col" }, output)))),
        html("tbody", {}, ...body))), tableBehind("settings", rows)];
    }));
}

// "….layers.3.self_attn.q_proj" is layer 3, q_proj; what is in no stack has no depth.
function placeOf(layer) {
  const found = /^(.*)\.layers\.(\d+)\.(.+)$/.exec(layer);
  return found ? { depth: Number(found[2]), part: found[3].replace(/^(self_attn|mlp)\./, "") } : { depth: null, part: layer };
}

const order = ["q_proj", "k_proj", "v_proj", "sdpa", "o_proj", "out_proj", "gate_proj", "up_proj", "down_proj", "fc1", "fc2"];

function drawProfile() {
  const runs = runsWith("layers");
  if (runs.length === 0) return;
  const measures = { rmse: "RMSE", rel_rmse: "RMSE relative to the output" };
  section("Layers by depth", "One line per matrix of a layer, over the layers of each stack. Point at a line, or use the arrow keys in a picture, to read a layer.",
    interactive([
      ["run", "Run", () => runs],
      ["setting", "Formats", ({ run }) => {
        const settings = distinct(rowsOf("layers", { run }), "setting");
        return [...settings.filter((name) => name !== "float32 / float32"), ...settings.filter((name) => name === "float32 / float32")];
      }],
      ["measure", "Measure", ({ run }) => Object.keys(measures).filter((key) => rowsOf("layers", { run }).some((row) => row[key] !== null))],
    ], ({ run, setting, measure }) => {
      const rows = rowsOf("layers", { run, setting }).map((row) => ({ ...row, ...placeOf(row.layer) }));
      const called = rows.filter((row) => row.n_calls !== 0);
      const stacked = called.filter((row) => row.depth !== null);
      const parts = distinct(stacked, "part").sort((a, b) => (order.indexOf(a) + 1 || 99) - (order.indexOf(b) + 1 || 99));
      const label = (row) => `${row.layer}\nRMSE ${row.rmse ?? "not finite"}${row.rel_rmse === null ? "" : `\nrelative ${row.rel_rmse}`}\n${row.n_calls} calls`;
      const panels = distinct(stacked, "component").map((component) => {
        const series = parts.map((part) => ({
          points: stacked.filter((row) => row.component === component && row.part === part).map((row) => ({ x: row.depth, y: row[measure], label: label(row) })),
        }));
        return fitted(component.replaceAll("_", " "), (width) =>
          lineChart(series, { title: `${measures[measure]} by depth, ${component}`, xLabel: "layer", yLabel: measures[measure], width }));
      });
      const others = called.filter((row) => row.depth === null).map((row) =>
        ({ name: row.layer, value: row[measure], note: measures[measure], look: 0 }));
      const named = (text, left) => (left.length === 0 ? null
        : html("p", {}, `${text}: ${left.slice(0, 6).map((row) => row.layer).join(", ")}${left.length > 6 ? ` and ${left.length - 6} more in the table` : ""}`));
      return [legend(parts), html("div", { class: "panels" }, ...panels),
        named("Without a finite value", called.filter((row) => !isNumber(row[measure]))),
        named("Exactly zero, which a log axis cannot show", stacked.filter((row) => row[measure] === 0)),
        named("Never called", rows.filter((row) => row.n_calls === 0)),
        others.length === 0 ? null : html("h3", {}, "Outside the stacks"),
        others.length === 0 ? null : fitted("", (width) => barChart(others, { title: `${measures[measure]} of layers outside the stacks`, width })),
        tableBehind("layers", rowsOf("layers", { run, setting }))];
    }));
}

function drawSensitivity() {
  const runs = runsWith("sensitivity");
  if (runs.length === 0) return;
  const components = distinct(tables.sensitivity, "component"), first = 20;
  section("Sensitivity", "RMSE of the actions when only this layer, or component, is quantized; the most sensitive first.",
    interactive([["run", "Run", () => runs], ["shown", "Show", ({ run }) => (rowsOf("sensitivity", { run }).length > first ? [`the first ${first}`, "all"] : ["all"])]],
      ({ run, shown }) => {
        const rows = rowsOf("sensitivity", { run });
        const bars = rows.slice(0, shown === "all" ? rows.length : first).map((row) => ({
          name: row.name.replace(/^paligemma_with_expert\./, ""), value: row.action_rmse, note: "action RMSE",
          look: components.indexOf(row.component), tag: row.of === "layer" ? row.component.replaceAll("_", " ") : "",
        }));
        return [fitted(`${rows[0].setting}, one ${rows[0].of} at a time`, (width) => barChart(bars, { title: "Action RMSE by what is quantized alone", width })),
        tableBehind("sensitivity", rows)];
      }));
}

// A step × dimension map, hovered or walked with the arrow keys.
function chunkMap(cells, setting, width) {
  const steps = Math.max(...cells.map((cell) => cell.step)) + 1, dimensions = Math.max(...cells.map((cell) => cell.dimension)) + 1;
  const left = 46, top = 6, bottom = 36, cellWidth = (width - left - 4) / steps, cellHeight = Math.max(9, Math.min(24, 300 / dimensions));
  const height = top + dimensions * cellHeight + bottom, scale = logScale(cells.map((cell) => cell.rmse));
  const chart = svg("svg", { width, height, role: "img", tabindex: 0, "aria-label": `Action RMSE of ${setting} by dimension and step of the chunk. Arrow keys go from cell to cell.` });
  for (const cell of cells) {
    const known = isNumber(cell.rmse) && cell.rmse > 0;
    chart.append(svg("rect", { x: left + cell.step * cellWidth, y: top + cell.dimension * cellHeight, width: Math.max(1, cellWidth - 1), height: cellHeight - 1,
      fill: known ? css(colourAt(sequential, scale.share(cell.rmse))) : "none", stroke: known ? "none" : "var(--hatch)" }));
  }
  const every = Math.max(1, Math.ceil(26 / cellWidth)), everyRow = Math.max(1, Math.ceil(13 / cellHeight));
  for (let step = 0; step < steps; step += every) chart.append(svg("text", { x: left + (step + 0.5) * cellWidth, y: height - bottom + 16, "text-anchor": "middle" }, step));
  for (let i = 0; i < dimensions; i += everyRow) chart.append(svg("text", { x: left - 8, y: top + (i + 0.5) * cellHeight + 4, "text-anchor": "end" }, i));
  chart.append(svg("text", { x: (left + width) / 2, y: height - 4, "text-anchor": "middle" }, "step of the chunk"),
    svg("text", { x: 11, y: top + (dimensions * cellHeight) / 2, "text-anchor": "middle", transform: `rotate(-90 11 ${top + (dimensions * cellHeight) / 2})` }, "dimension"));
  const cursor = svg("rect", { class: "cursor", width: cellWidth, height: cellHeight, visibility: "hidden" });
  chart.append(cursor);
  const at = { step: 0, dimension: 0 };
  const select = (step, dimension) => {
    const cell = cells.find((candidate) => candidate.step === step && candidate.dimension === dimension);
    if (!cell) return;
    Object.assign(at, { step, dimension });
    cursor.setAttribute("x", left + step * cellWidth - 0.5);
    cursor.setAttribute("y", top + dimension * cellHeight - 0.5);
    cursor.setAttribute("visibility", "visible");
    const box = chart.getBoundingClientRect();
    showTip(`dimension ${dimension}, step ${step}\nRMSE ${cell.rmse ?? "not finite"}`, box.left + left + step * cellWidth, box.top + top + (dimension + 1) * cellHeight);
  };
  const leave = () => {
    cursor.setAttribute("visibility", "hidden");
    hideTip();
  };
  chart.addEventListener("pointermove", (event) => {
    const box = chart.getBoundingClientRect();
    select(Math.floor((event.clientX - box.left - left) / cellWidth), Math.floor((event.clientY - box.top - top) / cellHeight));
  });
  chart.addEventListener("pointerleave", leave);
  chart.addEventListener("blur", leave);
  chart.addEventListener("focus", () => select(at.step, at.dimension));
  chart.addEventListener("keydown", (event) => {
    const move = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] }[event.key];
    if (!move) return;
    event.preventDefault();
    select(at.step + move[0], at.dimension + move[1]);
  });
  return html("div", {}, scaleBar(scale, "RMSE"), chart);
}

function drawActions() {
  const runs = runsWith("actions", (row) => isNumber(row.rmse) && row.rmse > 0);
  if (runs.length === 0) return;
  const units = (run) => (rowsOf("settings", { run }).some((row) => isNumber(row.action_rmse_robot)) ? "in the robot's units" : "as the model gives them");
  section("Action error over the chunk", "RMSE of the actions by dimension and by step of the action chunk, against those without quantization.",
    interactive([["run", "Run", () => runs], ["setting", "Formats", ({ run }) => distinct(rowsOf("actions", { run }).filter((row) => row.rmse > 0), "setting").reverse()]],
      ({ run, setting }) => {
        const rows = rowsOf("actions", { run, setting });
        const cells = rows.filter((row) => row.step !== null && row.dimension !== null);
        const line = (rowsOfLine, key) => [{ points: rowsOfLine.map((row) => ({ x: row[key], y: row.rmse, label: `${key} ${row[key]}\nRMSE ${row.rmse ?? "not finite"}` })) }];
        const byDimension = rows.filter((row) => row.step === null), byStep = rows.filter((row) => row.dimension === null);
        return [cells.length === 0 ? null : fitted(`${setting}, actions ${units(run)}`, (width) => chunkMap(cells, setting, width)),
          html("div", { class: "panels" },
            fitted("by dimension, over all steps", (width) => lineChart(line(byDimension, "dimension"), { title: "Action RMSE by dimension", xLabel: "dimension", yLabel: "RMSE", width })),
            fitted("by step, over all dimensions", (width) => lineChart(line(byStep, "step"), { title: "Action RMSE by step", xLabel: "step of the chunk", yLabel: "RMSE", width }))),
          tableBehind("actions", rows)];
      }));
}

function drawLatency() {
  const runs = runsWith("settings", (row) => isNumber(row.inference_time_s) && row.n_observations > 0);
  if (runs.length > 0) {
    section("Seconds per observation", "inference_time_s over n_observations of each setting, quantized and measured. Simulated formats say nothing of the speed of real ones.",
      interactive([["run", "Run", () => runs]], ({ run }) => {
        const rows = rowsOf("settings", { run });
        const bars = rows.map((row) => ({ name: row.setting, value: row.inference_time_s / row.n_observations, note: "seconds per observation", look: 0 }));
        return [fitted("", (width) => barChart(bars, { title: "Seconds per observation", width })), tableBehind("settings", rows)];
      }));
  }
  const benches = runsWith("stages");
  if (benches.length === 0) return;
  section("Stages of a request", "Seconds of the run in the middle, by stage, as pi0 bench measured them.",
    interactive([["run", "Run", () => benches]], ({ run }) => {
      const rows = rowsOf("stages", { run }), modes = distinct(rows, "setting");
      const bars = rows.map((row) => ({ name: `${row.setting.replaceAll("_", " ")}: ${row.stage}`, value: row.seconds, note: "seconds", look: modes.indexOf(row.setting) }));
      return [fitted("", (width) => barChart(bars, { title: "Seconds by stage", width })), tableBehind("stages", rows)];
    }));
}

// " (0.53 to 0.89)", or nothing.
function interval(low, high) {
  return isNumber(low) && isNumber(high) ? ` (${low.toPrecision(2)} to ${high.toPrecision(2)})` : "";
}

function drawSuccess() {
  const runs = runsWith("success");
  if (runs.length === 0) return;
  section("Success in simulation", "Episodes that succeeded, of those that were run, by pair of formats and scene, with Wilson's 95 % interval of the rate. Hatched: the simulator said nothing or failed. p: McNemar's exact test against the unquantized policy (or float32) over the same episodes.",
    interactive([["run", "Run", () => runs]], ({ run }) => {
      const rows = rowsOf("success", { run }), settings = rowsOf("settings", { run }), scenes = distinct(rows, "scene");
      const body = settings.map(({ setting, error, mcnemar_p }) => html("tr", {}, html("th", { scope: "row" }, setting), ...scenes.map((scene) => {
        const cell = rows.find((row) => row.setting === setting && row.scene === scene);
        if (!isNumber(cell?.success_rate) || cell.error) return html("td", { class: "none", title: cell?.error ?? error ?? "no success rate" }, cell?.error ?? "–");
        const colour = colourAt(sequential, cell.success_rate);
        return html("td", { style: `background: ${css(colour)}; color: ${inkOn(colour)}`, title: `${setting}, scene ${scene}: ${cell.success_rate}${interval(cell.success_low, cell.success_high)}` },
          `${cell.n_success} of ${cell.n_episodes}`, html("br", {}), html("small", {}, interval(cell.success_low, cell.success_high)),
          ...(isNumber(cell.score_mean) ? [html("br", {}), html("small", { title: `mean score${interval(cell.score_mean_low, cell.score_mean_high)}` }, `score ${cell.score_mean.toPrecision(4)}`)] : []));
      }), html("td", { class: "text" }, error ?? (isNumber(mcnemar_p) ? `p = ${mcnemar_p.toPrecision(2)}` : ""))));
      return [html("div", { class: "scroll", tabindex: 0 }, html("table", { class: "heat" },
        html("thead", {}, html("tr", {}, html("th", {}), ...scenes.map((scene) => html("th", { scope: "col" }, `scene ${scene}`)), html("th", {}))), html("tbody", {}, ...body))),
      tableBehind("success", rows)];
    }));
}

function ratioCell(first, second, description) {
  if (!isNumber(first) || !isNumber(second)) return html("td", { class: "none", title: `${description}: ${first ?? "none"} and ${second ?? "none"}` }, "–");
  const title = `${description}: ${first} and ${second}`;
  if (first === 0 || second === 0) return html("td", { class: "zero", title }, first === second ? "both 0" : `${short(first)} | ${short(second)}`);
  const colour = colourAt(diverging, 0.5 + Math.log2(second / first) / 4);
  return html("td", { title, style: `background: ${css(colour)}; color: ${inkOn(colour)}` }, `×${short(second / first)}`);
}

function drawComparison() {
  const runs = runsWith("components");
  if (runs.length < 2) return;
  section("Two runs side by side", "How many times larger the second run's mean RMSE is: orange where it is larger, blue where it is smaller, full colour from four times on. Point at a cell for both numbers.",
    interactive([["first", "First", () => runs], ["second", "Second", ({ first }) => runs.filter((run) => run !== first)]], ({ first, second }) => {
      const settings = (run) => distinct(rowsOf("components", { run }), "setting");
      const alone = settings(first).length === 1 && settings(second).length === 1;
      const pairs = alone ? [[settings(first)[0], settings(second)[0]]] : settings(first).filter((name) => settings(second).includes(name)).map((name) => [name, name]);
      if (pairs.length === 0) return [html("p", {}, "These runs have no setting in common.")];
      const cells = rowsOf("components", { run: first });
      const columns = [];
      for (const { kind, component } of cells) if (!columns.some((column) => column.kind === kind && column.component === component)) columns.push({ kind, component });
      const value = (run, setting, { kind, component }) => rowsOf("components", { run, setting, kind, component })[0]?.mean_rmse ?? null;
      const action = (run, setting) => rowsOf("settings", { run, setting })[0]?.action_rmse ?? null;
      const actions = pairs.some(([name]) => isNumber(action(first, name)));
      const body = pairs.map(([mine, theirs]) => html("tr", {}, html("th", { scope: "row" }, mine === theirs ? mine : `${mine}, ${theirs}`),
        ...(actions ? [ratioCell(action(first, mine), action(second, theirs), `${mine}, actions`)] : []),
        ...columns.map((column) => ratioCell(value(first, mine, column), value(second, theirs, column), `${mine}, ${column.component}, ${column.kind}`))));
      return [html("div", { class: "scroll", tabindex: 0 }, html("table", { class: "heat" },
        html("thead", {}, html("tr", {}, html("th", { scope: "col" }, "formats"), ...(actions ? [html("th", { scope: "col" }, "actions")] : []),
          ...columns.map(({ kind, component }) => html("th", { scope: "col" }, `${component.replaceAll("_", " ")}${kind === "attention" ? " (attention)" : ""}`)))),
        html("tbody", {}, ...body))),
      tableBehind("components", [...cells, ...rowsOf("components", { run: second })])];
    }));
}

// ---- light and dark

const prefersDark = matchMedia("(prefers-color-scheme: dark)");
const setTheme = (theme) => (document.documentElement.dataset.theme = theme);
setTheme(prefersDark.matches ? "dark" : "light");
prefersDark.addEventListener("change", () => setTheme(prefersDark.matches ? "dark" : "light"));
document.getElementById("theme").addEventListener("click", () => setTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark"));
addEventListener("scroll", hideTip, { passive: true });

drawRuns();
drawHeatMaps();
drawActionMap();
drawProfile();
drawSensitivity();
drawActions();
drawSuccess();
drawLatency();
drawComparison();
document.documentElement.dataset.ready = "yes";
