// Third of three scripts: the sections, each from a table of the data, which stands behind it unrounded.

// ---- sections

const runsWith = (table, test = () => true) => distinct((tables[table] ?? []).filter(test), "run");
const kindName = { linear: "Linears", attention: "Attention", kv_cache: "KV cache", vector: "Vectors" };

// ---- what it comes to

const runsOfKind = (kind) => data.runs.filter((run) => run.kind === kind).map((run) => run.name);
const percent = (share) => `${short(share * 100)} %`;
const plainLayer = (layer) => layer.replace(/^paligemma_with_expert\.(paligemma\.model\.)?/, "");

// Whether two action errors differ by more than two standard errors; one observation has none.
const isApart = (one, other) => Math.abs(one.action_rmse - other.action_rmse) > 2 * Math.hypot(one.action_rmse_se ?? 0, other.action_rmse_se ?? 0);

function sweepSentence(run) {
  const all = rowsOf("settings", { run }), rows = all.filter((row) => isNumber(row.action_rel_rmse));
  const lost = all.filter((row) => row.nonfinite_observations > 0).map((row) => row.setting);
  const notFinite = lost.length > 0 ? ` Actions that are not finite: ${lost.join("; ")}.` : "";
  if (rows.length === 0) return notFinite === "" ? null : `${run}:${notFinite}`;
  const byError = [...rows].sort((a, b) => a.action_rel_rmse - b.action_rel_rmse), least = byError[0], worst = byError.at(-1);
  const fewest = Math.min(...rows.map((row) => row.weight_bits ?? Infinity));
  const smallest = byError.filter((row) => row.weight_bits === fewest), small = smallest[0];
  const below = rows.filter((row) => row.below_floor).length;
  const floor = isNumber(least.action_rel_rmse_floor)
    ? ` Rounding alone causes ${percent(least.action_rel_rmse_floor)}; ${below === 0 ? "all settings are" : `${below} of ${rows.length} settings ${below === 1 ? "is" : "are"} not`} above this floor.`
    : " The floor, what rounding alone causes, was not measured.";
  const alike = smallest.filter((row) => row !== small && !isApart(row, small)).map((row) => row.setting);
  const best = small && smallest.length < rows.length
    ? ` With weights of ${short(fewest)} bits, ${small.setting} has the least error, ${percent(small.action_rel_rmse)}${alike.length > 0 ? `, not more than two standard errors below ${alike.slice(0, 3).join("; ")}` : ""}.` : "";
  const range = rows.length === 1 ? `${percent(least.action_rel_rmse)} of their size (${least.setting})`
    : `${percent(least.action_rel_rmse)} (${least.setting}) to ${percent(worst.action_rel_rmse)} (${worst.setting}) of their size`;
  const n = least.n_observations, spread = n === 1 ? " One observation only, so nothing is known of the spread." : isNumber(n) ? ` ${n} observations.` : "";
  return `${run}: quantized actions differ from the unquantized ones by ${range}.${best}${floor}${spread}${notFinite}`;
}

function sensitivitySentence(run) {
  const rows = rowsOf("sensitivity", { run });
  if (rows.length === 0) return null;
  const below = rows.filter((row) => row.below_floor).length, kept = rows.filter((row) => row.is_left_out === false).length;
  const budget = rows.some((row) => row.is_left_out !== null) ? ` Within the budget, ${kept} of ${rows.length} are quantized together.` : "";
  const floor = rows.some((row) => row.below_floor !== null) ? `; ${below} of ${rows.length} do no more than rounding alone` : "";
  return `${run}: quantized alone (${rows[0].setting}), ${plainLayer(rows[0].name)} disturbs the actions most, by an RMSE of ${short(rows[0].action_rmse)}${floor}.${budget}`;
}

