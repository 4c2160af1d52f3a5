"""pi0 closed-loop against a stand-in simulator that uses openpi's client: whatever ends it is recorded, and nothing keeps running."""

import csv
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import unittest

from support import PATIENCE_S, POLICIES, PROGRAMS, SIMULATOR, TemporaryFolderTest, run, wait_until

NAME = "pi05_droid_jointpos_polaris"
MODEL = ["--config", NAME, "--checkpoint-dir", POLICIES / NAME, "--num-steps", 1, "--skip-masked"]
PAIR = ["--input-fmts", "float8_e4m3", "--output-fmts", "float16"]


class ClosedLoopTest(TemporaryFolderTest):
    def setUp(self):
        super().setUp()
        self.output = self.folder / "results"

    def tearDown(self):
        left = subprocess.run(["pgrep", "-af", str(self.folder)], capture_output=True, text=True, check=False)
        self.assertEqual(left.stdout, "")

    def command(self, *arguments, simulator=None):
        simulator = simulator or f"{SIMULATOR} {{host}} {{port}} {{scene}} {{episodes}} {{output_dir}} $(cat behaviour)"
        words = [PROGRAMS / "pi0", "closed-loop", *MODEL, "--output", self.output, "--eval-command", simulator,
                 "--eval-dir", self.folder, "--episodes", 2, *arguments]  # fmt: skip
        return [str(word) for word in words]

    def run_pairs(self, *arguments, behaviour="succeed", simulator=None):
        (self.folder / "behaviour").write_text(behaviour)
        return run(*self.command(*arguments, simulator=simulator))

    def root(self):
        (root,) = self.output.iterdir()
        return root

    def summary(self):
        return json.loads((self.root() / "summary.json").read_text())

    def test_results_lie_as_the_originals_do(self):
        done = self.run_pairs("--input-fmts", "float8_e4m3,bfloat16", "--output-fmts", "float16", "--scenes", 1, 2,
                              "--videos-from", self.folder / "runs")  # fmt: skip
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertRegex(self.root().name, r"^\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d$")
        summary = self.summary()
        self.assertEqual([entry["combo"] for entry in summary], ["float8_e4m3__float16", "bfloat16__float16"])
        for entry in summary:
            self.assertEqual(entry["success_rate"], 0.75)
            scene = entry["by_scene"]["1"]
            self.assertEqual([scene["n_success"], scene["n_episodes"], scene["success_rate"]], [1, 2, 0.5])
            self.assertEqual(scene["requests"], {"answered": 2, "refused": 0, "failed": 0, "dropped": 0})
            self.assertEqual([entry["n_success"], entry["n_episodes"]], [3, 4])
            folder = self.root() / entry["combo"]
            self.assertEqual(json.loads((folder / "result.json").read_text()), entry)
            evaluated = json.loads((folder / "eval_results.json").read_text())
            self.assertEqual(evaluated["by_scene"], entry["by_scene"])
            self.assertEqual(evaluated["eval_log"], "scene 2: 2/2\n")
            statistics = json.loads((folder / "stats.json").read_text())
            self.assertEqual(statistics["meta"]["requests"], 4)
            self.assertEqual(entry["rmse_stats_path"], str(folder / "stats.json"))
            self.assertEqual(
                entry["component_rmse"], {row["component"]: row["mean_rmse"] for row in statistics["components"]}
            )
            videos = {str(path.relative_to(folder / "videos")) for path in folder.glob("videos/**/*.mp4")}
            self.assertEqual(
                videos,
                {"scene1/episode_0.mp4", "scene1/1/episode_1.mp4", "scene2/episode_0.mp4", "scene2/2/episode_1.mp4"},
            )
            self.assertEqual(len(entry["video_files"]), 4)
            self.assertIn("serving on", (folder / "server.log").read_text())
        with (self.root() / "summary.csv").open() as file:
            rows = list(csv.DictReader(file))
        self.assertEqual([row["success_scene2"] for row in rows], ["1.0", "1.0"])
        self.assertEqual(float(rows[0]["rmse_vision"]), summary[0]["component_rmse"]["vision"])
        self.assertIn("0.75", done.stdout)

    def test_what_becomes_of_a_simulator_is_recorded_and_the_next_scene_runs(self):
        scenes = ["fail", "abort", "hang", "say-nothing", "succeed"]
        done = self.run_pairs(*PAIR, "--scenes", ",".join(scenes), "--eval-timeout", 20,
                              "--success-regex", r"scene 1: (\d+)/(\d+)",
                              simulator=f"exec {SIMULATOR} {{host}} {{port}} 1 {{episodes}} {{output_dir}} {{scene}}")  # fmt: skip
        self.assertEqual(done.returncode, 1)
        self.assertIn("1 of 1 settings had errors", done.stderr)
        (entry,) = self.summary()
        errors = {scene: result.get("error") for scene, result in entry["by_scene"].items()}
        self.assertEqual(
            errors,
            {
                "fail": "exit code 1",
                "abort": "signal 6 (Aborted)",
                "hang": "timeout after 20 s",
                "say-nothing": None,
                "succeed": None,
            },
        )
        self.assertEqual(entry["success_rate"], 0.5)
        self.assertIsNone(entry["by_scene"]["say-nothing"]["success_rate"])
        self.assertIn("no such scene", (self.root() / entry["combo"] / "eval_scenefail.log").read_text())
        statistics = json.loads((self.root() / entry["combo"] / "stats.json").read_text())
        self.assertEqual(statistics["meta"]["requests"], 10)

    def test_a_server_that_dies_costs_its_pair_only(self):
        done = self.run_pairs("--input-fmts", "float8_e4m3", "--output-fmts", "float16,bfloat16", "--scenes", 1,
                              behaviour="kill-server")  # fmt: skip
        self.assertEqual(done.returncode, 1)
        summary = self.summary()
        self.assertEqual([entry["error"] for entry in summary], ["server_crashed: signal 9 (Killed)"] * 2)
        self.assertEqual(summary[0]["by_scene"]["1"]["error"], "the server ended under it")

        (self.folder / "behaviour").write_text("succeed")  # those with errors run again
        done = self.run_pairs("--input-fmts", "float8_e4m3", "--output-fmts", "float16,bfloat16", "--scenes", 1, "--resume")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual([entry["success_rate"] for entry in self.summary()], [0.5, 0.5])
        stamp = (self.root() / "float8_e4m3__float16" / "result.json").stat().st_mtime_ns
        done = self.run_pairs("--input-fmts", "float8_e4m3", "--output-fmts", "float16,bfloat16", "--scenes", 1, "--resume")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual((self.root() / "float8_e4m3__float16" / "result.json").stat().st_mtime_ns, stamp)

    def test_what_was_found_can_be_read_again_by_another_rule(self):
        log = self.folder / "scenes"
        log.write_text("scene a/b: 7/5\nepisode 0: True, 4.5 mm\nepisode 1: False, 20 mm\n")
        arguments = ["--pairs", "float32/float32,float8_e4m3/float16", "--scenes", "a/b"]
        simulator = f"{SIMULATOR} {{host}} {{port}} 1 {{episodes}} {{output_dir}} say-nothing; echo '{{{{}}}}'; cat {log}"
        done = self.run_pairs(*arguments, simulator=simulator)
        self.assertEqual(done.returncode, 1)
        self.assertIn("7 of 5", done.stderr)
        self.assertIn("--resume reads this again", done.stderr)
        self.assertEqual([entry["n_success"] for entry in self.summary()], [None, None])
        stamps = [path.stat().st_mtime_ns for path in self.root().glob("*/stats.json")]

        arguments += ["--episode-regex", r"^episode \d+: (\w+)", "--score-regex", r"([\d.]+) mm$", "--resume"]
        done = self.run_pairs(*arguments, simulator=simulator)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual([path.stat().st_mtime_ns for path in self.root().glob("*/stats.json")], stamps)
        baseline, other = self.summary()
        self.assertEqual(other["by_scene"]["a/b"]["episodes"], [True, False])
        self.assertEqual([other["n_success"], other["n_episodes"], other["score_mean"]], [1, 2, 12.25])
        self.assertEqual([other["baseline"], other["mcnemar_p"], other["score_change"]], ["float32__float32", 1.0, 0.0])
        self.assertNotIn("baseline", baseline)
        self.assertIn("1/2", done.stdout)
        text = (self.root() / "float8_e4m3__float16" / "eval_scenea%2Fb.log").read_text()
        self.assertTrue(text.startswith("{}\n"), text)
        arguments = ["--pairs", "float8_e4m3/float16", "--scenes", "a/b", "--resume"]  # the rules stay, and so do others
        done = self.run_pairs(*arguments, simulator=simulator)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual({entry["combo"]: entry["n_success"] for entry in self.summary()},
                         {"float8_e4m3__float16": 1, "float32__float32": 1})  # fmt: skip
        settings = json.loads((self.root() / "settings.json").read_text())
        self.assertIn("--seed", settings["server_arguments"])
        self.assertEqual(list(settings["success"]), ["episode-regex", "score-regex"])

    def test_a_server_that_refuses_is_no_bad_policy(self):
        refused = (f"'{sys.executable}' -c \"from openpi_client.websocket_client_policy import WebsocketClientPolicy as P\n"
                   "try: P('localhost', {port}).infer({{'prompt': 5}})\nexcept Exception: print('scene 1: 0/2')\"")  # fmt: skip
        key = self.folder / "key"
        key.write_text("secret\n")
        dies = (f"{SIMULATOR} {{host}} {{port}} 1 1 {{output_dir}} say-nothing; "
                "pkill -KILL -f '[/]pi0-server --.* --port {port} '; echo scene 1: 0/2")  # fmt: skip
        for simulator, error, more in (
            (refused, "answered 0, refused 0 and failed at 1", []),
            ("echo scene 1: 0/2", "asked for no actions", []),
            ("echo scene 1: 0/2", "asked for no actions", ["--api-key-file", key]),
            (dies, "server", []),  # ended under it, or says no more what it answered
        ):
            self.output = self.folder / f"{error.split()[0]}{len(more)}"
            done = self.run_pairs(*PAIR, "--scenes", 1, *more, simulator=simulator)
            self.assertEqual(done.returncode, 1)
            (entry,) = self.summary()
            self.assertIn(error, entry["by_scene"]["1"]["error"])
            self.assertEqual([entry["success_rate"], entry["n_success"], entry["n_episodes"]], [None, None, 0])
            with (self.root() / "summary.csv").open() as file:
                (row,) = csv.DictReader(file)
            self.assertIn(error, row["error"])
            self.assertIn(error, done.stdout)

    def test_a_silent_scene_is_an_error_and_the_others_are_compared(self):
        log = self.folder / "episodes"
        log.write_text("episode 0: True\nepisode 1: False\n")
        simulator = (f"{SIMULATOR} {{host}} {{port}} 1 {{episodes}} {{output_dir}} say-nothing; "
                     f"case {{output_dir}} in *float8*scene2) ;; *) cat {log};; esac")  # fmt: skip
        done = self.run_pairs("--unquantized", *PAIR, "--scenes", "1,2", "--episode-regex", r"^episode \d+: (\w+)",
                              simulator=simulator)  # fmt: skip
        self.assertEqual(done.returncode, 1)
        self.assertIn("scene 2: no success was found in it", done.stdout)
        self.assertIn("p is of the 2 episodes that both have", done.stdout)
        baseline, entry = self.summary()
        self.assertEqual([entry["n_success"], entry["n_episodes"], entry["paired_episodes"]], [1, 2, 2])
        self.assertEqual([baseline["n_success"], baseline["n_episodes"]], [2, 4])
        with (self.root() / "summary.csv").open() as file:
            self.assertEqual([row["success_scene2"] for row in csv.DictReader(file)], ["0.5", ""])

    def test_settings_of_every_kind_side_by_side(self):
        rules = self.folder / "careful.json"
        rules.write_text('{"rules": [{"component": "vision", "input_fmt": "bfloat16", "output_fmt": "bfloat16"}]}')
        videos = self.folder / "runs"
        done = self.run_pairs("--unquantized", "--pairs", "float8_e4m3/float16,bfloat16/bfloat16", "--rules", rules,
                              "--scenes", 1, "--jobs", 2, "--success-videos", "episode_0")  # fmt: skip
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertFalse(videos.exists() and any(videos.glob("scene*")))
        names = ["unquantized", "float8_e4m3__float16", "bfloat16__bfloat16", "rules__careful"]
        self.assertEqual([entry["combo"] for entry in self.summary()], names)
        self.assertEqual([entry["success_rate"] for entry in self.summary()], [1.0] * 4)
        self.assertFalse((self.root() / "unquantized" / "stats.json").exists())
        stamps = {path.parent.name: path.stat().st_mtime_ns for path in self.root().glob("*/server.log")}
        rules.write_text('{"rules": [{"component": "vision", "input_fmt": "float16", "output_fmt": "float16"}]}')
        done = self.run_pairs("--unquantized", "--rules", rules, "--scenes", 1, "--resume")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual([entry["combo"] for entry in self.summary()], ["unquantized", "rules__careful", *sorted(names[1:3])])
        changed = {path.parent.name for path in self.root().glob("*/server.log") if path.stat().st_mtime_ns != stamps[path.parent.name]}
        self.assertEqual(changed, {"rules__careful"})
        report = run("pi0", "report", self.root(), "--output", self.folder / "report.html")
        self.assertEqual(report.returncode, 0, report.stderr)
        self.assertIn("unquantized", report.stdout + (self.folder / "report.html").read_text())

    def test_an_interruption_stops_all_and_resume_goes_on(self):
        for stop in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            (self.folder / "behaviour").write_text("wait")
            arguments = [*PAIR, "--scenes", 1, *(["--resume"] if self.output.exists() else [])]
            process = subprocess.Popen(self.command(*arguments), stderr=subprocess.PIPE, text=True)
            wait_until(lambda: list(self.output.glob("*/*/videos/scene1/episode_0.mp4")), "an episode")
            process.send_signal(stop)
            errors = process.communicate(timeout=PATIENCE_S)[1]
            self.assertEqual(process.returncode, 1)
            self.assertIn("--resume continues", errors)
            (entry,) = self.summary()
            self.assertEqual(entry["error"], "interrupted")
            self.assertTrue((self.root() / entry["combo"] / "stats.json").exists())
            for video in self.output.glob("*/*/videos/scene1/episode_0.mp4"):
                video.unlink()
        done = self.run_pairs(*PAIR, "--scenes", 1, "--resume")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(self.summary()[0]["success_rate"], 0.5)

    def test_a_server_that_does_not_start_is_recorded(self):
        for script, options, error in (
            ("echo no memory; exit 1", [], "server_start_failed: exit code 1: no memory"),
            ("sleep 60", ["--server-timeout", 1], "server_start_timeout"),
        ):
            self.output = self.folder / script.split()[0]
            server = self.folder / "server.sh"
            server.write_text(f"#!/bin/sh\n{script}\n")
            server.chmod(0o755)
            done = self.run_pairs("--input-fmts", "float16", "--output-fmts", "float16,bfloat16", *options,
                                  "--server", server)  # fmt: skip
            self.assertEqual(done.returncode, 1)
            self.assertEqual([entry["error"] for entry in self.summary()], [error] * 2)

    def test_sim_evals_is_run_as_it_is(self):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("", 8000))
            except OSError:
                self.skipTest("port 8000, which sim-evals' client connects to, is taken")
        checkout, programs = self.folder / "sim-evals", self.folder / "bin"
        checkout.mkdir()
        programs.mkdir()
        (checkout / "run_eval.py").write_text("not run here\n")
        (checkout / "assets").mkdir()
        uv = programs / "uv"  # run python run_eval.py --episodes N --scene S --headless
        uv.write_text(f'#!/bin/sh\necho "$@"\nexec {SIMULATOR} localhost 8000 "$7" "$5" . succeed\n')
        uv.chmod(0o755)
        command = ["pi0", "closed-loop", *MODEL, *PAIR, "--sim-evals-dir", checkout, "--scenes", 2,
                   "--output-dir", self.output]  # fmt: skip
        environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}
        done = run(*command, environment=environment)
        self.assertEqual(done.returncode, 0, done.stderr)
        (entry,) = self.summary()
        log = (self.root() / entry["combo"] / "eval_scene2.log").read_text()
        self.assertIn("run python run_eval.py --episodes 5 --scene 2 --headless\n", log)
        self.assertEqual(entry["by_scene"]["2"]["success_rate"], 0.4)
        self.assertEqual([pathlib.Path(video).name for video in entry["video_files"]], ["episode_1.mp4"])

        with socket.socket() as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            other.bind(("", 8000))
            other.listen()
            done = run(*command, environment=environment)
        self.assertEqual(done.returncode, 1)
        self.assertIn("port 8000", done.stderr)

    def test_what_is_wrong_is_said_before_the_first_episode(self):
        (self.folder / "file").write_text("")
        (self.folder / "broken.json").write_text("{")
        for arguments, words in (
            (["--eval-command", "run {prot}"], ["{prot}", "{port}"]),
            (["--success-regex", "\\d+"], ["0 groups", "two"]),
            (["--success-csv", "results"], ["expected FILE:COLUMN"]),
            (["--pairs", "float16"], ["expected INPUT/OUTPUT"]),
            (["--jobs", 2, "--port", 8000], ["cannot share port 8000"]),
            (["--jobs", 2, "--videos-from", self.folder], ["cannot share the videos of"]),
            (["--tls-cert", "certificate"], ["without TLS"]),
            (["--scenes", ""], ["without a name"]),
            (["--input-fmt", "float16"], ["--input-fmt is set for each server", "--input-fmts"]),
            (["--scenes", "a,a"], ["scene 'a' is given twice"]),
            (["--scenes", "a" * 300], ["longer than 80 bytes"]),
            (["--rules", self.folder / "broken.json"], ["broken.json"]),
            (["--success-regex", "(("], ["no regular expression"]),
            (["--input-fmts", "float12"], ["float12"]),
            (["--resume"], ["has no earlier results"]),
            (["--success-regx", "x"], ["'--success-regx' goes to pi0-server; did you mean '--success-regex'?"]),
            (["--num-stepps=3"], ["unknown option '--num-stepps'; did you mean '--num-steps'?"]),
            (["--output", self.folder / "file" / "results"], ["file"]),
        ):
            command = ["pi0", "closed-loop", *MODEL, "--output", self.folder / "empty"]
            if "--eval-command" not in arguments:
                command += ["--eval-command", "true"]
            if "--output" in arguments:
                del command[-4:-2]
            done = run(*command, *arguments)
            self.assertIn(done.returncode, (1, 2), arguments)
            for word in words:
                self.assertIn(word, done.stderr)

    def test_an_unknown_policy_is_refused_before_anything_starts(self):
        unknown = run("pi0", "infer", "--config", "pi05_drod", "--random-weights", "--request", POLICIES / NAME / "request.msgpack",
                      "--output", self.folder / "answer")  # fmt: skip
        for words in (["--config", "pi05_drod"], ["--config=pi05_drod"], ["--policy.config", "pi05_drod"]):
            done = run("pi0", "closed-loop", *words, "--eval-command", "true", "--output", self.output)
            self.assertEqual((done.returncode, done.stdout, done.stderr), (1, "", unknown.stderr))
            self.assertIn("did you mean 'pi05_droid'?", done.stderr)
            self.assertFalse(self.output.exists())

    def test_results_that_do_not_fit_are_refused_and_kept(self):
        self.assertEqual(self.run_pairs(*PAIR, "--scenes", 1).returncode, 0)
        other = self.run_pairs(*PAIR, "--scenes", 1, 2, "--resume")
        self.assertEqual(other.returncode, 1)
        self.assertIn("scenes", other.stderr)
        result = self.root() / "float8_e4m3__float16" / "result.json"
        whole = result.read_text()
        result.write_text(whole[:50])
        broken = self.run_pairs(*PAIR, "--scenes", 1, "--resume")
        self.assertEqual(broken.returncode, 1)
        self.assertIn("result.json", broken.stderr)
        self.assertEqual(result.read_text(), whole[:50])

    def test_results_that_are_none_are_refused_by_name(self):
        self.assertEqual(self.run_pairs(*PAIR, "--scenes", 1).returncode, 0)
        file = self.root() / "float8_e4m3__float16" / "result.json"
        whole = json.loads(file.read_text())
        scene = whole["by_scene"]["1"]
        for change, words in (
            ({"success_rate": "all"}, ["'success_rate' is \"all\", expected a number or null"]),
            ({"by_scene": [scene]}, ["'by_scene'", "expected an object"]),
            ({"by_scene": {"1": 0.5}}, ["by_scene.1", "expected an object"]),
            ({"by_scene": {"1": {**scene, "success_rat": 1}}}, ["by_scene.1", "did you mean 'success_rate'?"]),
            ({"by_scene": {"1": {"n_success": 1}}}, ["by_scene.1", "'n_episodes' is missing"]),
            ({"component_rmse": None}, ["'component_rmse' is null"]),
            ({"combo": "float16__float16"}, ["float16__float16", "expected float8_e4m3__float16"]),
            ({"input_fmt": 8}, ["'input_fmt' is 8"]),
            ({"error": 5}, ["'error' is 5"]),
        ):
            file.write_text(json.dumps({**whole, **change}))
            done = self.run_pairs(*PAIR, "--scenes", 1, "--resume")
            self.assertEqual(done.returncode, 1, (change, done.stderr))
            for word in [str(file), *words]:
                self.assertIn(word, done.stderr)
        for text in ('{"by_scene": {}}', "[" * 200_000):
            file.write_text(text)
            done = self.run_pairs(*PAIR, "--scenes", 1, "--resume")
            self.assertEqual(done.returncode, 1)
            self.assertIn(str(file), done.stderr)
        file.write_text(json.dumps(whole))
        settings = self.root() / "settings.json"
        for text, word in (("[]", "expected an object"), ("{}", "is missing"), ("", "not valid JSON")):
            settings.write_text(text)
            done = self.run_pairs(*PAIR, "--scenes", 1, "--resume")
            self.assertEqual(done.returncode, 1)
            self.assertIn(str(settings), done.stderr)
            self.assertIn(word, done.stderr)

    def test_statistics_that_are_none_cost_the_pair_only(self):
        server = self.folder / "server.sh"
        server.write_text(f"#!/bin/sh\ntrap 'kill $!; wait $!; echo \"{{}}\" > \"$stats\"; exit 0' TERM\nfor stats; do :; done\n"
                          f'"{PROGRAMS}/pi0-server" "$@" & wait $!\n')  # fmt: skip
        server.chmod(0o755)
        done = self.run_pairs(*PAIR, "--scenes", 1, "--server", server)
        self.assertEqual(done.returncode, 1)
        self.assertIn("1 of 1 settings had errors", done.stderr)
        (entry,) = self.summary()
        self.assertEqual(entry["success_rate"], 0.5)
        self.assertIn("stats.json: 'components' is missing", entry["error"])

    def test_endless_output_is_cut_in_its_middle_and_a_daemon_does_not_hold_the_scene(self):
        limit = 64 << 20
        ask = f"{SIMULATOR} {{host}} {{port}} 1 1 {{output_dir}} say-nothing"
        talk = (f"{ask}; setsid sh -c 'echo $$ > {self.folder}/daemon; sleep 2; echo still here; echo alive > {self.folder}/alive; "
                "exec sleep 600' & echo begin; head -c 200000000 /dev/zero | tr '\\0' x; echo; sleep 5; echo scene 1: 1/2")  # fmt: skip
        done = self.run_pairs(*PAIR, "--scenes", 1, "--eval-timeout", 200, simulator=talk)
        daemon = int((self.folder / "daemon").read_text())
        self.addCleanup(os.kill, daemon, signal.SIGKILL)
        self.assertEqual(done.returncode, 0, done.stderr)
        (entry,) = self.summary()
        self.assertEqual(entry["by_scene"]["1"]["success_rate"], 0.5)
        log = (self.root() / entry["combo"] / "eval_scene1.log").read_bytes()
        self.assertLess(len(log), limit + 100)
        self.assertEqual(log[:7], b"begin\nx")
        self.assertEqual(log[-14:], b"\nscene 1: 1/2\n")
        left_out = re.search(rb"\n\[(\d+) bytes are left out here\]\n", log)
        self.assertEqual(int(left_out.group(1)) + len(log) - len(left_out.group()), 200_000_000 + len("begin\n\nstill here\nscene 1: 1/2\n"))
        self.assertEqual((self.folder / "alive").read_text(), "alive\n")


if __name__ == "__main__":
    unittest.main()
