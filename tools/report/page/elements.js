"use strict";
// The report's page, first of three scripts: data, elements, colours, tables, controls.

const data = JSON.parse(document.getElementById("data").textContent);
const tables = Object.fromEntries(
  Object.entries(data.tables).map(([name, { columns, words, rows }]) => {
    const textOf = columns.map((column) => words[column]);  // a column of texts holds places in its words
    return [name, rows.map((row) => Object.fromEntries(columns.map((column, i) => [column, textOf[i] && row[i] !== null ? textOf[i][row[i]] : row[i]])))];
  }),
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
  return Number.isInteger(value) || size >= 100 ? String(Math.round(value)) : value.toPrecision(3);
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

// Sequential: cividis, even steps of lightness, the same for colour-blind eyes. Diverging: blue, neutral, orange.
const { sequential, diverging } = data.looks;

function colourAt(stops, share) {
  const place = Math.max(0, Math.min(1, share)) * (stops.length - 1);
  const from = Math.min(Math.floor(place), stops.length - 2);
  return stops[from].map((channel, i) => Math.round(channel + (stops[from + 1][i] - channel) * (place - from)));
}
const css = (colour) => `rgb(${colour.join(",")})`;
function inkOn(colour) {
  const [r, g, b] = colour.map((channel) => ((channel / 255 + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.179 ? "#000" : "#fff";
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

const wordsTitle = "What was measured";
const openWords = () => (document.getElementById("words").open = true);

function section(title, explanation, ...parts) {
  document.getElementById("report").append(html("section", {}, html("h2", {}, title), html("p", {}, explanation, " ", title === wordsTitle ? "" : html("a", { href: "#words", onclick: openWords }, "What the words mean")), ...parts));
  drawFitted();
}