function loopSentence(run) {
  const rows = rowsOf("settings", { run }).filter((row) => isNumber(row.success_rate));
  if (rows.length === 0) return null;
  const said = rows.map((row) => `${row.setting} ${percent(row.success_rate)}${interval(row.success_low, row.success_high, percent)}`);
  return `${run}: success in simulation, with 95 % intervals: ${said.slice(0, 4).join("; ")}${said.length > 4 ? `; and ${said.length - 4} more` : ""}.`;
}

function drawStory() {
  const kinds = [runsOfKind("closed-loop").map(loopSentence), runsOfKind("sweep").map(sweepSentence), runsWith("sensitivity").map(sensitivitySentence)]
    .map((sentences) => sentences.filter((sentence) => sentence !== null));
  // One of each kind first: what a robot does, what actions do, which layers do it.
  const first = kinds.flatMap((sentences) => sentences.slice(0, 1)), others = kinds.flatMap((sentences) => sentences.slice(1));
  if (first.length === 0) return;
  const paragraphs = (sentences) => sentences.map((sentence) => html("p", {}, sentence));
  section("What it comes to", "", html("div", { class: "story" }, ...paragraphs([...first, ...others].slice(0, 3))),
    others.length + first.length <= 3 ? "" : html("details", { class: "words" }, html("summary", {}, `${others.length + first.length - 3} more`), ...paragraphs([...first, ...others].slice(3))));
}

// Settings of all runs in one row of names; only those that differ stand with each run.
function drawRuns() {
  const ofSettings = new Set(["input_fmt", "output_fmt", "rules", "requests", "measured", "start", "end"]);
  const facts = data.runs.map((run) => Object.fromEntries(Object.entries(run.meta).filter(([key]) => run.kind === "bench" || !ofSettings.has(key))));
  const text = (value) => (value === null || value === undefined ? "none" : [].concat(value).join(", ") || "none");
  const keys = [...new Set(facts.flatMap((fact) => Object.keys(fact)))];
  const isShared = (key) => facts.length > 1 && facts.every((fact) => text(fact[key]) === text(facts[0][key]));
  const list = (entries) => html("dl", {}, ...entries.flatMap(([key, value]) => [html("dt", {}, key.replaceAll("_", " ")), html("dd", {}, text(value))]));
  const cards = data.runs.map((run, i) => html("div", {}, html("h3", {}, run.name),
    list([["source", run.source], ["kind", run.kind], ...keys.filter((key) => !isShared(key) && key in facts[i]).map((key) => [key, facts[i][key]])])));
  const shared = keys.filter(isShared);
  section(wordsTitle, `Made ${data.made} with pi0 ${data.version.replace(/^pi0 /, "")}.`,
    html("div", { class: "panels" }, ...cards),
    shared.length === 0 ? "" : html("details", { class: "words" }, html("summary", {}, `${shared.length} settings that all share`), list(shared.map((key) => [key, facts[0][key]]))),
    html("details", { class: "words", id: "words" }, html("summary", {}, "What the words mean"), list([
      ["action RMSE", "of a quantized model's actions against the unquantized model's, on the same observations and noise"],
      ["relative action error", "RMSE of the actions over the RMS of the unquantized model's, both over the dimensions that the robot gets"],
      ["floor", "what rounding alone causes: the largest action RMSE when only last bits of the noise differ. What is not above it says nothing about a format, and what is just above it little"],
      ["standard error", "of an action RMSE over the observations: two settings that differ by less than two of them may be alike"],
      ["cosine", "between the quantized and the unquantized model's actions, 1 if they point the same way"],
      ["frontier", "settings that no other beats in both bits and error"],
      ["95 % interval", "of a rate of success: Wilson's; of a score: Student's"],
      ["p", "McNemar's exact test: how probable so uneven a result is by chance, over the episodes that both settings played"],
      ["left out", "of a budget: quantized with the others, the layer would take the action RMSE above it"],
      ["velocity", "what the model gives in each denoise step; the action chunk is their sum"],
      ["RMSE of a layer", "of its outputs against its own exact outputs for the same inputs: errors of earlier layers do not count again"],
      ["relative RMSE", "RMSE over the RMS of the exact outputs"],
      ["component", "vision, language, action expert, action head: means over their layers"],
      ["input / output", "format of a product's inputs and weights / of its outputs"]])));
}

