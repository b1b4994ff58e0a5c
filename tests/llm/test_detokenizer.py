"""Tokens become the text of brute-force references, for any text and any token borders."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from llm.detokenizer import IncrementalDecoder, Replacer, StopStrings, TextStream, held_back, token_decoder
from tests.llm.tokenizers import END, ByteTokenizer, byte_fallback, byte_level, panicking

BYTE_LEVEL, BYTE_FALLBACK = byte_level(), byte_fallback()
FAST = pytest.mark.parametrize("tokenizer", [BYTE_LEVEL, BYTE_FALLBACK], ids=["byte-level", "byte-fallback"])
TEXTS = st.text(st.one_of(st.sampled_from("ab \n<>日本é😀👩‍👩‍👧\ufffd"), st.characters(codec="utf-8")), max_size=30)
FEW = st.text("abc", max_size=12)
STOPS = st.lists(st.text("abc", min_size=1, max_size=4), max_size=4)


@st.composite
def pieces(draw: st.DrawFn, texts: st.SearchStrategy[str] = FEW) -> list[str]:
    text = draw(texts)
    borders = sorted(draw(st.sets(st.integers(0, len(text)))))
    return [text[a:b] for a, b in zip([0, *borders], [*borders, len(text)], strict=True)]


def cut_at_stop(text: str, stops: Sequence[str]) -> tuple[str, bool]:
    """Character by character: the first stop string to be complete ends the text where it begins."""
    for end in range(1, len(text) + 1):
        found = [end - len(stop) for stop in stops if text[:end].endswith(stop)]
        if found:
            return text[: min(found)], True
    return text, False


def streamed(stream: TextStream, tokens: Sequence[int]) -> list[str]:
    shown = []
    for token in tokens:
        shown.append(stream.push(token))
        if stream.stopped:
            break
    return [*shown, stream.end()]


@FAST
@given(text=TEXTS)
def test_decoding_any_text(tokenizer: Any, text: str) -> None:
    tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
    shown = streamed(TextStream(tokenizer), tokens)
    assert "".join(shown) == tokenizer.decode(tokens).replace("\0", "").rstrip("\ufffd")


@FAST
@given(data=st.data())
def test_decoding_any_tokens(tokenizer: Any, data: st.DataObject) -> None:
    """Whatever a model says: bytes that are no character among them, special tokens, an end within a character."""
    tokens = data.draw(st.lists(st.integers(0, len(tokenizer) - 1), max_size=20))
    shown = "".join(streamed(TextStream(tokenizer), tokens))
    if tokenizer is BYTE_LEVEL:  # with byte fallback a bad byte spoils those before it, which were shown already
        assert shown.rstrip("\ufffd") == tokenizer.decode(tokens, skip_special_tokens=True).replace("\0", "").rstrip(
            "\ufffd"
        )


@FAST
@given(text=TEXTS.filter(lambda text: "\ufffd" not in text), data=st.data())
def test_decoding_goes_on_with_a_text(tokenizer: Any, text: str, data: st.DataObject) -> None:
    """An answer that was cut off and goes on has the spaces it would have had."""
    tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
    border = data.draw(st.integers(0, len(tokens)))
    before, after = tokenizer.decode(tokens[:border]), tokenizer.decode(tokens)
    assume(not before.endswith("\ufffd"))
    shown = streamed(TextStream(tokenizer, before=tokens[:border]), tokens[border:])
    assert before.replace("\0", "") + "".join(shown) == after.replace("\0", "")


EMOJI = ["<0xF0>", "<0x9F>", "<0x98>", "<0x80>"]


@pytest.mark.parametrize(
    "before", [["▁", "i"], ["▁", "i", "<0xF0>"], ["▁", "i", *EMOJI], ["▁", "i", "<|im_end|>"]], ids=str
)
def test_a_word_after_a_text_keeps_its_space(before: list[str]) -> None:
    known = BYTE_FALLBACK.convert_tokens_to_ids
    shown = streamed(TextStream(BYTE_FALLBACK, before=known(before)), known(["▁a", "▁th"]))
    assert "".join(shown) == " a th"


def test_a_word_after_bad_bytes_keeps_its_space() -> None:
    tokens = BYTE_FALLBACK.convert_tokens_to_ids(["▁", "i", *EMOJI, "<0xF0>", "▁a"])
    assert "".join(streamed(TextStream(BYTE_FALLBACK), tokens)) == "i😀 a"


@given(text=TEXTS)
def test_decoding_without_a_backend(text: str) -> None:
    shown = streamed(TextStream(ByteTokenizer()), text.encode())
    assert "".join(shown) == text.replace("\0", "").rstrip("\ufffd")


def test_python_tokenizer_gets_the_incremental_decoder() -> None:
    assert isinstance(token_decoder(ByteTokenizer()), IncrementalDecoder)


@FAST
def test_no_half_characters(tokenizer: Any) -> None:
    tokens = tokenizer("😀", add_special_tokens=False)["input_ids"]
    shown = streamed(TextStream(tokenizer), tokens)
    assert [text for text in shown if text] == ["😀"]
    assert "".join(streamed(TextStream(tokenizer), tokens[:-1])) == ""


def test_incremental_decoder_is_linear() -> None:
    """It never decodes more than the tokens of the last two characters."""
    lengths = []

    class Counting(ByteTokenizer):
        def decode(self, tokens: list[int], **_: Any) -> str:
            lengths.append(len(tokens))
            return super().decode(tokens)

    streamed(TextStream(Counting()), ("日" * 100).encode())
    assert max(lengths) <= 6


def test_special_tokens_have_no_text() -> None:
    tokens = [*BYTE_LEVEL("hello", add_special_tokens=False)["input_ids"], END]
    assert "".join(streamed(TextStream(BYTE_LEVEL), tokens)) == "hello"


@given(parts=pieces(), stops=STOPS)
def test_stop_strings_whatever_the_borders(parts: list[str], stops: list[str]) -> None:
    stop = StopStrings(stops)
    shown = [stop.push(part) for part in parts]
    expected, met = cut_at_stop("".join(parts), stops)
    assert ("".join(shown) + stop.flush(), stop.met) == (expected, met)


@given(parts=pieces(), stops=STOPS)
def test_stop_strings_hold_back_only_a_true_prefix(parts: list[str], stops: list[str]) -> None:
    stop, seen, shown = StopStrings(stops), "", ""
    for part in parts:
        seen, shown = seen + part, shown + stop.push(part)
        if stop.met:
            break
        held = seen.removeprefix(shown)
        assert shown + held == seen
        assert not held or any(s.startswith(held) and s != held for s in stops)


@given(parts=pieces(), old=st.text("abc", min_size=1, max_size=3), new=st.text("abX", max_size=3))
def test_replacing_whatever_the_borders(parts: list[str], old: str, new: str) -> None:
    replacer = Replacer(old, new)
    shown = "".join(replacer.push(part) for part in parts) + replacer.flush()
    assert shown == "".join(parts).replace(old, new)


@given(text=FEW, stops=STOPS, replacements=st.lists(st.tuples(st.text("abc", max_size=2), st.text("abX", max_size=2))))
def test_whole_stream(text: str, stops: list[str], replacements: list[tuple[str, str]]) -> None:
    """Stop strings are looked for in what the model said, replacements follow each other as str.replace would."""
    expected, _ = cut_at_stop(text, stops)
    for old, new in replacements:
        expected = expected.replace(old, new) if old else expected
    stream = TextStream(ByteTokenizer(), stops, replacements)
    assert "".join(streamed(stream, text.encode())) == expected


@FAST
@given(data=st.data())
def test_stop_strings_in_real_tokens(tokenizer: Any, data: st.DataObject) -> None:
    """Emoji, byte fallback, merges: what is shown is the text up to the stop string, wherever the token borders are."""
    text = data.draw(TEXTS.map(lambda text: text.replace("\ufffd", "").replace("\0", "")))
    tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
    said = tokenizer.decode(tokens)
    starts = st.integers(0, max(0, len(said) - 1)).map(lambda start: said[start : start + 3])
    stops = data.draw(st.lists(starts.filter(bool) | st.sampled_from(["é", "😀 ", "\n<"]), max_size=3)) if said else []
    stream = TextStream(tokenizer, stops)
    shown = "".join(streamed(stream, tokens))
    assert (shown, stream.stopped) == cut_at_stop(said, stops)


@pytest.mark.parametrize(
    ("said", "stop"), [("\n\nQ: and more", "\nQ:"), ("<<human>: hi", "<human>:"), ("END and more", "END")]
)
def test_stop_strings_the_original_missed(said: str, stop: str) -> None:
    for tokens in (list(said), [said]):
        finder = StopStrings([stop])
        assert "".join(map(finder.push, tokens)) + finder.flush() == said[: said.index(stop)]
        assert finder.met


def test_held_tail_is_flushed_at_a_normal_end() -> None:
    stream = TextStream(ByteTokenizer(), ["</answer>"], [("<", "[")])
    assert "".join(stream.push(token) for token in b"1 </ans") == "1 "
    assert stream.end() == "[/ans"


def test_nul_is_dropped() -> None:
    assert "".join(streamed(TextStream(ByteTokenizer(), ["ab"]), b"x\0a\0by")) == "x"


def test_held_back_is_the_longest_prefix() -> None:
    assert held_back("xaa", ["aab", "aaab"]) == 2
    assert held_back("xab", ["ab", "wxyz"]) == 0
    assert held_back("xab", []) == 0


# An answer that goes on where it was cut off


def cut_at_stop_after(shown: str, text: str, stops: Sequence[str]) -> tuple[str, bool]:
    """What comes after the shown text: it is not taken back, and what was all shown is no stop any more."""
    whole = shown + text
    for end in range(len(shown) + 1, len(whole) + 1):
        found = [end - len(stop) for stop in stops if whole[:end].endswith(stop)]
        if found:
            return whole[len(shown) : max(min(found), len(shown))], True
    return text, False


@given(shown=FEW, pieces=pieces(), stops=STOPS)
def test_a_stop_string_across_a_cut(shown: str, pieces: list[str], stops: list[str]) -> None:
    stop = StopStrings(stops, shown)
    found = "".join(map(stop.push, pieces)) + ("" if stop.met else stop.flush())
    assert (found, stop.met) == cut_at_stop_after(shown, "".join(pieces), stops)


@given(shown=FEW, pieces=pieces(), old=st.text("abc", min_size=1, max_size=4), new=st.text("abX", max_size=3))
def test_a_replacement_across_a_cut(shown: str, pieces: list[str], old: str, new: str) -> None:
    """The text is that of one without a cut, but that what was shown of a replaced string stays where it has to."""
    replacer = Replacer(old, new, shown)
    found = "".join(map(replacer.push, pieces)) + replacer.flush()
    text = "".join(pieces)
    held = next((i for i in range(min(len(old) - 1, len(shown)), 0, -1) if old.startswith(shown[-i:])), 0)
    at = (shown[len(shown) - held :] + text).find(old)
    if not 0 <= at < held:
        assert found == text.replace(old, new)
        return
    begun, rest = shown[len(shown) - held + at :], text[len(old) - (held - at) :]
    assert found == (new.removeprefix(begun) if new.startswith(begun) else new) + rest.replace(old, new)


@pytest.mark.parametrize(
    ("shown", "tokens", "text"),
    [
        ("Fine. Us", "Er: and you?", ""),
        ("Fine. Us", "ual", "ual"),
        ("Fine. Us", "", ""),
        ("Fine.", "Us", "Us"),
        ("a <N", "L>b", "\nb"),
        ("a <N", "o", "o"),
        ("the colo", "ur", "r"),
        ("UsEr: was no stop before. UsEr", ":", ""),
        ("UsEr: was no stop before.", " Fine", " Fine"),
    ],
)
def test_an_answer_goes_on_across_a_cut(shown: str, tokens: str, text: str) -> None:
    """Where it was cut, text was held back and then shown: what it was held back for is found all the same."""
    replacements = [("<NL>", "\n"), ("colour", "color")]
    stream = TextStream(ByteTokenizer(), ["UsEr:"], replacements, list(shown.encode()), shown)
    assert "".join(streamed(stream, list(tokens.encode()))) == text
    assert stream.stopped == (tokens.startswith(("Er:", ":")))


def test_a_decoder_that_panics_fails_as_an_exception() -> None:
    """What the library raises is none: it would end the engine's thread, and all answers."""
    tokenizer = byte_level()
    stream = TextStream(tokenizer)
    (blank,) = tokenizer(" ")["input_ids"]
    tokenizer.backend_tokenizer.decoder = panicking().backend_tokenizer.decoder
    with pytest.raises(RuntimeError, match="panicked"):
        TextStream(tokenizer, before=[blank])
    with pytest.raises(RuntimeError, match="panicked"):
        stream.push(blank)
