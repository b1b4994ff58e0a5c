"""What may be imported where, beyond what the import contracts in pyproject.toml can say."""

from __future__ import annotations

import subprocess
import sys

import llm


def loaded_after(program: str) -> set[str]:
    """The top-level modules in a fresh interpreter that ran `program`."""
    printed = subprocess.run(
        [sys.executable, "-c", f"{program}\nimport sys\nprint(*{{name.split('.')[0] for name in sys.modules}})"],
        check=True,
        capture_output=True,
        text=True,
    )
    return set(printed.stdout.split())


def test_web_side_never_loads_torch() -> None:
    web = (
        "import os\nos.environ['DJANGO_SETTINGS_MODULE'] = 'chatsite.settings'\n"
        "import chatsite.asgi, chat.consumers, chat.views, chat.admin, chatsite.server.server, llm.service.client\n"
    )
    assert not loaded_after(web) & {"torch", "transformers", "tokenizers", "numpy"}


def test_public_surface_of_llm_is_cheap_and_complete() -> None:
    assert not loaded_after("import llm, llm.service.client") & {"django", "torch", "transformers", "channels"}
    assert sorted(llm._HOME) == llm.__all__
    for name in llm.__all__:
        assert getattr(llm, name) is not None


def test_service_knows_no_django() -> None:
    assert not loaded_after("import llm.service.__main__, llm.service.server, llm.backends.synthetic") & {
        "django",
        "channels",
        "torch",
    }