const hollowNote = "Hollow: not above the floor.";

// Whether results are of one model: what both say of it is the same.
const modelFacts = ["config", "precision", "checkpoint"];
function isSameModel(one, other) {
  const meta = (name) => data.runs.find((run) => run.name === name).meta;
  const known = modelFacts.filter((key) => (meta(one)[key] ?? null) !== null && (meta(other)[key] ?? null) !== null);
  return one === other || (known.length > 0 && known.every((key) => meta(one)[key] === meta(other)[key]));
}

// Of a closed loop with the run's model.
const successOf = (run, setting) => rowsOf("settings", { setting }).find((row) => isNumber(row.success_rate) && isSameModel(run, row.run));

function drawBits() {
  const hasBoth = (row) => isNumber(row.action_rel_rmse) && isNumber(row.weight_bits);
  const runs = runsWith("settings", hasBoth);
  if (runs.length === 0) return;
  section("Error against bits", `Relative error of the actions by the bits of a weight (and input). The dashed line joins the settings that no other beats in both. ${hollowNote}`,
    interactive([["run", "Run", () => runs]], ({ run }) => {
      const rows = rowsOf("settings", { run }).filter(hasBoth), outputs = distinct(rows, "output_fmt");
      const points = rows.filter((row) => row.action_rel_rmse > 0).map((row) => {
        const success = successOf(run, row.setting), rate = success ? percent(success.success_rate) : null;
        return {
          x: row.weight_bits, y: row.action_rel_rmse, look: outputs.indexOf(row.output_fmt), isHollow: row.below_floor === true, isOnLine: row.on_frontier,
          name: [rows.length <= 8 ? row.setting : null, rate].filter((part) => part !== null).join(", "),
          label: `${row.setting}\nweights ${row.weight_bits} bits, inputs ${row.input_bits}, outputs ${row.output_bits}\nrelative error ${row.action_rel_rmse}\ncosine ${row.action_cosine}${success ? `\nsuccess ${rate}${interval(success.success_low, success.success_high, percent)} in ${success.run}` : ""}`,
        };
      });
      const line = points.filter((point) => point.isOnLine).sort((a, b) => a.x - b.x);
      const ticks = distinct(rows, "weight_bits").sort((a, b) => a - b);
      return [html("p", {}, `Colour and shape: the format of outputs.${rows.some((row) => successOf(run, row.setting)) ? " %: success in simulation." : ""}`), legend(outputs),
        fitted("", (width) => scatterChart(points, { title: "Relative action error against bits", xLabel: "bits of a weight", yLabel: "relative action error", width, floor: rows[0].action_rel_rmse_floor, xTicks: ticks, line })),
        tableBehind("settings", rows)];
    }));
}

const componentMeasures = {
  mean_rel_rmse: "relative RMSE", mean_rmse: "RMSE", mean_operands_rel_rmse: "relative RMSE of rounded operands alone",
  mean_accumulation_rel_rmse: "relative RMSE of accumulation alone", mean_output_rel_rmse: "relative RMSE of rounded outputs alone",
};

