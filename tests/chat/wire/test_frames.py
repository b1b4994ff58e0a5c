from __future__ import annotations

import re
from pathlib import Path
from uuid import uuid4

import msgspec
import pytest

import chat
from chat.errors import (
    SENTENCES,
    BadFrame,
    BadParent,
    HistoryUnavailable,
    NotFound,
    NothingToContinue,
    RateLimited,
    Restarting,
    TurnInProgress,
)
from chat.wire import codec
from chat.wire.codec import encode, parse
from chat.wire.frames import GenerationQueued, MessageSend
from llm.errors import REQUEST_ERRORS

WORDS = Path(chat.__file__).parent / "static/chat/js/language/words.js"


@pytest.mark.parametrize(
    ("text", "code", "id"),
    [
        ("", "bad_frame", None),
        ("not JSON", "bad_frame", None),
        ("[]", "bad_frame", None),
        ("null", "bad_frame", None),
        ('{"type": "ping"}', "bad_frame", None),
        ('{"type": "ping", "id": ""}', "bad_frame", None),
        ('{"type": "ping", "id": 7}', "bad_frame", None),
        ('{"type": "ping", "id": "%s"}' % ("x" * 65), "bad_frame", None),
        ('{"type": "ping", "id": "a\\u0000"}', "bad_frame", "a\0"),
        ('{"id": "a"}', "bad_frame", "a"),
        ('{"type": "pong", "id": "a"}', "bad_frame", "a"),
        ('{"type": ["ping"], "id": "a"}', "bad_frame", "a"),
        ('{"type": "message.send", "id": "a"}', "bad_frame", "a"),
        ('{"type": "message.send", "id": "a", "text": 5}', "bad_frame", "a"),
        ('{"type": "message.send", "id": "a", "text": "x\\u0000y"}', "bad_frame", "a"),
        ('{"type": "message.send", "id": "a", "text": "\\ud800"}', "bad_frame", None),
        ('{"type": "message.send", "id": "a", "text": "x", "conversation": "1"}', "bad_frame", "a"),
        ('{"type": "message.send", "id": "a", "text": "x", "params": {"temperature": 9}}', "bad_frame", "a"),
        ('{"type": "message.send", "id": "a", "text": "x", "params": {"heat": 1}}', "bad_frame", "a"),
        ('{"type": "message.send", "id": "a", "text": "x", "unheard_of": true}', "bad_frame", "a"),
        ('{"type": "generation.stop", "id": "a", "generation": null}', "bad_frame", "a"),
        ("[" * 60_000, "bad_frame", None),
        ('{"id": "a", "type": ' + '{"a":' * 10_000, "bad_frame", None),
        ('{"type": "message.send", "id": "a", "text": "x", "settings": {"stop": ' + "[" * 60_000, "bad_frame", None),
        ('{"type": ' + "[" * 100_000, "too_large", None),
        ('{"type": "ping", "id": "a", "x": "%s"}' % ("x" * 70_000), "too_large", "a"),
        ('{"type": "ping", "id": "a", "x": "%s"}' % ("あ" * 22_000), "too_large", "a"),
    ],
)
def test_parse_refuses_with_a_code_and_the_id_if_there_is_one(text: str, code: str, id: str | None) -> None:
    with pytest.raises(BadFrame) as refused:
        parse(text)
    assert refused.value.code == code
    assert refused.value.id == (msgspec.UNSET if id is None else id)
    assert refused.value.message


def test_parse_tells_an_absent_parent_from_null() -> None:
    absent = parse('{"type": "message.send", "id": "a", "text": "x"}')
    null = parse('{"type": "message.send", "id": "a", "text": "x", "parent": null}')
    assert isinstance(absent, MessageSend)
    assert isinstance(null, MessageSend)
    assert absent.parent is msgspec.UNSET
    assert null.parent is None


def test_parse_takes_every_parameter() -> None:
    text = """{"type": "message.send", "id": "a", "text": "x", "params": {
        "temperature": 0.5, "top_p": 0.9, "top_k": 40, "min_p": 0.1, "repetition_penalty": 1.1,
        "repetition_penalty_method": "subtractive", "presence_penalty": 0.5, "frequency_penalty": -0.5, "seed": 7,
        "stop": ["END"], "max_new_tokens": 20, "logit_bias": {"15": -100, "3": 2.5}}}"""
    frame = parse(text)
    assert isinstance(frame, MessageSend)
    assert None not in msgspec.structs.astuple(frame.params)
    assert frame.params.logit_bias == {15: -100.0, 3: 2.5}


def test_encode_keeps_a_null_that_says_something() -> None:
    key = uuid4()
    frame = GenerationQueued(generation=key, position=1, size=2, eta=None)
    assert msgspec.json.decode(encode(frame)) == {
        "type": "generation.queued",
        "generation": str(key),
        "position": 1,
        "size": 2,
        "eta": None,
    }


def test_every_error_that_can_reach_a_visitor_has_a_sentence() -> None:
    codes = (
        {each.code for each in (NotFound, NothingToContinue, TurnInProgress, BadParent, HistoryUnavailable, Restarting)}
        | set(REQUEST_ERRORS)
        | {RateLimited.code}
    )
    assert codes <= set(SENTENCES)
    assert codec.error("overloaded", retry_after=2).message == SENTENCES["overloaded"]


def test_the_page_has_words_for_exactly_the_codes_of_the_wire_and_for_no_answer_at_all() -> None:
    table = re.search(r"const CODES = \{(.*?)\};", WORDS.read_text(), re.S)
    assert table is not None
    assert set(re.findall(r"^  (\w+):", table[1], re.M)) == {*SENTENCES, "unreachable"}
