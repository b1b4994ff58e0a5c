"""Files that can be made again are deleted when nobody uses them any more, and never while they may be in use."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

import pytest

from llm import diskcache
from llm.backends.forward import KEPT, forward
from llm.conf import Settings
from llm.loading.loader import LoadedModel
from tests.llm.engine.test_step import prompt
from tests.llm.models import tiny

DAY = 24 * 3600.0


def last_used(path: Path, days: float) -> Path:
    then = time.time() - days * DAY
    os.utime(path, (then, then))
    return path


def file(folder: Path, name: str, days: float) -> Path:
    (folder / name).write_text("text")
    return last_used(folder / name, days)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_last_used_stay(tmp_path: Path) -> None:
    files = [file(tmp_path, name, days) for name, days in (("a", 5), ("b", 2), ("c", 9), ("d", 3))]
    diskcache.tidy(files, 2)
    assert names(tmp_path) == ["b", "d"]
    diskcache.tidy(files, 2)
    assert names(tmp_path) == ["b", "d"], "what is gone counts for nothing"


def test_what_was_used_lately_stays_however_many_there_are(tmp_path: Path) -> None:
    files = [file(tmp_path, str(number), 3) for number in range(3)]
    diskcache.used(files[1])
    file(tmp_path, "lately", 0.9)
    diskcache.tidy(tmp_path.iterdir())
    assert names(tmp_path) == ["1", "lately"]


def test_a_file_that_is_open_can_be_read_on(tmp_path: Path) -> None:
    with file(tmp_path, "a", 3).open() as reading:
        assert reading.read(1) == "t"
        diskcache.tidy(tmp_path.iterdir())
        assert names(tmp_path) == []
        assert reading.read() == "ext"


def test_half_a_folder_is_never_found_under_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is killed on the way leaves what the next one deletes."""
    folder = tmp_path / "model-1"
    folder.mkdir()
    file(folder, "weights", 3)
    with monkeypatch.context() as patch:
        patch.setattr(diskcache.shutil, "rmtree", _killed)
        with pytest.raises(KeyboardInterrupt):
            diskcache.tidy([last_used(folder, 3)])
    assert names(tmp_path) == ["model-1.going"]
    diskcache.tidy([tmp_path / "model-1.going"])
    assert names(tmp_path) == []


def _killed(*_: object) -> None:
    raise KeyboardInterrupt


def test_what_cannot_be_deleted_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(_: Path) -> None:
        raise PermissionError("not yours")

    monkeypatch.setattr(Path, "unlink", refuse)
    with caplog.at_level(logging.INFO):
        diskcache.tidy([file(tmp_path, "a", 3), file(tmp_path, "b", 3)])
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]


def test_step_programs_and_choices_of_old_are_deleted(tmp_path: Path) -> None:
    """What a start used stays, if it was made long ago or now."""
    loaded = LoadedModel("tiny", tiny(), lambda _: {"input_ids": prompt(64)})  # type: ignore[arg-type]
    settings, folder = Settings(var=str(tmp_path), device="cpu"), tmp_path / "programs"
    forward(settings, loaded, 100, lambda *_: None)
    mine = names(folder)
    assert [name.split(".")[1] for name in mine] == ["safetensors", "py"]
    old = [file(folder, f"{number}.{kind}", 2 + number) for number in range(KEPT) for kind in ("py", "safetensors")]
    file(folder, "half.partial", 2)
    for name in mine:
        last_used(folder / name, 100)
    forward(settings, loaded, 100, lambda *_: None)
    assert names(folder) == sorted(mine + [path.name for path in old[:-2]])