function heatMap(run, measure) {
  const settings = rowsOf("settings", { run }), cells = rowsOf("components", { run });
  const columns = [];
  for (const kind of Object.keys(kindName)) {
    for (const component of distinct(cells.filter((cell) => cell.kind === kind), "component")) columns.push({ kind, component });
  }
  const scale = logScale(cells.map((cell) => cell[measure]));
  const actionMeasure = measure === "mean_rel_rmse" && settings.some((setting) => isNumber(setting.action_rel_rmse)) ? "action_rel_rmse" : "action_rmse";
  const actions = settings.some((setting) => isNumber(setting[actionMeasure]));
  const actionScale = logScale(settings.map((setting) => setting[actionMeasure]));
  const groups = Object.entries(kindName).map(([kind, name]) => [name, columns.filter((column) => column.kind === kind).length]).filter(([, count]) => count > 0);
  const head = html("thead", {},
    html("tr", {}, html("td", {}), ...(actions ? [html("th", { class: "group", scope: "colgroup" }, "Actions")] : []),
      ...groups.map(([name, count]) => html("th", { class: "group", scope: "colgroup", colspan: count }, name))),
    html("tr", {}, html("th", { scope: "col" }, "input / output format"), ...(actions ? [html("th", { scope: "col" }, actionMeasure === "action_rmse" ? "RMSE" : "relative error")] : []),
      ...columns.map(({ component }) => html("th", { scope: "col" }, component.replaceAll("_", " ")))));
  const body = settings.map(({ setting, [actionMeasure]: action }) =>
    html("tr", {}, html("th", { scope: "row" }, setting), ...(actions ? [heatCell(action, actionScale, `${setting}, actions`)] : []),
      ...columns.map(({ kind, component }) => {
        const cell = cells.find((row) => row.setting === setting && row.kind === kind && row.component === component);
        return heatCell(cell?.[measure] ?? null, scale, `${setting}, ${component}, ${kind}`);
      })));
  return [scaleBar(scale, `Mean ${componentMeasures[measure]}`), actions ? scaleBar(actionScale, actionMeasure === "action_rmse" ? "Action RMSE" : "Relative action error") : null, html("div", { class: "scroll", tabindex: 0 }, html("table", { class: "heat" }, head, html("tbody", {}, ...body))),
    tableBehind("components", cells)];
}

function drawHeatMaps() {
  const runs = runsWith("components");
  if (runs.length === 0) return;
  section("Formats and components", "Mean error of each component's layers under each pair of formats, and the error of the actions.",
    interactive([["run", "Run", () => runs], ["measure", "Measure", ({ run }) => Object.keys(componentMeasures).filter((key) => rowsOf("components", { run }).some((row) => row[key] !== null))]],
      ({ run, measure }) => heatMap(run, measure)));
}

// "bfloat16, weights int4:group128" of "bfloat16 / float16, weights int4:group128".
const withoutOutput = (row) => row.setting.replace(` / ${row.output_fmt}`, "");

function drawActionMap() {
  const runs = runsWith("settings", (row) => isNumber(row.action_rmse) && row.input_fmt !== null);
  if (runs.length === 0) return;
  section("Action error by format", "Error of the model's actions against its own without quantization. Rows: format of inputs and weights, and what else differs; columns: of outputs. *: not above the floor, so rounding alone causes as much.",
    interactive([["run", "Run", () => runs]], ({ run }) => {
      const rows = rowsOf("settings", { run }), inputs = [...new Set(rows.filter((row) => row.input_fmt !== null).map(withoutOutput))], outputs = distinct(rows, "output_fmt").filter((name) => name !== null);
      const measure = rows.some((row) => isNumber(row.action_rel_rmse)) ? "action_rel_rmse" : "action_rmse";
      const scale = logScale(rows.map((row) => row[measure]));
      const body = inputs.map((input) => html("tr", {}, html("th", { scope: "row" }, input), ...outputs.map((output) => {
        const row = rows.find((candidate) => candidate.input_fmt !== null && withoutOutput(candidate) === input && candidate.output_fmt === output);
        const cell = heatCell(row?.[measure] ?? null, scale, `${input} / ${output}`);
        if (row?.below_floor) cell.append("*");
        return cell;
      })));
      return [scaleBar(scale, measure === "action_rmse" ? "Action RMSE" : "Relative action error"), html("div", { class: "scroll", tabindex: 0 }, html("table", { class: "heat" },
        html("thead", {}, html("tr", {}, html("th", {}, "input \\ output"), ...outputs.map((output) => html("th", { scope: "col" }, output)))),
        html("tbody", {}, ...body))), tableBehind("settings", rows)];
    }));
}

const order = data.looks.matrices;
const byOrder = (x, y) => (order.indexOf(x) + 1 || 99) - (order.indexOf(y) + 1 || 99);  // others come last

