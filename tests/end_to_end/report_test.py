"""pi0 report: every number of its page and CSV files is one of the results', and page and figures stand alone."""

import csv
import json
import pathlib
import re
import shutil
import subprocess
import tempfile
import unittest
import xml.etree.ElementTree as ElementTree

from support import GOLDENS, PATIENCE_S, POLICIES, PROGRAMS, TemporaryFolderTest, installed, run, small_disk

NAME = "pi05_droid_jointpos_polaris"
MODEL = ["--config", NAME, "--checkpoint-dir", POLICIES / NAME, "--num-steps", 1, "--skip-masked"]
ORIGINALS = POLICIES / NAME / "stats_float8_e4m3__float16.json"

# What a browser is asked once the page has drawn itself: whether a pointer and a key show a value, and what is
# wider than the window.
PROBE = """<script>
{
  const chart = document.querySelector("svg[tabindex]"), box = chart.getBoundingClientRect();
  const tip = document.getElementById("tip");
  chart.dispatchEvent(new PointerEvent("pointermove", {clientX: box.left + 100, clientY: box.top + 80}));
  const pointed = tip.textContent;
  chart.focus();
  chart.dispatchEvent(new KeyboardEvent("keydown", {key: "ArrowRight"}));
  const seen = {pointed, keyed: tip.textContent, sections: [...document.querySelectorAll("h2")].map((h) => h.textContent)};
  document.querySelectorAll("details").forEach((details) => { details.open = true; });
  const look = () => {
    seen.rows = [...document.querySelectorAll("details:not(.words)")].map((details) => details.querySelectorAll("tbody tr").length);
    if (!seen.rows.every((count) => count > 0)) return setTimeout(look, 50);
    seen.wide = [...document.querySelectorAll("body *")].filter((element) =>
      !element.closest(".scroll") && element.getBoundingClientRect().right > innerWidth + 1).map((element) => element.outerHTML);
    seen.width = [document.documentElement.scrollWidth, innerWidth];
    document.documentElement.dataset.seen = JSON.stringify(seen);
  };
  look();
}
</script>"""

# Of figures: texts that are cut off or lie on another one.
CROWDED = """<script>
{
  const crowded = [], share = (a, b, low, high) => Math.min(a[high], b[high]) - Math.max(a[low], b[low]);
  for (const figure of document.querySelectorAll("svg")) {
    const edge = figure.getBoundingClientRect(), texts = [...figure.querySelectorAll("text")].map((text) => [text.textContent, text.getBoundingClientRect()]);
    texts.forEach(([text, box], i) => {
      if (box.left < edge.left || box.right > edge.right || box.top < edge.top || box.bottom > edge.bottom + 1) crowded.push([text, "cut"]);
      for (const [other, theirs] of texts.slice(i + 1)) {
        if (share(box, theirs, "left", "right") > 1 && share(box, theirs, "top", "bottom") > 4) crowded.push([text, other]);
      }
    });
  }
  document.documentElement.dataset.crowded = JSON.stringify(crowded);
}
</script>"""


