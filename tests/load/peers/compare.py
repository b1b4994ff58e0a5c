"""Ours beside the others, in turns on one machine, as ratios.

    python -m tests.load.peers.compare --llamacpp /tmp/llamacpp/bin/python

Each peer that is given the Python of its environment is run; how to make that environment stands in its script. Ours
and the peers take turns, `--rounds` times, and the median of each row counts: machines are noisy. The bundled model
unless LLM_MODEL says otherwise; `--gguf` is the same model for llama.cpp, `--openvino-model` for OpenVINO.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from llm.benchmark.machine import cpu
from llm.loading.bundled import gguf_file

HERE = Path(__file__).parent
Key = tuple[int, int]
"""chats, context"""

WANTED: dict[Key, tuple[float, float, float]] = {
    (1, 40): (0.28, 0.45, 0.65),
    (16, 40): (1.4, 1.6, 2.5),
    (16, 600): (1.5, 1.5, 2.0),
    (32, 40): (2.0, 2.0, 3.0),
}
"""Ratio to llama.cpp that is the least without and with VNNI instructions, and that is aimed at."""


def rows(command: list[str], environment: dict[str, str]) -> dict[Key, float]:
    """Tokens a second of each row that a program prints."""
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, env=environment)
    found: dict[str, Any] = json.loads(done.stdout)
    return {
        (row["of"]["chats"], row["of"]["context"]): row["values"]["tokens_per_second"]
        for row in found["rows"]
        if row["name"] == "throughput"
    }


def commands(given: argparse.Namespace) -> dict[str, list[str]]:
    """Who is measured, and how. Ours comes first."""
    wanted = ["--chats", *map(str, given.chats), "--contexts", *map(str, given.contexts), "--tokens", str(given.tokens)]
    found = {"ours": [sys.executable, "-m", "llm.benchmark", "--json", "--only", "throughput", *wanted]}
    if given.llamacpp:
        found["llama.cpp"] = [given.llamacpp, str(HERE / "llamacpp.py"), str(given.gguf or gguf_file()), *wanted]
    if given.openvino:
        found["OpenVINO"] = [given.openvino, str(HERE / "openvinogenai.py"), given.openvino_model, *wanted]
    if given.original:
        found["original"] = [given.original, str(HERE / "original.py"), given.original_model, *wanted]
    return found


def table(medians: dict[str, dict[Key, float]]) -> Table:
    _, features = cpu()
    least = 1 if {"avx512_vnni", "amx_int8"} & set(features) else 0
    found = Table(title="tokens/s in all; ratios are ours to theirs", title_justify="left")
    for heading in ("chats", "context", *medians, *(f"to {peer}" for peer in medians if peer != "ours")):
        found.add_column(heading, justify="right")
    found.add_column("least, aim (llama.cpp)", justify="right")
    for key, ours in medians["ours"].items():
        rates = [medians[name].get(key) for name in medians]
        ratios = [f"{ours / rate:.2f}x" if rate else "-" for rate in rates[1:]]
        wanted = f"{WANTED[key][least]}x, {WANTED[key][2]}x" if key in WANTED else ""
        found.add_row(*map(str, key), *(f"{rate:.0f}" if rate else "-" for rate in rates), *ratios, wanted)
    return found


def printed(found: Table) -> None:
    """Print a table whole, also into a file, where rich would cut it at 80 characters."""
    wide = Console(width=1_000).measure(found).maximum
    Console(width=max(Console().width, wide)).print(found, *cpu())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llamacpp", metavar="PYTHON")
    parser.add_argument("--gguf", type=Path, help="the model for llama.cpp; the bundled one by default")
    parser.add_argument("--openvino", metavar="PYTHON")
    parser.add_argument("--openvino-model", metavar="DIRECTORY", default="")
    parser.add_argument("--original", metavar="PYTHON")
    parser.add_argument("--original-model", metavar="DIRECTORY", default="")
    parser.add_argument("--chats", type=int, nargs="+", default=[1, 16, 32])
    parser.add_argument("--contexts", type=int, nargs="+", default=[40, 600])
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    for peer in ("openvino", "original"):
        if vars(given)[peer] and not vars(given)[f"{peer}_model"]:
            parser.error(f"--{peer} needs --{peer}-model")
    seen: dict[str, dict[Key, list[float]]] = defaultdict(lambda: defaultdict(list))
    for number in range(given.rounds):
        for name, command in commands(given).items():
            sys.stderr.write(f"round {number + 1} of {given.rounds}: {name}\n")
            for key, rate in rows(command, {**os.environ}).items():
                seen[name][key].append(rate)
    medians = {name: {key: statistics.median(rates) for key, rates in found.items()} for name, found in seen.items()}
    if given.json:
        listed = {name: [[*key, rate] for key, rate in found.items()] for name, found in medians.items()}
        print(json.dumps(listed, indent=2))
    else:
        printed(table(medians))


if __name__ == "__main__":
    main()