const settingsOf = (run, table) => {
  return distinct(rowsOf(table, { run }), "setting").reverse();  // the coarsest come last
};
const measuresOf = (run) => ["rel_rmse", "rmse"].filter((key) => rowsOf("layers", { run }).some((row) => row[key] !== null));

function drawBlocks() {
  const runs = runsWith("layers", (row) => row.block !== null);
  if (runs.length === 0) return;
  section("Blocks and matrices", "Error of each layer's outputs against its own exact outputs, by block of the transformer and matrix.",
    interactive([["run", "Run", () => runs], ["setting", "Formats", ({ run }) => settingsOf(run, "layers")], ["measure", "Measure", ({ run }) => measuresOf(run)]],
      ({ run, setting, measure }) => {
        const rows = rowsOf("layers", { run, setting }).filter((row) => row.n_calls !== 0), inBlocks = rows.filter((row) => row.block !== null);
        const scale = logScale(inBlocks.map((row) => row[measure]));
        const worst = rows.filter((row) => isNumber(row[measure])).sort((x, y) => y[measure] - x[measure]).slice(0, 5);
        const maps = distinct(inBlocks, "component").map((component) => {
          const own = inBlocks.filter((row) => row.component === component);
          const matrices = distinct(own, "matrix").sort(byOrder);
          const body = distinct(own, "block").sort((x, y) => x - y).map((block) => html("tr", {}, html("th", { scope: "row" }, `block ${block}`), ...matrices.map((matrix) => {
            const cell = own.find((row) => row.block === block && row.matrix === matrix);
            return heatCell(cell?.[measure] ?? null, scale, `${component}, block ${block}, ${matrix}`);
          })));
          return html("div", {}, html("h3", {}, component.replaceAll("_", " ")), html("div", { class: "scroll", tabindex: 0 }, html("table", { class: "heat" },
            html("thead", {}, html("tr", {}, html("td", {}), ...matrices.map((matrix) => html("th", { scope: "col" }, matrix)))), html("tbody", {}, ...body))));
        });
        return [worst.length === 0 ? null : html("p", {}, `Largest: ${worst.map((row) => `${plainLayer(row.layer)} (${short(row[measure])})`).join(", ")}.`),
          scaleBar(scale, measure === "rmse" ? "RMSE" : "Relative RMSE"), ...maps, tableBehind("layers", rows)];
      }));
}

