"""The map in the README shows the tree as it is, and every file that a message passes."""

from __future__ import annotations

import re

from tests.readme import README

ROOT = README.parent
APPS = ("chatsite", "chat", "llm")


def section() -> str:
    found = re.search(r"^## How it works\n(.*?)^## ", README.read_text(), re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


def shown() -> set[str]:
    """The folders of the tree: a name that ends in a slash, two blanks in for each level."""
    tree = re.search(r"^```\n(chatsite/.*?)^```", section(), re.MULTILINE | re.DOTALL)
    assert tree is not None
    folders: set[str] = set()
    above: list[str] = []
    for blanks, name in re.findall(r"^( *)([\w.]+/) ", tree[1], re.MULTILINE):
        above = [*above[: len(blanks) // 2], name]
        folders.add("".join(above).rstrip("/"))
    return folders


def packages() -> set[str]:
    """The apps and the packages in them."""
    found = {path.parent for app in APPS for path in ROOT.glob(f"{app}/*/__init__.py")}
    inside = {path.relative_to(ROOT).as_posix() for path in found if path.name not in ("migrations", "templatetags")}
    return {*APPS, *inside}


def test_the_tree_shows_every_package_and_no_other() -> None:
    assert shown() == packages() | {"chat/static"}


def test_the_path_of_a_message_leads_through_files_that_are_there() -> None:
    named = re.findall(r"`((?:chatsite|chat|llm|tests)/[\w./]+)`", section())
    assert len(named) > 20
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_no_folder_is_so_full_that_nothing_is_found_in_it() -> None:
    modules = [path.parent for app in APPS for kind in ("py", "js") for path in (ROOT / app).rglob(f"*.{kind}")]
    folders = {folder for folder in modules if "node_modules" not in folder.parts}
    full = {folder.relative_to(ROOT).as_posix(): modules.count(folder) for folder in folders}
    assert {folder: count for folder, count in full.items() if count > 16} == {}
