"""The table beside other engines: whose figure stands where, and what the ratios are."""

from __future__ import annotations

import argparse
import json
import sys
from io import StringIO

import pytest
from rich.console import Console

from tests.load.peers import compare


def printing(**rates: float) -> list[str]:
    rows = [
        {"name": "throughput", "of": {"chats": int(key[1:]), "context": 40}, "values": {"tokens_per_second": rate}}
        for key, rate in rates.items()
    ]
    document = json.dumps({"rows": [*rows, {"name": "cancel", "of": {}, "values": {}}]})
    return [sys.executable, "-c", f"print({document!r})"]


def test_ratios(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "cpu", lambda: ("a machine", ["avx2", "avx512_vnni"]))
    ours, theirs = (compare.rows(printing(**rates), {}) for rates in ({"n1": 60, "n16": 600}, {"n16": 240}))
    assert ours == {(1, 40): 60, (16, 40): 600}
    out = StringIO()
    Console(file=out, width=120).print(compare.table({"ours": ours, "llama.cpp": theirs}))
    lines = [line.replace(" ", "").strip("│") for line in out.getvalue().splitlines() if "│" in line]
    assert lines == ["1│40│60│-│-│0.45x,0.65x", "16│40│600│240│2.50x│1.6x,2.5x"]


def test_only_the_peers_that_are_there_are_run() -> None:
    given = argparse.Namespace(
        llamacpp="/x/python", gguf="/m.gguf", openvino=None, original=None, chats=[1], contexts=[40], tokens=8
    )
    found = compare.commands(given)
    assert list(found) == ["ours", "llama.cpp"]
    assert found["llama.cpp"][0] == "/x/python"
    assert found["llama.cpp"][2:] == ["/m.gguf", "--chats", "1", "--contexts", "40", "--tokens", "8"]
