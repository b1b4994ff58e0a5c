"""Whatever a model's chat template is like, the model is asked what was meant."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from llm.errors import ConfigurationError
from tests.llm.prompts import templates
from tests.llm.prompts.rendered import Shown
from tests.llm.tokenizers import END, byte_level

ENDOFTEXT, START = 0, 1
WITHOUT_SYSTEM = {"gemma": "model\n", "mistral": "", "forgetful": ""}


def with_bos() -> Any:
    tokenizer = byte_level()
    tokenizer.bos_token = "<|endoftext|>"
    return tokenizer


@pytest.mark.parametrize("name", templates.ALL)
@pytest.mark.parametrize("operators", [True, False], ids=["operator's", "visitor's"])
def test_the_system_prompt_is_said_once_whatever_the_template(name: str, operators: bool) -> None:
    """The operator's, and that of a conversation; in its first turn, and later."""
    shown = Shown(with_bos(), templates.ALL[name], system_prompt="Be kind." if operators else "")
    for texts in (["hello"], ["hello", "hi", "who?"], ["hello", "hi", "who?", "I am"]):
        text = shown.text(*texts, system="" if operators else "Be kind.")
        assert text.count("Be kind.") == 1
        assert text.index("Be kind.") < text.index("hello")
        assert all(text.count(said) == 1 for said in texts[1:])


@pytest.mark.parametrize("name", WITHOUT_SYSTEM)
def test_where_a_template_takes_none_it_goes_before_the_first_question(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    shown = Shown(with_bos(), templates.ALL[name], system_prompt="Be kind.")
    text = shown.text("hello", "hi", "who?")
    assert "Be kind.\n\nhello" in text
    for _ in range(3):
        shown.text("hello", system="Be brief.")
    said = [record for record in caplog.records if "takes no system message" in record.message]
    assert [record.levelname for record in said] == ["WARNING"]


def test_where_a_template_takes_one_nothing_is_said(caplog: pytest.LogCaptureFixture) -> None:
    assert "<|im_start|>system\nBe kind.<|im_end|>" in Shown(byte_level(), system_prompt="Be kind.").text("hello")
    assert not caplog.records


def test_when_the_oldest_turn_is_left_out_the_system_prompt_is_not() -> None:
    shown = Shown(with_bos(), templates.GEMMA, system_prompt="Be kind.", max_new_tokens=20)
    prepared = shown.prepared("old " * 40, "yes", "old " * 40, "yes", "who?", context=150)
    assert prepared.left_out > 0
    assert "Be kind.\n\n" in shown.tokenizer.decode(prepared.tokens)


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("{{ messages[0].content | no_such_filter }}", "no_such_filter"),
        ("{{ no_such_function(messages) }}", "no_such_function"),
        ("{% if messages %}{{ messages[0].content }}", "TemplateSyntaxError"),
        ("{% for m in messages %}{{ m.content if m.role == 'user' else answered(m) }}{% endfor %}", "answered"),
        ({"tool_use": templates.CHATML, "rag": templates.CHATML}, "multiple chat templates"),
    ],
    ids=["filter", "function", "unclosed", "in the second turn", "names without a default"],
)
def test_a_template_that_cannot_be_rendered_is_one_line_at_start(template: Any, why: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"^LLM_MODEL=test: its chat template .*{why}") as caught:
        Shown(byte_level(), template)
    assert "\n" not in str(caught.value)
    assert "set LLM_PROMPT" in str(caught.value)


def test_named_templates_with_a_default() -> None:
    shown = Shown(byte_level(), {"tool_use": "no", "default": templates.CHATML})  # type: ignore[arg-type]
    assert shown.text("hello") == "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n"


def test_todays_date_and_marks_for_training() -> None:
    text = Shown(with_bos(), templates.LLAMA3).text("hello")
    assert f"Today Date: {datetime.now().strftime('%d %b %Y')}" in text
    assert text.endswith("<|im_start|>user\n\nhello<|im_end|><|im_start|>assistant\n\n")


def test_a_system_prompt_that_is_no_text_is_one_line_at_start() -> None:
    """An environment can have any bytes."""
    with pytest.raises(ConfigurationError, match="^LLM_SYSTEM_PROMPT: is not valid UTF-8"):
        Shown(byte_level(), system_prompt=b"\xff".decode(errors="surrogateescape"))


# The tokens that end an answer


@pytest.mark.parametrize(
    ("name", "named", "ends"),
    [
        ("chatml", {ENDOFTEXT}, {ENDOFTEXT, END}),
        ("gemma", {ENDOFTEXT}, {ENDOFTEXT, END}),
        ("qwen3", {ENDOFTEXT}, {ENDOFTEXT, END}),
        ("llama3", {ENDOFTEXT}, {ENDOFTEXT, END}),
        ("pieces", {ENDOFTEXT}, {ENDOFTEXT, END}),
        ("chatml", set(), {END}),
        ("chatml", {END}, {END}),
        ("gpt-oss", {ENDOFTEXT}, {ENDOFTEXT}),
        ("gpt-oss", set(), {ENDOFTEXT, END}),
    ],
)
def test_an_answer_ends_where_the_template_ends_turns(name: str, named: set[int], ends: set[int]) -> None:
    shown = Shown(with_bos(), templates.ALL[name], ends=named)
    assert shown.prepared("hello").stop_tokens == ends


def test_the_next_turn_of_a_template_without_ends_is_the_end() -> None:
    """GLM 4: an answer is followed by the token that begins the next question."""
    template = "{% for m in messages %}<|im_start|>{{ m.content }}\n{% endfor %}"
    assert Shown(byte_level(), template, ends={ENDOFTEXT}).prepared("hello").stop_tokens == {ENDOFTEXT, START}


def test_text_after_an_answer_is_no_end() -> None:
    template = "{% for m in messages %}{{ m.content }} and <|im_end|>{% endfor %}"
    assert Shown(byte_level(), template, ends={ENDOFTEXT}).prepared("hello").stop_tokens == {ENDOFTEXT}


def test_the_end_may_be_an_added_token_that_nobody_called_special() -> None:
    tokenizer = byte_level()
    tokenizer.add_tokens(["<end>"])
    shown = Shown(tokenizer, templates.CHATML.replace("<|im_end|>", "<end>"), ends={ENDOFTEXT})
    end = tokenizer.convert_tokens_to_ids("<end>")
    assert shown.prepared("hello").stop_tokens == {ENDOFTEXT, end}
    assert shown.tokens("say <end> now").count(end) == shown.tokens("say it now").count(end) == 1
    assert "say <end> now" in shown.text("say <end> now")
