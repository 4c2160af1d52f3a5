// Second of three scripts: the kinds of charts. They know nothing of what the numbers mean.

// ---- line charts

const looks = data.looks.lines.map(([colour, dash, shape]) => [`var(--c${colour})`, dash, shape]);
const shapeAt = (shape, radius, x, y) => ({ d: data.looks.marks[shape], transform: `translate(${x},${y}) scale(${radius})` });

// Of lines, or with a `mark` of that alone.
function legend(names, mark = null) {
  return html("div", { class: "legend" }, ...names.map((name, i) => {
    const [colour, dash, shape] = looks[i % looks.length];
    if (mark) return html("span", {}, svg("svg", { width: 14, height: 12, "aria-hidden": "true" }, svg("path", { ...shapeAt(mark, 5, 7, 6), fill: colour })), name);
    return html("span", {}, svg("svg", { width: 34, height: 12, "aria-hidden": "true" },
      svg("line", { x1: 0, y1: 6, x2: 34, y2: 6, stroke: colour, "stroke-width": 2, "stroke-dasharray": dash }),
      svg("path", { ...shapeAt(shape, 3.5, 17, 6), fill: colour })), name);
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
    for (const point of own) chart.append(svg("path", { ...shapeAt(shape, 2.8, x(point.x), y(point.y)), fill: colour }));
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

// `bars`: [{name, value, note, look, tag}] on a linear axis from zero, with a line at `floor` if there is one.
function barChart(bars, { title, width, floor = null }) {
  const isNarrow = width < 560;  // names stand above their bars
  const rowHeight = isNarrow ? 38 : 22, barTop = isNarrow ? 18 : 4, valueRoom = 76 + (bars.some((bar) => bar.tag) ? 90 : 0);
  const nameRoom = isNarrow ? 0 : Math.min(width * 0.55, 12 + 6.6 * Math.max(...bars.map((bar) => bar.name.length)));
  const most = Math.max(...bars.map((bar) => bar.value ?? 0), Number.MIN_VALUE);
  const chart = svg("svg", { width, height: rowHeight * bars.length + 4, role: "img", "aria-label": title });
  const letters = Math.floor((isNarrow ? width : nameRoom - 12) / 6.6), room = width - nameRoom - valueRoom;
  bars.forEach((bar, i) => {
    const top = i * rowHeight;
    const length = isNumber(bar.value) ? Math.max(1, (bar.value / most) * room) : 0;
    const name = bar.name.length > letters ? `…${bar.name.slice(1 - letters)}` : bar.name;
    chart.append(svg("g", {
      onpointermove: (event) => showTip(`${bar.name}\n${bar.note}: ${bar.value ?? "not finite"}`, event.clientX, event.clientY),
      onpointerleave: hideTip,
    },
      svg("rect", { x: 0, y: top, width, height: rowHeight, fill: "transparent" }),
      svg("text", isNarrow ? { x: 0, y: top + 14 } : { x: nameRoom - 8, y: top + 15, "text-anchor": "end" }, name),
      svg("rect", { x: nameRoom, y: top + barTop, width: length, height: 14, rx: 2, fill: looks[bar.look % looks.length][0] }),
      svg("text", { class: "value", x: nameRoom + length + 6, y: top + barTop + 11 }, bar.value === null ? "not finite" : short(bar.value),
        svg("tspan", { class: "tag", dx: 8 }, bar.tag ?? ""))));
  });
  if (isNumber(floor) && floor < most) {
    const at = nameRoom + (floor / most) * room;
    chart.append(svg("line", { class: "floor", x1: at, x2: at, y1: 0, y2: rowHeight * bars.length }));
  }
  return chart;
}

// `rows`: [{name, parts: [{name, value}]}], their parts side by side on one axis from zero, in `unit`.
function stackedBars(rows, { title, unit, width }) {
  const names = [...new Set(rows.flatMap((row) => row.parts.map((part) => part.name)))];
  const total = (row) => row.parts.reduce((sum, part) => sum + (part.value ?? 0), 0);
  const rowHeight = 34, valueRoom = 84, nameRoom = Math.min(width * 0.4, 14 + 6.8 * Math.max(...rows.map((row) => row.name.length)));
  const most = Math.max(...rows.map(total), Number.MIN_VALUE);
  const chart = svg("svg", { width, height: rowHeight * rows.length + 4, role: "img", "aria-label": title });
  rows.forEach((row, i) => {
    const top = i * rowHeight;
    let from = nameRoom;
    chart.append(svg("text", { x: nameRoom - 8, y: top + 21, "text-anchor": "end" }, row.name));
    for (const part of row.parts) {
      const length = ((part.value ?? 0) / most) * (width - nameRoom - valueRoom);
      chart.append(svg("rect", {
        x: from, y: top + 5, width: Math.max(0.5, length - 1), height: rowHeight - 12, fill: looks[names.indexOf(part.name) % looks.length][0],
        onpointermove: (event) => showTip(`${row.name}, ${part.name}\n${part.value} ${unit}`, event.clientX, event.clientY), onpointerleave: hideTip,
      }));
      from += length;
    }
    chart.append(svg("text", { class: "value", x: from + 6, y: top + 21 }, `${short(total(row))} ${unit}`));
  });
  return html("div", {}, legend(names, "square"), chart);
}

// `points`: [{x, y, label, name, look, isHollow}], both axes logarithmic unless `xTicks` gives the x values to mark. Points
// with a name carry it where there is room. `line`: points to join, in order. `floor`: a line across.
function scatterChart(points, { title, xLabel, yLabel, width, floor = null, xTicks = null, line = [] }) {
  const height = 320, left = 70, right = 16, top = 14, bottom = 42;
  const shown = points.filter((point) => isNumber(point.y) && point.y > 0 && isNumber(point.x) && (xTicks || point.x > 0));
  if (shown.length === 0) return html("p", {}, `${title}: no values above zero.`);
  const xOf = (value) => (xTicks ? value : Math.log10(value));
  const range = (values) => [Math.min(...values), Math.max(...values)];
  const [x0, x1] = xTicks ? range(xTicks) : range(shown.map((point) => xOf(point.x)));
  const [y0, y1] = range([...shown.map((point) => Math.log10(point.y)), ...(isNumber(floor) && floor > 0 ? [Math.log10(floor)] : [])]);
  const pad = xTicks ? (x1 - x0) * 0.08 + 0.5 : 0.1, yLow = y0 - 0.12, yHigh = y1 + 0.12;
  const x = (value) => left + ((xOf(value) - x0 + pad) / (x1 - x0 + 2 * pad)) * (width - left - right);
  const y = (value) => top + (1 - (Math.log10(value) - yLow) / (yHigh - yLow)) * (height - top - bottom);
  const chart = svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": title });
  const step = yHigh - yLow > 2 ? 1 : 0.5;
  for (let tick = Math.ceil(yLow / step) * step; tick <= yHigh; tick += step) {
    const at = y(10 ** tick);
    chart.append(svg("line", { class: "grid", x1: left, x2: width - right, y1: at, y2: at }), svg("text", { x: left - 8, y: at + 4, "text-anchor": "end" }, tickText(tick)));
  }
  const marks = xTicks ?? Array.from({ length: 31 }, (_, i) => 10 ** (i / 2 - 12)).filter((value) => Math.log10(value) >= x0 - pad && Math.log10(value) <= x1 + pad);
  let free = -Infinity;  // where the next mark has room
  for (const mark of marks) {
    if (x(mark) < free) continue;
    free = x(mark) + 34;
    chart.append(svg("text", { x: x(mark), y: height - bottom + 18, "text-anchor": "middle" }, xTicks ? short(mark) : tickText(Math.log10(mark))));
  }
  chart.append(svg("line", { class: "axis", x1: left, x2: width - right, y1: height - bottom, y2: height - bottom }),
    svg("text", { x: (left + width - right) / 2, y: height - 5, "text-anchor": "middle" }, xLabel),
    svg("text", { x: 12, y: (top + height - bottom) / 2, "text-anchor": "middle", transform: `rotate(-90 12 ${(top + height - bottom) / 2})` }, yLabel));
  if (isNumber(floor) && floor > 0) {
    chart.append(svg("line", { class: "floor", x1: left, x2: width - right, y1: y(floor), y2: y(floor) }), svg("text", { x: left + 6, y: y(floor) - 5 }, "floor: rounding alone"));
  }
  if (line.length > 1) chart.append(svg("polyline", { points: line.map((point) => `${x(point.x)},${y(point.y)}`).join(" "), fill: "none", stroke: "var(--muted)", "stroke-width": 1, "stroke-dasharray": "3 3" }));
  const taken = [];
  for (const point of shown) {
    const at = [x(point.x), y(point.y)], [colour, , shape] = looks[(point.look ?? 0) % looks.length];
    chart.append(svg("path", { ...shapeAt(shape, 4, ...at), fill: point.isHollow ? "var(--card)" : colour, stroke: colour, "stroke-width": 1.5 / 4,
      onpointermove: (event) => showTip(point.label, event.clientX, event.clientY), onpointerleave: hideTip }));
    if (!point.name) continue;
    const length = 6.4 * point.name.length, toLeft = at[0] + length + 10 > width - right;
    const box = { from: toLeft ? at[0] - length - 8 : at[0] + 8, to: toLeft ? at[0] - 8 : at[0] + 8 + length, at: at[1] };
    if (box.from < left || taken.some((other) => Math.abs(other.at - box.at) < 13 && other.from < box.to && other.to > box.from)) continue;
    taken.push(box);
    chart.append(svg("text", { x: toLeft ? at[0] - 8 : at[0] + 8, y: at[1] + 4, "text-anchor": toLeft ? "end" : "start" }, point.name));
  }
  return chart;
}

// A step × dimension map, hovered or walked with the arrow keys.
function chunkMap(cells, setting, width) {
  const steps = Math.max(...cells.map((cell) => cell.step)) + 1, dimensions = Math.max(...cells.map((cell) => cell.dimension)) + 1;
  const nameOf = (dimension) => cells.find((cell) => cell.dimension === dimension)?.joint ?? String(dimension);
  const names = Array.from({ length: dimensions }, (_, i) => nameOf(i));
  const left = 28 + 6.6 * Math.min(18, Math.max(...names.map((name) => name.length))), top = 6, bottom = 36, cellWidth = (width - left - 4) / steps, cellHeight = Math.max(9, Math.min(24, 300 / dimensions));
  const height = top + dimensions * cellHeight + bottom, scale = logScale(cells.map((cell) => cell.rmse));
  const chart = svg("svg", { width, height, role: "img", tabindex: 0, "aria-label": `Action RMSE of ${setting} by dimension and step of the chunk. Arrow keys go from cell to cell.` });
  for (const cell of cells) {
    const known = isNumber(cell.rmse) && cell.rmse > 0;
    chart.append(svg("rect", { x: left + cell.step * cellWidth, y: top + cell.dimension * cellHeight, width: Math.max(1, cellWidth - 1), height: cellHeight - 1,
      fill: known ? css(colourAt(sequential, scale.share(cell.rmse))) : "none", stroke: known ? "none" : "var(--hatch)" }));
  }
  const every = Math.max(1, Math.ceil(26 / cellWidth)), everyRow = Math.max(1, Math.ceil(13 / cellHeight));
  for (let step = 0; step < steps; step += every) chart.append(svg("text", { x: left + (step + 0.5) * cellWidth, y: height - bottom + 16, "text-anchor": "middle" }, step));
  for (let i = 0; i < dimensions; i += everyRow) chart.append(svg("text", { x: left - 8, y: top + (i + 0.5) * cellHeight + 4, "text-anchor": "end" }, names[i].slice(0, 18)));
  chart.append(svg("text", { x: (left + width) / 2, y: height - 4, "text-anchor": "middle" }, "step of the chunk"));
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
    showTip(`${names[dimension]}, step ${step}\nRMSE ${cell.rmse ?? "not finite"}`, box.left + left + step * cellWidth, box.top + top + (dimension + 1) * cellHeight);
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