class ReportTest(TemporaryFolderTest):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.sweeps = pathlib.Path(folder.name)

    def setUp(self):
        super().setUp()
        self.page = self.folder / "report.html"

    def report(self, *results):
        return run("pi0", "report", *results, "--output", self.page)

    def figures(self, *results):
        """The names and roots of the figures of --svg."""
        folder = self.folder / "new" / "figures"
        done = run("pi0", "report", *results, "--svg", folder)
        self.assertEqual(done.returncode, 0, done.stderr)
        files = sorted(folder.iterdir())
        self.assertIn(f"{len(files)} SVG file", done.stderr)
        for file in files:
            self.assertRegex(file.name, r"^[A-Za-z0-9_-][A-Za-z0-9._-]*\.svg$")
            self.assertNotRegex(file.read_text(), r"var\(|<script|<style|href|class=\"[^\"]*\"[^>]*style=")
        return {file.stem: ElementTree.parse(file).getroot() for file in files}

    def data(self):
        text = re.search(r'<script type="application/json" id="data">(.*?)</script>', self.page.read_text(), re.DOTALL)
        content = json.loads(text.group(1))
        return content, {
            name: [
                {key: table["words"][key][value] if key in table["words"] and value is not None else value
                 for key, value in zip(table["columns"], row, strict=True)}
                for row in table["rows"]
            ]
            for name, table in content["tables"].items()
        }

    def csv_rows(self, table):
        with (self.folder / f"report.{table}.csv").open() as file:
            return list(csv.DictReader(file))

    def sweep(self, name, *arguments):
        """A copy of a sweep that runs once."""
        made = self.sweeps / "_".join(arguments).replace(",", "_")
        if not made.exists():
            done = run("pi0", "sweep", *MODEL, "--output", made, "--synthetic", 1, *arguments)
            self.assertEqual(done.returncode, 0, done.stderr)
        return shutil.copytree(made, self.folder / name)

    def settings(self, name):
        return self.sweep(name, "--input-fmts", "float8_e4m3,float32", "--output-fmts", "float16")

    def ranking(self):
        return self.sweep("ranking", "--input-fmts", "float8_e5m2", "--output-fmts", "float16", "--sensitivity", "components")

    def closed_loop(self):
        """A folder as pi0-quant leaves it, with one pair whose server did not start."""
        folder = self.folder / "2026-01-02_03-04-05"
        statistics = json.loads(ORIGINALS.read_text())
        statistics["meta"] = {"config": NAME}  # that of a sweep with the same model
        rmse = {row["component"]: row["mean_rmse"] for row in statistics["components"]}
        pair = folder / "float8_e4m3__float16"
        pair.mkdir(parents=True)
        (pair / "stats.json").write_text(json.dumps(statistics))
        scenes = {"1": {"n_success": 2, "n_episodes": 3, "success_rate": 2 / 3}}
        entries = [
            {"combo": "float8_e4m3__float16", "input_fmt": "float8_e4m3", "output_fmt": "float16",
             "success_rate": 2 / 3, "by_scene": scenes, "component_rmse": rmse, "video_files": []},
            {"combo": "bfloat16__float16", "input_fmt": "bfloat16", "output_fmt": "float16", "error": "server_start_timeout"},
        ]  # fmt: skip
        (folder / "summary.json").write_text(json.dumps(entries))
        return folder

    def test_every_number_is_one_of_the_sweeps(self):
        sweep, ranking = self.settings("sweep"), self.ranking()
        done = self.report(sweep, ranking)
        self.assertEqual(done.returncode, 0, done.stderr)
        content, tables = self.data()
        self.assertEqual([run["name"] for run in content["runs"]], ["sweep", "ranking"])
        self.assertEqual(content["runs"][0]["meta"]["config"], NAME)
        summary = json.loads((sweep / "summary.json").read_text())
        for entry, row in zip(summary, tables["settings"], strict=True):
            self.assertEqual(row["setting"], f"{entry['input_fmt']} / {entry['output_fmt']}")
            for key in ("action_rmse", "action_rmse_floor", "below_floor", "action_rel_rmse", "action_rmse_se", "action_cosine",
                        "worst_observation", "action_rmse_robot", "n_observations", "inference_time_s"):  # fmt: skip
                self.assertEqual(row[key], entry[key])
            errors = [cell for cell in tables["actions"] if cell["setting"] == row["setting"]]
            self.assertEqual([e["rmse"] for e in errors if e["step"] is None], entry["action_rmse_by_dimension"])
            self.assertEqual([e["rmse"] for e in errors if e["dimension"] is None], entry["action_rmse_by_step"])
            self.assertEqual({e["joint"]: e["rmse"] for e in errors if e["step"] is None}, entry["action_rmse_by_joint"])
            velocity = [cell["rmse"] for cell in tables["velocity"] if cell["setting"] == row["setting"]]
            self.assertEqual(velocity, entry["velocity_rmse_by_denoise_step"])
            both = [e["rmse"] for e in errors if e["step"] is not None and e["dimension"] is not None]
            self.assertEqual(both, sum(entry["action_rmse_by_step_and_dimension"], []))
            statistics = json.loads((sweep / f"{entry['input_fmt']}__{entry['output_fmt']}" / "stats.json").read_text())
            layers = [layer for layer in tables["layers"] if layer["setting"] == row["setting"]]
            for key in ("layer", "component", "kind", "block", "matrix", "depth", "n_calls", "rmse", "rel_rmse", "nonfinite"):
                self.assertEqual([layer[key] for layer in layers], [layer[key] for layer in statistics["layers"]])
            means = [(c["kind"], c["component"], c["mean_rmse"]) for c in tables["components"] if c["setting"] == row["setting"]]
            self.assertEqual(
                means,
                [("linear", c["component"], c["mean_rmse"]) for c in statistics["components"]]
                + [("attention", c["component"], c["mean_rmse"]) for c in statistics["components_attention"]],
            )
        entries = json.loads((ranking / "sensitivity.json").read_text())
        self.assertEqual(
            [(row["rank"], row["name"], row["action_rmse"]) for row in tables["sensitivity"]],
            [(rank, entry["component"], entry["action_rmse"]) for rank, entry in enumerate(entries, 1)],
        )
        for name, rows in tables.items():
            written = {None: "", True: "true", False: "false"}
            expected = [{key: written[value] if value is None or isinstance(value, bool) else str(value) for key, value in row.items()} for row in rows]
            found = self.csv_rows(name)
            self.assertEqual(len(found), len(expected))
            for mine, theirs in zip(found, expected, strict=True):
                for key, value in mine.items():
                    self.assertTrue(value == theirs[key] or float(value) == float(theirs[key]), (name, key, value))
        self.assertIn("float8_e4m3 / float16", done.stdout)
        self.assertIn("most sensitive", done.stdout)

    def test_the_originals_results_can_be_read(self):
        done = self.report(ORIGINALS, self.closed_loop())
        self.assertEqual(done.returncode, 0, done.stderr)
        content, tables = self.data()
        statistics = json.loads(ORIGINALS.read_text())
        layers = [row for row in tables["layers"] if row["run"] == ORIGINALS.name]
        self.assertEqual([row["rmse"] for row in layers], [row["rmse"] for row in statistics["layers"]])
        self.assertEqual({row["setting"] for row in layers}, {"float8_e4m3 / float16"})
        self.assertEqual(content["runs"][1]["kind"], "closed-loop")
        self.assertEqual([row["success_rate"] for row in tables["success"]], [2 / 3])
        self.assertEqual(tables["settings"][-1]["error"], "server_start_timeout")
        self.assertIn("0.667", done.stdout)

    def test_what_python_writes_for_numbers_that_are_none_is_null(self):
        statistics = json.loads(ORIGINALS.read_text())
        statistics["layers"][0]["rmse"] = float("nan")
        statistics["layers"][1]["rmse"] = float("inf")
        file = self.folder / "float16__float16.json"
        file.write_text(json.dumps(statistics))
        done = self.report(file)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual([row["rmse"] for row in self.data()[1]["layers"]][:2], [None, None])

    def test_benches_show_their_stages_and_of_all_modes_the_settings_and_a_warning(self):
        bench, single = self.folder / "bench.json", self.folder / "single.json"
        done = run("pi0", "bench", *MODEL, "--repeats", 1, "--warmup", 0, "--all-modes", "--input-fmt", "float8_e4m3",
                   "--output-fmt", "float16", "--json", bench)  # fmt: skip
        self.assertEqual(done.returncode, 0, done.stderr)
        records = json.loads(bench.read_text())
        single.write_text(json.dumps(records["unquantized"]))  # what a bench of one mode writes
        self.assertEqual(self.report(single).returncode, 0)
        found = {row["stage"]: row["seconds"] for row in self.data()[1]["stages"]}
        self.assertEqual(found, records["unquantized"]["stages"])

        records["with_statistics"]["counted"] = 0
        bench.write_text(json.dumps(records))
        done = self.report(bench)
        self.assertEqual(done.returncode, 0, done.stderr)
        meta = self.data()[0]["runs"][0]["meta"]
        formats = "unquantized: -, without_statistics: float8_e4m3, with_statistics: float8_e4m3"
        self.assertEqual(meta["input_fmt"], formats)
        self.assertEqual(meta["cameras"], 2)
        warning = "warning, with_statistics: only 0 of 1 runs count, the machine changed its speed; the figures are of all"
        self.assertIn(warning, done.stdout)
        self.assertEqual(meta["counted, with_statistics"], f"0 of {len(records['with_statistics']['runs'])} runs")
        self.assertTrue(warning.endswith(meta["warning, with_statistics"]))

    def test_tables_and_messages_come_in_order(self):
        command = [PROGRAMS / "pi0", "report", ORIGINALS, "--output", self.page]
        done = subprocess.run([*map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60, check=True)
        self.assertTrue(done.stdout.splitlines()[-1].startswith("report: "), done.stdout[-300:])

    def test_the_page_draws_itself_alone_and_fits(self):
        sweep, other, ranking = self.settings("sweep"), self.settings("other"), self.ranking()
        hostile = json.loads(ORIGINALS.read_text())
        hostile["layers"][0]["layer"] += "</script><b>bold"
        (self.folder / "hostile.json").write_text(json.dumps(hostile))
        done = self.report(sweep, other, ranking, self.closed_loop(), self.folder / "hostile.json")
        self.assertEqual(done.returncode, 0, done.stderr)
        page = self.page.read_text()
        self.assertEqual(set(re.findall(r"https?://[^\s\"']+", page)), {"http://www.w3.org/2000/svg"})
        self.assertNotRegex(page, r"\bsrc=|@import|url\(")

        browser = installed("chromium", "chromium")
        probed = self.folder / "probed.html"
        probed.write_text(page.replace("</body>", PROBE + "</body>"))
        for width, scheme in ((1400, 0), (800, 1), (390, 0)):  # dark, light: colours alone
            command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=5000",
                       f"--user-data-dir={self.folder / 'profile'}", f"--blink-settings=preferredColorScheme={scheme}",
                       f"--window-size={width},900", "--enable-logging=stderr", "--dump-dom", probed.as_uri()]  # fmt: skip
            done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=PATIENCE_S, check=False)
            self.assertNotIn("CONSOLE", done.stderr)  # where script errors go
            root = re.search(r"<html[^>]*>", done.stdout).group()
            self.assertIn(f'data-theme="{"light" if scheme else "dark"}"', root)
            self.assertIn('data-ready="yes"', root)
            seen = json.loads(re.search(r'data-seen="([^"]*)"', root).group(1).replace("&quot;", '"').replace("&lt;", "<").replace("&amp;", "&"))
            self.assertEqual(seen["wide"], [])
            self.assertLessEqual(*seen["width"])
            self.assertRegex(seen["pointed"], r"RMSE \d")
            self.assertNotEqual(seen["keyed"], seen["pointed"])
            self.assertTrue(all(count > 0 for count in seen["rows"]))
            self.assertEqual(
                seen["sections"],
                ["What it comes to", "Action error by format", "Error against bits", "Success in simulation",
                 "Formats and components", "Blocks and matrices", "Layers by depth", "Sensitivity",
                 "Action error over the chunk", "Two settings side by side", "Seconds per observation", "What was measured"],
            )  # fmt: skip

    def test_figures_show_what_the_page_shows(self):
        sweep = self.settings("sweep")
        ranking = self.sweep("ranking", "--input-fmts", "float8_e4m3", "--output-fmts", "float16", "--sensitivity", "layers",
                             "--skip-components", "vision,language")  # fmt: skip
        bench = self.folder / "bench.json"
        stages = {"wire": 0.25, "vision": 0.5, "denoise": 1}
        bench.write_text(json.dumps({"mode": "a_mode", "seconds": 1, "stages": stages, "settings": {}}))
        summary = json.loads((sweep / "summary.json").read_text())
        summary[0]["below_floor"], summary[1]["below_floor"] = True, False
        (sweep / "summary.json").write_text(json.dumps(summary))
        loop = self.closed_loop()
        figures = self.figures(sweep, ranking, loop, bench)
        by_setting = [f"sweep_{figure}_{setting}_float16" for figure in ("blocks", "chunk", "layers") for setting in ("float32", "float8_e4m3")]
        of_loop = [f"{loop.name}_{figure}" for figure in ("blocks_float8_e4m3_float16", "components", "layers_float8_e4m3_float16", "success")]
        of_sweep = ["action_error", "components", "error_against_bits", "joints", "seconds", "steps", "velocity"]
        self.assertEqual(
            sorted(figures),
            sorted([*by_setting, *of_loop, *(f"sweep_{name}" for name in of_sweep), "ranking_sensitivity", "ranking_effect", "bench_stages"]),
        )

        def texts(name):
            return ["".join(text.itertext()) for text in figures[name].iter("{http://www.w3.org/2000/svg}text")]

        def of_class(name, wanted):
            return [element for element in figures[name].iter() if element.get("class") == wanted]

        for name, root in figures.items():
            self.assertTrue(root.find("{http://www.w3.org/2000/svg}title").text, name)
            self.assertLess(float(root.get("width")), 900, name)
        legend = len({entry["output_fmt"] for entry in summary})
        self.assertEqual(len(of_class("sweep_error_against_bits", "mark")), legend + len(summary))
        self.assertEqual([mark.get("fill") for mark in of_class("sweep_error_against_bits", "mark")].count("#ffffff"), 1)
        self.assertEqual(len(of_class("sweep_error_against_bits", "floor")), 1)
        self.assertEqual(len(of_class("ranking_sensitivity", "floor")), 1)
        self.assertIn("float8_e4m3 / float16, 66.7 %", texts("sweep_error_against_bits"))
        self.assertEqual(sum(text.endswith("*") for text in texts("sweep_action_error")), 1)
        joints = list(summary[0]["action_rmse_by_joint"])
        self.assertEqual(len(of_class("sweep_joints", "mark")), len(summary) * (1 + len(joints)))
        self.assertTrue(set(joints) < set(texts("sweep_joints")))
        self.assertTrue({"a mode", "1750 ms", "vision"} < set(texts("bench_stages")), texts("bench_stages"))
        self.assertTrue(any(text.startswith("2 of 3, 0.667") for text in texts(f"{loop.name}_success")))
        self.assertIn("server_start_timeout", texts(f"{loop.name}_success"))
        rows = json.loads((ranking / "sensitivity.json").read_text())
        self.assertGreater(len(rows), 20)
        self.assertEqual(len(of_class("ranking_sensitivity", "bar")), 20)

        page = self.folder / "figures.html"
        page.write_text("".join(file.read_text() for file in sorted((self.folder / "new" / "figures").iterdir())) + CROWDED)
        command = [installed("chromium", "chromium"), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={self.folder / 'profile'}",
                   "--dump-dom", page.as_uri()]  # fmt: skip
        done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=PATIENCE_S, check=False)
        self.assertIn('data-crowded="[]"', done.stdout[:3000])

    def test_figures_of_two_settings_compare_them_and_odd_names_are_escaped(self):
        statistics = json.loads(ORIGINALS.read_text())
        statistics["layers"][0]["rmse"] = statistics["layers"][1]["rmse"] = None
        for row in statistics["layers"]:
            row["component"] = 'a<b>&"\x01\uffff'
        files = [self.folder / name / "stats:1.json" for name in ('<svg> & "x"', "other")]  # the second run is named by its path
        for file in files:
            file.parent.mkdir()
            file.write_text(json.dumps(statistics))
        figures = self.figures(*files)
        self.assertIn("comparison", figures)
        self.assertEqual(len([name for name in figures if "_layers_" in name]), 2)
        self.assertTrue(any('a<b>&"\ufffd\ufffd' in "".join(root.itertext()) for root in figures.values()))
        self.assertTrue(any("url(#hatch)" in ElementTree.tostring(root, "unicode") for name, root in figures.items() if "_blocks_" in name))

    def test_figures_that_cannot_be_drawn_or_written_are_refused(self):
        empty = self.folder / "empty.json"
        empty.write_text(json.dumps({"layers": [], "components": []}))
        (self.folder / "file").write_text("")
        absent = self.folder / "none"
        for result, folder, words in (
            (empty, self.folder / "new" / "figures", ["nothing to draw"]),
            (absent, self.folder / "new" / "figures", ["none: does not exist"]),
            (absent, self.folder / "file", [str(self.folder / "file"), "cannot be written"]),
            (absent, self.folder / "file" / "figures", [str(self.folder / "file" / "figures"), "cannot be written"]),
            (absent, "/proc/figures", ["/proc/figures", "cannot be written"]),
        ):
            done = run("pi0", "report", result, "--svg", folder, "--output", self.page)
            self.assertEqual(done.returncode, 1, done.stdout)
            for word in words:
                self.assertIn(word, done.stderr)
            self.assertEqual(sorted(path.name for path in self.folder.iterdir()), ["empty.json", "file"])

    def test_what_cannot_be_read_or_written_is_named_and_nothing_is_left(self):
        sweep = self.settings("sweep")
        empty = self.folder / "empty"
        empty.mkdir()
        (self.folder / "file").write_text("{}")
        statistics = sweep / "float32__float16" / "stats.json"
        whole = statistics.read_text()
        self.page.write_text("earlier")

        def refused(result, *words, output=self.page):
            done = run("pi0", "report", result, "--output", output)
            self.assertEqual(done.returncode, 1, (result, done.stderr))
            for word in words:
                self.assertIn(word, done.stderr)
            self.assertEqual(self.page.read_text(), "earlier")
            self.assertEqual(list(self.folder.glob("report.*")), [self.page])

        refused(empty, "empty", "summary.json")
        refused(self.folder / "none", "none", "does not exist")
        refused(self.folder / "file", "file", "pi0 bench --json")
        refused(GOLDENS / "tiny_tokenizer.model", "tiny_tokenizer.model", "not valid JSON")
        refused(sweep, "file", output=self.folder / "file" / "report.html")
        statistics.write_text(whole[:100])
        refused(sweep, str(statistics), "not valid JSON")
        statistics.unlink()
        refused(sweep, str(statistics))

    def test_results_that_are_none_are_refused_by_name(self):
        folder = self.closed_loop()
        summary, statistics = folder / "summary.json", folder / "float8_e4m3__float16" / "stats.json"
        record = {"mode": "unquantized", "seconds": {"median": 1}, "stages": {"wire": 0.1}, "settings": {"repeats": 1}}
        pair, layer = {"input_fmt": "float8_e4m3", "output_fmt": "float16"}, {"layer": "a", "component": "vision"}
        deep = "[" * 200_000
        single, ranking = self.folder / "single.json", self.folder / "ranking" / "sensitivity.json"
        ranking.parent.mkdir()
        for result, file, content, word in (
            (single, single, deep, "nested more than 64 levels deep"),
            (single, single, '{"a": [NaN], "b": ' + deep, "nested more than 64 levels deep"),
            (single, single, {**record, "mode": 5}, "'mode' is 5, expected a string"),
            (single, single, {**record, "stages": [1]}, "'stages' is [1], expected an object of numbers"),
            (single, single, {"a": {**record, "settings": 1}}, "'settings' is 1, expected an object"),
            (single, single, {"layers": 1, "components": []}, "'layers' is 1, expected a list of objects"),
            (single, single, {"layers": [1], "components": []}, "'layers' entry 1: is 1, expected an object"),
            (single, single, {"layers": [], "components": [{"component": 1}]}, "'component' is 1, expected a non-empty string"),
            (single, single, {"layers": [{**layer, "kind": 1}], "components": []}, "'kind' is 1, expected a string"),
            (single, single, {"layers": [{**layer, "rmse": "a"}], "components": []}, "'rmse' is \"a\", expected a number"),
            (folder, summary, deep, "nested more than 64 levels deep"),
            (folder, summary, [5], "entry 1: is 5, expected an object"),
            (folder, summary, [{"input_fmt": 5}], "entry 1: 'input_fmt' is 5, expected a string"),
            (folder, summary, [{**pair, "by_scene": [1]}], "'by_scene' is [1], expected an object"),
            (folder, summary, [{**pair, "by_scene": {"1": 1}}], "scene 1: is 1, expected an object"),
            (folder, summary, [{**pair, "action_rmse_by_step": 1}], "'action_rmse_by_step' is 1, expected a list"),
            (folder, summary, [{**pair, "action_rmse_by_step_and_dimension": [1]}], "expected a list of lists"),
            (folder, statistics, {}, "expected statistics"),
            (ranking.parent, ranking, [{"layer": 5}], "entry 1: 'layer' is 5, expected a string"),
            (ranking.parent, ranking, [{}], "entry 1: has neither layer nor component"),
        ):
            before = file.read_text() if file.exists() else "{}"
            file.write_text(content if isinstance(content, str) else json.dumps(content))
            done = run("pi0", "report", result)
            self.assertEqual(done.returncode, 1, (word, done.stderr))
            self.assertIn(str(file), done.stderr)
            self.assertIn(word, done.stderr)
            file.write_text(before)

    def test_benches_that_are_none_are_refused_by_name(self):
        record = {"mode": "unquantized", "settings": {}}
        whole, other = self.folder / "whole.json", self.folder / "other.json"
        whole.write_text(json.dumps(record))
        for content, word in (
            ({**record, "mode": 5}, "'mode' is 5, expected a non-empty string"),
            ({**record, "settings": [1]}, "'settings' is [1], expected an object"),
            ({**record, "runs": [{"counts": 5}]}, "'counts' is 5, expected"),
            ({**record, "runs": [{"counts": True, "seconds": "a"}]}, "'seconds' is \"a\", expected a number"),
            ([], "found no record"),
        ):
            other.write_text(json.dumps(content))
            done = run("pi0", "bench", "--compare", whole, other)
            self.assertEqual(done.returncode, 1, (word, done.stderr))
            self.assertIn(str(other), done.stderr)
            self.assertIn(word, done.stderr)

    def test_a_setting_named_as_a_warning_is_shown(self):
        file = self.folder / "bench.json"
        file.write_text(json.dumps({"mode": "a", "seconds": 1, "stages": {"wire": 1}, "settings": {"warning": 5}}))
        done = run("pi0", "report", file)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("warning: 5", done.stdout)

    def test_a_page_for_a_pipe_or_a_device_leaves_nothing_beside_it(self):
        for output in ("/dev/stdout", self.folder / "link"):
            if output != "/dev/stdout":
                output.symlink_to("/dev/null")
            done = run("pi0", "report", ORIGINALS, "--output", output)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertEqual("</html>" in done.stdout, output == "/dev/stdout")
        self.assertEqual([path.name for path in self.folder.iterdir()], ["link"])
        self.assertTrue((self.folder / "link").is_symlink())

    def test_a_full_disk_is_named(self):
        disk = self.folder / "disk"
        disk.mkdir()
        with small_disk(disk, 8192):
            done = run("pi0", "report", ORIGINALS, "--output", disk / "report.html")
            self.assertEqual(done.returncode, 1)
            self.assertIn("No space left on device", done.stderr)
            self.assertFalse((disk / "report.html").exists())


if __name__ == "__main__":
    unittest.main()
