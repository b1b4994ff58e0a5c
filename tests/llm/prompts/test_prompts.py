"""Prompt classes: what the original's classes rely on, and the chat template."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from llm.errors import ConfigurationError
from llm.prompts import ChatPrompt, ChatTemplatePrompt, PromptTTL, RoleType, load_prompt_class
from llm.request import ChatMessage
from tests.llm.prompts.redpajama import ChatPromptRedpajamaIncite


class Plain(ChatPrompt):
    def create_prompt(self, opts=None):
        return self.system + "".join(f"{c.role}: {c.message or ''}\n" for c in self.get_contents(opts))


def test_class_of_the_original_runs_unchanged() -> None:
    prompt = ChatPromptRedpajamaIncite()
    prompt.set_requester("<human>")
    prompt.set_responder("<bot>")
    prompt.add_requester_msg("Who is Alan Turing")
    prompt.add_responder_msg(None)
    assert (
        prompt.create_prompt()
        == """<human>: Who is Alan Turing
<bot>:"""
    )
    assert prompt.stop_strings() == ("<|endoftext|>", "\n<")
    prompt.set_chat_mode_enabled(False)
    assert prompt.create_prompt() == "Who is Alan Turing"
    assert prompt.stop_strings() == ()


def test_class_of_the_original_loads_by_its_path() -> None:
    assert load_prompt_class("tests.llm.prompts.redpajama.ChatPromptRedpajamaIncite") is not None
    assert load_prompt_class("") is ChatTemplatePrompt


@pytest.mark.parametrize(
    "path", ["no.such.Class", "llm.prompts.NoClass", "Class", "llm.request.ChatMessage", "tests.llm..x"]
)
def test_path_that_leads_nowhere_is_one_line(path: str) -> None:
    with pytest.raises(ConfigurationError, match="LLM_PROMPT=") as error:
        load_prompt_class(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("code", ["1 / 0", "def", "raise SystemError('two\\nlines')"])
def test_a_module_that_fails_as_it_is_imported_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    name = f"prompts_{abs(hash(code))}"
    (tmp_path / f"{name}.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigurationError, match=f"LLM_PROMPT={name}.Prompt: .*Error") as error:
        load_prompt_class(f"{name}.Prompt")
    assert "\n" not in str(error.value)


def test_set_messages_writes_each_text_once_and_opens_the_answer() -> None:
    prompt = Plain()
    prompt.set_requester("U")
    prompt.set_responder("A")
    prompt.set_messages(
        [
            ChatMessage("system", "Be kind.\n"),
            ChatMessage("user", "Q1"),
            ChatMessage("assistant", "A1"),
            ChatMessage("user", "Q2"),
        ]
    )
    assert prompt.create_prompt() == "Be kind.\nU: Q1\nA: A1\nU: Q2\nA: \n"
    assert prompt.get_turn() == 2


def test_a_cut_off_answer_fills_the_open_place() -> None:
    prompt = ChatPromptRedpajamaIncite()
    prompt.set_requester("<human>")
    prompt.set_responder("<bot>")
    prompt.set_messages([ChatMessage("user", "Who?"), ChatMessage("assistant", " Alan")])
    assert prompt.render() == prompt.create_prompt() + " Alan" == "<human>: Who?\n<bot>: Alan"
    prompt.set_messages([ChatMessage("user", "Who?")])
    assert prompt.render() == "<human>: Who?\n<bot>:"


def test_equal_role_names_do_not_confuse_who_spoke() -> None:
    prompt = Plain()
    prompt.set_requester("X")
    prompt.set_responder("X")
    prompt.set_messages([ChatMessage("user", "Q1"), ChatMessage("assistant", "A1"), ChatMessage("user", "Q2")])
    assert prompt.get_requester_last_msg() == "Q2"
    assert [content.role_type for content in prompt.chat_contents] == [
        RoleType.REQUESTER,
        RoleType.RESPONDER,
        RoleType.REQUESTER,
        RoleType.RESPONDER,
    ]


def test_single_turn_shows_the_last_question_only() -> None:
    prompt = Plain()
    prompt.set_prompt_ttl(PromptTTL.SINGLE_TURN)
    prompt.set_messages([ChatMessage("user", "Q1"), ChatMessage("assistant", "A1"), ChatMessage("user", "Q2")])
    assert prompt.create_prompt() == ": Q2\n: \n"


def test_input_replacements_and_the_prefix_as_stop_string() -> None:
    class Rinna(Plain):
        def get_replacement_when_input(self):
            return [("\n", "<NL>")]

    prompt = Rinna()
    prompt.set_requester("User")
    prompt.set_prefix_as_stop_str_enabled(True)
    prompt.set_messages([ChatMessage("user", "a\nb")])
    assert prompt.get_requester_last_msg() == "a<NL>b"
    assert prompt.stop_strings() == ("User:",)


def test_initial_prompt_stands_before_the_conversation() -> None:
    class FewShot(Plain):
        def build_initial_prompt(self, chat_prompt):
            chat_prompt.add_requester_msg("1+1?")
            chat_prompt.add_responder_msg("2")

    prompt = FewShot()
    prompt.set_messages([ChatMessage("user", "2+2?")])
    assert [content.message for content in prompt.chat_contents] == ["1+1?", "2", "2+2?", None]


def test_editing_and_finding_messages() -> None:
    prompt = Plain()
    assert prompt.is_empty()
    prompt.add_requester_msg("Q", child_message="context")
    prompt.add_responder_msg("A")
    asked = prompt.get_requester_last_msg_id()
    assert asked is not None
    found = prompt.find_chat_content_by_message_id(asked)
    assert found is not None
    assert found.get_child_messages() == ["context"]
    assert [content.message for content in prompt.get_contents({"to_message_id": asked})] == ["Q"]
    assert [content.message for content in prompt.get_contents({"omit_last_message": True})] == ["Q"]
    prompt.clear_last_responder_message()
    assert prompt.get_responder_last_msg() is None
    prompt.remove_last_requester_msg()
    assert len(prompt.chat_contents) == 2
    prompt.remove_last_responder_msg()
    prompt.remove_last_requester_msg()
    assert prompt.is_empty()


def test_conversation_survives_to_dict_and_back() -> None:
    prompt = Plain()
    prompt.set_system("S")
    prompt.add_requester_msg("Q", child_messages=["c1", "c2"])
    prompt.add_responder_msg(None)
    copy = Plain()
    copy.from_dict(prompt.to_dict())
    assert copy.to_dict() == prompt.to_dict()


def test_prompt_classes_import_without_django_and_torch() -> None:
    program = (
        "import sys, llm.prompts, tests.llm.prompts.redpajama\n"
        "heavy = {'django', 'torch', 'transformers', 'channels', 'tokenizers'}\n"
        "sys.exit(', '.join(heavy & set(sys.modules)) or None)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
