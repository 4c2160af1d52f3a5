"""Prints the records that `pi0 bench --json` and peers.py wrote, with ratios: LABEL=FILE ..."""

import json
import pathlib
import sys

PEERS = ("eager", "compiled", "original", "original_untracked")


def records(arguments):
    """Label to record."""
    found = {}
    for argument in arguments:
        label, _, file = argument.partition("=")
        content = json.loads(pathlib.Path(file).read_text())
        for mode, record in content.items():
            if mode != "ratios":
                found[f"{label} {mode}"] = record
    return found


def main():
    found = records(sys.argv[1:])
    peers = {record["mode"]: record for record in found.values() if record["mode"] in PEERS}
    print(f"{'seconds':<38} {'median':>8} {'least':>8} {'counted':>8} {'GFLOP/s':>8}", end="")
    print("".join(f" {peer + ' /':>21}" for peer in peers))
    for label, record in found.items():
        seconds, counted = record["seconds"], f"{record['counted']} of {record['settings']['repeats']}"
        print(f"{label:<38} {seconds['median']:8.3f} {seconds['min']:8.3f} {counted:>8}", end="")
        print(f" {record['gemm']['gflop_per_second']:8.0f}", end="")
        print("".join(f" {peer['seconds']['median'] / seconds['median']:20.2f}x" for peer in peers.values()))
    print("GFLOP/s: the best matrix product seen beside the runs.", end="")
    print(" 'eager /': how many times longer eager takes." if peers else "")


if __name__ == "__main__":
    main()
