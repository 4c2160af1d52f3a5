"""Prints the records that `pi0 bench --json`, peers.py and vla_cpp.py wrote, with ratios: LABEL=FILE ..."""

import json
import pathlib
import sys

PEERS = ("eager", "compiled", "original", "original_untracked", "vla_cpp")
# Which peers do the same work as which mode of ours.
SAME_WORK = {
    "unquantized": ("eager", "compiled", "vla_cpp"),
    "without_statistics": ("original_untracked",),
    "with_statistics": ("original",),
}


def labelled(label, content):
    """Label to record, of a file's content."""
    return {f"{label} {mode}": record for mode, record in content.items() if mode != "ratios"}


def peers_in(found):
    return {record["mode"]: record for record in found.values() if record["mode"] in PEERS}


def ratios(found):
    """How many times longer than ours a peer takes that does the same work: of ours by label, by peer."""
    peers = peers_in(found)
    return {
        label: {
            peer: peers[peer]["seconds"]["median"] / record["seconds"]["median"]
            for peer in SAME_WORK[record["mode"]]
            if peer in peers
        }
        for label, record in found.items()
        if record["mode"] in SAME_WORK
    }


def table(found):
    """The lines of a table."""
    peers = peers_in(found)
    lines = [
        f"{'seconds':<38} {'median':>8} {'least':>8} {'counted':>8} {'GFLOP/s':>8}"
        + "".join(f" {peer + ' /':>21}" for peer in peers)
    ]
    for label, record in found.items():
        seconds, counted = record["seconds"], f"{record['counted']} of {record['settings']['repeats']}"
        lines.append(
            f"{label:<38} {seconds['median']:8.4f} {seconds['min']:8.4f} {counted:>8}"
            + f" {record['gemm']['gflop_per_second']:8.0f}"
            + "".join(f" {peer['seconds']['median'] / seconds['median']:20.2f}x" for peer in peers.values())
        )
    explained = " 'eager /': how many times longer eager takes." if peers else ""
    return [*lines, f"GFLOP/s: the best matrix product seen beside the runs.{explained}"]


def main():
    found = {}
    for argument in sys.argv[1:]:
        label, _, file = argument.partition("=")
        found |= labelled(label, json.loads(pathlib.Path(file).read_text()))
    print("\n".join(table(found)))


if __name__ == "__main__":
    main()