function drawProfile() {
  const runs = runsWith("layers");
  if (runs.length === 0) return;
  const measures = { rmse: "RMSE", rel_rmse: "RMSE relative to the output" };
  section("Layers by depth", "One line per matrix of a layer, over the layers of each stack. Point at a line, or use the arrow keys in a picture, to read a layer.",
    interactive([
      ["run", "Run", () => runs],
      ["setting", "Formats", ({ run }) => settingsOf(run, "layers")],
      ["measure", "Measure", ({ run }) => measuresOf(run)],
    ], ({ run, setting, measure }) => {
      const rows = rowsOf("layers", { run, setting });
      const called = rows.filter((row) => row.n_calls !== 0);
      const stacked = called.filter((row) => row.block !== null);
      const parts = distinct(stacked, "matrix").sort(byOrder);
      const label = (row) => `${row.layer}\nRMSE ${row.rmse ?? "not finite"}${row.rel_rmse === null ? "" : `\nrelative ${row.rel_rmse}`}\n${row.n_calls} calls`;
      const panels = distinct(stacked, "component").map((component) => {
        const series = parts.map((part) => ({
          points: stacked.filter((row) => row.component === component && row.matrix === part).map((row) => ({ x: row.block, y: row[measure], label: label(row) })),
        }));
        return fitted(component.replaceAll("_", " "), (width) =>
          lineChart(series, { title: `${measures[measure]} by depth, ${component}`, xLabel: "layer", yLabel: measures[measure], width }));
      });
      const others = called.filter((row) => row.block === null).map((row) =>
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
  section("Sensitivity", "RMSE of the actions when only this layer, or component, is quantized; the most sensitive first. Dashed line: the floor; what does not reach beyond it cannot be told from rounding alone.",
    interactive([["run", "Run", () => runs], ["shown", "Show", ({ run }) => (rowsOf("sensitivity", { run }).length > first ? [`the first ${first}`, "all"] : ["all"])]],
      ({ run, shown }) => {
        const rows = rowsOf("sensitivity", { run }), isLayers = rows[0].of === "layer";
        const bars = rows.slice(0, shown === "all" ? rows.length : first).map((row) => ({
          name: plainLayer(row.name), value: row.action_rmse, note: "action RMSE", look: components.indexOf(row.component),
          tag: row.is_left_out ? "left out" : row.below_floor ? "below floor" : "",
        }));
        const kept = rows.filter((row) => row.is_left_out === false).length;
        return [isLayers ? legend(components.map((name) => name.replaceAll("_", " ")), "square") : null,
          rows.some((row) => row.is_left_out !== null) ? html("p", {}, `The budget's choice: ${kept} of ${rows.length} layers together; the others are left out.`) : null,
          fitted(`${rows[0].setting}, one ${rows[0].of} at a time`, (width) => barChart(bars, { title: "Action RMSE by what is quantized alone", width, floor: rows[0].action_rmse_floor })),
          tableBehind("sensitivity", rows)];
      }));
}

// A layer's own error beside what it does to the actions, where a run has statistics of the same formats.
function drawEffect() {
  const statisticsOf = (ranking, setting) => data.runs.map((run) => run.name).find((run) => rowsOf("layers", { run, setting }).length > 0 && isSameModel(run, ranking));
  const runs = runsWith("sensitivity", (row) => row.of === "layer" && statisticsOf(row.run, row.setting) !== undefined);
  if (runs.length === 0) return;
  const components = distinct(tables.sensitivity, "component");
  section("Own error and effect", `Layer by layer: the relative RMSE of its outputs, and the RMSE of the actions when it alone is quantized. Far up and left: small errors that matter. ${hollowNote}`,
    interactive([["run", "Run", () => runs]], ({ run }) => {
      const ranking = rowsOf("sensitivity", { run }), from = statisticsOf(run, ranking[0].setting);
      const errors = new Map(rowsOf("layers", { run: from, setting: ranking[0].setting }).map((row) => [row.layer, row.rel_rmse]));
      const points = ranking.filter((row) => isNumber(errors.get(row.name))).map((row, i) => ({
        x: errors.get(row.name), y: row.action_rmse, look: components.indexOf(row.component), isHollow: row.below_floor === true, name: i < 8 ? plainLayer(row.name) : null,
        label: `${row.name}\nrelative RMSE ${errors.get(row.name)}\naction RMSE ${row.action_rmse}`,
      }));
      return [html("p", {}, `Statistics: ${from}, ${ranking[0].setting}.`), legend(components.map((name) => name.replaceAll("_", " "))),
        fitted("", (width) => scatterChart(points, { title: "Action RMSE against a layer's own error", xLabel: "relative RMSE of the layer", yLabel: "action RMSE", width, floor: ranking[0].action_rmse_floor })),
        tableBehind("sensitivity", ranking)];
    }));
}

const mostLines = looks.length;

function drawActions() {
  const runs = runsWith("actions", (row) => isNumber(row.rmse) && row.rmse > 0);
  if (runs.length === 0) return;
  const units = (run) => (rowsOf("settings", { run }).some((row) => isNumber(row.action_rmse_robot)) ? "in the robot's units" : "as the model gives them");
  const same = "same output format", everyone = "all";
  section("Action error over the chunk", "RMSE of the actions by joint and by step of the action chunk, and of the velocity by denoise step, against those without quantization.",
    interactive([["run", "Run", () => runs], ["setting", "Formats", ({ run }) => distinct(rowsOf("actions", { run }).filter((row) => row.rmse > 0), "setting").reverse()],
      ["others", "Lines", ({ run }) => (distinct(rowsOf("actions", { run }), "setting").length > mostLines ? [same] : [everyone, same])]],
      ({ run, setting, others }) => {
        const rows = rowsOf("actions", { run }), settings = rowsOf("settings", { run });
        const output = settings.find((row) => row.setting === setting)?.output_fmt;
        const shown = distinct(rows.filter((row) => row.rmse > 0), "setting").filter((name) => others === everyone || settings.find((row) => row.setting === name)?.output_fmt === output).slice(0, mostLines);
        const cells = rows.filter((row) => row.setting === setting && row.step !== null && row.dimension !== null);
        const lines = (own, key, nameOf) => shown.map((name) => ({ points: own.filter((row) => row.setting === name).map((row) => ({ x: row[key], y: row.rmse, label: `${name}\n${nameOf(row)}\nRMSE ${row.rmse ?? "not finite"}` })) }));
        const byJoint = rows.filter((row) => row.step === null), byStep = rows.filter((row) => row.dimension === null), velocity = rowsOf("velocity", { run });
        const hasNames = byJoint.some((row) => row.joint !== null), jointOf = (row) => row.joint ?? `dimension ${row.dimension}`;
        const names = distinct(byJoint, "joint").filter((name) => name !== null);
        return [cells.length === 0 ? null : fitted(`${setting}, actions ${units(run)}`, (width) => chunkMap(cells, setting, width)),
          legend(shown),
          html("div", { class: "panels" },
            fitted(hasNames ? `by joint, over all steps: ${names.map((name, i) => `${i} ${name}`).join(", ")}` : "by dimension, over all steps", (width) => lineChart(lines(byJoint, "dimension", jointOf), { title: "Action RMSE by joint", xLabel: hasNames ? "joint" : "dimension", yLabel: "RMSE", width })),
            fitted("by step, over all joints", (width) => lineChart(lines(byStep, "step", (row) => `step ${row.step}`), { title: "Action RMSE by step", xLabel: "step of the chunk", yLabel: "RMSE", width })),
            velocity.length === 0 ? "" : fitted("velocity, by denoise step", (width) => lineChart(lines(velocity, "denoise_step", (row) => `denoise step ${row.denoise_step}`), { title: "Velocity RMSE by denoise step", xLabel: "denoise step", yLabel: "RMSE", width }))),
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
  section("Stages of a request", "Milliseconds of the run in the middle, by stage, as pi0 bench measured them.",
    interactive([["run", "Run", () => benches]], ({ run }) => {
      const rows = rowsOf("stages", { run });
      const counts = Object.entries(data.runs.find((one) => one.name === run).meta).filter(([key]) => /^(counted|warning), /.test(key));
      const bars = distinct(rows, "setting").map((mode) => ({
        name: (mode ?? "").replaceAll("_", " "), parts: rows.filter((row) => row.setting === mode).map((row) => ({ name: row.stage, value: isNumber(row.seconds) ? row.seconds * 1000 : null })),
      }));
      return [...counts.map(([key, text]) => html("p", {}, `${key}: ${text}`)), fitted("", (width) => stackedBars(bars, { title: "Milliseconds by stage", unit: "ms", width })), tableBehind("stages", rows)];
    }));
}

// " (0.533 to 0.891)", or nothing.
function interval(low, high, text = short) {
  return isNumber(low) && isNumber(high) ? ` (${text(low)} to ${text(high)})` : "";
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
        return html("td", { style: `background: ${css(colour)}; color: ${inkOn(colour)}`, title: `${setting}, scene ${scene}: ${percent(cell.success_rate)}${interval(cell.success_low, cell.success_high, percent)}` },
          `${cell.n_success} of ${cell.n_episodes}`, html("br", {}), html("small", {}, interval(cell.success_low, cell.success_high, percent)),
          ...(isNumber(cell.score_mean) ? [html("br", {}), html("small", { title: `mean score${interval(cell.score_mean_low, cell.score_mean_high)}` }, `score ${short(cell.score_mean)}`)] : []));
      }), html("td", { class: "text" }, error ?? (isNumber(mcnemar_p) ? `p = ${short(mcnemar_p)}` : ""))));
      return [html("div", { class: "scroll", tabindex: 0 }, html("table", { class: "heat" },
        html("thead", {}, html("tr", {}, html("td", {}), ...scenes.map((scene) => html("th", { scope: "col" }, `scene ${scene}`)), html("td", {}))), html("tbody", {}, ...body))),
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
  const all = (tables.components ?? []).map(({ run, setting }) => `${run}: ${setting}`);
  const names = [...new Set(all)].reverse();  // the coarsest come last
  if (names.length < 2) return;
  const split = new Map(tables.components.map(({ run, setting }) => [`${run}: ${setting}`, { run, setting }]));
  section("Two settings side by side", "How many times larger the second's error is: orange where it is larger, blue where it is smaller, full colour from four times on. Point at a cell for both numbers.",
    interactive([["first", "First", () => names], ["second", "Second", ({ first }) => names.filter((name) => name !== first)]], ({ first, second }) => {
      const one = split.get(first), other = split.get(second);
      const action = ({ run, setting }, key) => rowsOf("settings", { run, setting })[0]?.[key === "mean_rmse" ? "action_rmse" : "action_rel_rmse"] ?? null;
      const cells = rowsOf("components", one), columns = cells.map(({ kind, component }) => ({ kind, component }));
      const value = (place, { kind, component }, key) => rowsOf("components", { ...place, kind, component })[0]?.[key] ?? null;
      const line = (title, key) => html("tr", {}, html("th", { scope: "row" }, title), ratioCell(action(one, key), action(other, key), "actions"),
        ...columns.map((column) => ratioCell(value(one, column, key), value(other, column, key), `${column.component}, ${column.kind}`)));
      const theirs = new Map(rowsOf("layers", other).map((row) => [row.layer, row]));
      const ratios = rowsOf("layers", one).map((row) => ({ layer: row.layer, ratio: (theirs.get(row.layer)?.rmse ?? NaN) / row.rmse })).filter(({ ratio }) => Number.isFinite(ratio) && ratio > 0).sort((x, y) => y.ratio - x.ratio);
      const named = (list) => list.map(({ layer, ratio }) => `${plainLayer(layer)} ×${short(ratio)}`).join(", ");
      return [html("div", { class: "scroll", tabindex: 0 }, html("table", { class: "heat" },
        html("thead", {}, html("tr", {}, html("td", {}), html("th", { scope: "col" }, "actions"), ...columns.map(({ kind, component }) => html("th", { scope: "col" }, `${component.replaceAll("_", " ")}${kind === "linear" ? "" : ` (${kindName[kind]})`}`)))),
        html("tbody", {}, line("RMSE", "mean_rmse"), line("relative RMSE", "mean_rel_rmse")))),
      ratios.length === 0 ? null : html("p", {}, `Layers whose errors grow most: ${named(ratios.slice(0, 3))}; shrink most: ${named(ratios.slice(-3).reverse())}.`),
      tableBehind("components", [...cells, ...rowsOf("components", other)])];
    }));
}

// ---- light and dark

const prefersDark = matchMedia("(prefers-color-scheme: dark)");
const setTheme = (theme) => (document.documentElement.dataset.theme = theme);
setTheme(prefersDark.matches ? "dark" : "light");
prefersDark.addEventListener("change", () => setTheme(prefersDark.matches ? "dark" : "light"));
document.getElementById("theme").addEventListener("click", () => setTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark"));
addEventListener("scroll", hideTip, { passive: true });

drawStory();
drawActionMap();
drawBits();
drawSuccess();
drawHeatMaps();
drawBlocks();
drawProfile();
drawSensitivity();
drawEffect();
drawActions();
drawComparison();
drawLatency();
drawRuns();
document.documentElement.dataset.ready = "yes";
