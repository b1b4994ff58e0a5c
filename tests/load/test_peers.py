"""The table beside other engines: whose figure stands where, and what the ratios are."""

from __future__ import annotations

import argparse
import ast
import json
import sys
from io import StringIO
from pathlib import Path

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


def test_the_table_is_whole_in_a_file_too(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    rates = {name: {(1, 40): 60.0, (16, 40): 600.0} for name in ("ours", "llama.cpp", "OpenVINO", "original")}
    compare.printed(compare.table(rates))
    headings = ("chats", "context", *rates, "to llama.cpp", "to OpenVINO", "to original", "least, aim (llama.cpp)")
    lines = capsys.readouterr().out.splitlines()
    assert tuple(cell.strip() for cell in lines[2].strip("┃ ").split("┃")) == headings


def imported(script: Path) -> set[str]:
    """The packages that a script imports, at any place in it."""
    nodes = list(ast.walk(ast.parse(script.read_text())))
    plain = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names = plain + [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
    return {name.partition(".")[0] for name in names}


def test_no_peer_hides_a_package_that_peers_import() -> None:
    scripts = [path for path in compare.HERE.glob("*.py") if path.stem not in ("__init__", "compare")]
    assert len(scripts) == 3
    names = {path.stem for path in compare.HERE.glob("*.py")}
    assert {path.name: imported(path) & names for path in scripts if imported(path) & names} == {}


def test_every_peer_that_can_be_run_is_a_script_that_is_there() -> None:
    python = dict.fromkeys(("llamacpp", "openvino", "original"), "/x/python")
    models = {"gguf": "/m.gguf", "openvino_model": "/ov", "original_model": "/m"}
    found = compare.commands(argparse.Namespace(**python, **models, chats=[1], contexts=[40], tokens=8))
    ran = {Path(command[1]): command[2] for peer, command in found.items() if peer != "ours"}
    assert all(path.exists() for path in ran)
    assert list(ran.values()) == ["/m.gguf", "/ov", "/m"]


@pytest.mark.parametrize("peer", ["openvino", "original"])
def test_a_peer_without_its_model_is_a_line(
    peer: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["compare", f"--{peer}", "/x/python"])
    with pytest.raises(SystemExit):
        compare.main()
    assert f"--{peer} needs --{peer}-model" in capsys.readouterr().err


def test_only_the_peers_that_are_there_are_run() -> None:
    given = argparse.Namespace(
        llamacpp="/x/python", gguf="/m.gguf", openvino=None, original=None, chats=[1], contexts=[40], tokens=8
    )
    found = compare.commands(given)
    assert list(found) == ["ours", "llama.cpp"]
    assert found["llama.cpp"][0] == "/x/python"
    assert found["llama.cpp"][2:] == ["/m.gguf", "--chats", "1", "--contexts", "40", "--tokens", "8"]
