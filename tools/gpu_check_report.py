"""Makes results.json and results.txt of what gpu_check.sh has done so far: WORK OUTPUT, its two folders."""

import json
import pathlib
import re
import sys

import compare_peers
from whole_file import write_whole

OURS = {"bench_skip": "skip", "bench_keep": "keep"}
# What a test program says of itself in the end.
SUMMARY = re.compile(r"All tests passed.*|test cases:.*|assertions:.*")


def rows(path: pathlib.Path) -> list[list[str]]:
    return [line.split("\t") for line in path.read_text().splitlines()] if path.exists() else []


def content(path: pathlib.Path) -> dict:
    return json.loads(path.read_text()) if path.exists() else {}


def log_of(name: str, log: list[str]) -> list[str]:
    return [line.removeprefix(f"{name}: ") for line in log if line.startswith(f"{name}: ")]


def found_by(status: str, why: str, records: dict, log: list[str]) -> str:
    """A step's result in a line."""
    found = [f"{mode} {record['seconds']['median']:.4f} s" for mode, record in records.items() if mode != "ratios"]
    found += [line for line in log if SUMMARY.fullmatch(line)]
    if status in ("failed", "timed out") and not found:
        found = [line for line in log if line.strip()][-1:]
    return "; ".join([why] * bool(why) + found)


def main():
    work, output = map(pathlib.Path, sys.argv[1:])
    log = (output / "log.txt").read_text(errors="replace").splitlines()
    steps, ours, peers, labels = [], {}, {}, {}
    for name, status, seconds, why in rows(work / "steps.tsv"):
        records = content(work / f"{OURS.get(name, name)}.json")
        own_log = log_of(name, log)
        step = {"name": name, "status": status, "seconds": float(seconds)}
        step["found"] = found_by(status, why, records, own_log)
        if status in ("failed", "timed out"):
            step["last_lines"] = own_log[-30:]
        steps.append(step)
        if name in OURS:
            ours[OURS[name]] = records
            labels |= compare_peers.labelled(f"ours, {OURS[name]} masked:", records)
        else:
            peers |= records
            labels |= compare_peers.labelled("peer:", records)
    machine = dict(rows(work / "machine.tsv"))
    results = {"machine": machine, "steps": steps, "bench": ours, "peers": peers}
    write_whole(output / "results.json", json.dumps({**results, "ratios": compare_peers.ratios(labels)}, indent=1) + "\n")

    lines = [f"{key}: {value}" for key, value in machine.items()]
    lines += ["", f"{'step':<12} {'status':<10} {'seconds':>8}  found"]
    lines += [f"{step['name']:<12} {step['status']:<10} {step['seconds']:8.1f}  {step['found']}" for step in steps]
    if labels:
        lines += ["", *compare_peers.table(labels)]
    write_whole(output / "results.txt", "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
