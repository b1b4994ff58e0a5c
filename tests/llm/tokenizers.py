"""Small tokenizers of the kinds that models come with, made here: nothing is downloaded."""

from __future__ import annotations

from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
END = 2
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def byte_level() -> PreTrainedTokenizerFast:
    """As GPT-2, Llama 3 and Qwen: a token is a few bytes of UTF-8, which need not be whole characters."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate((*SPECIAL, *alphabet))}
    merges = [("h", "e"), ("l", "l"), ("he", "ll"), ("hell", "o"), ("Ġ", "t"), ("ð", "Ł"), ("ðŁ", "ĺ")]
    for left, right in merges:
        vocabulary[left + right] = len(vocabulary)
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return _finished(tokenizer)


def byte_fallback() -> PreTrainedTokenizerFast:
    """As Llama 2 and Mistral: whole characters, `▁` for a space, bytes for what is not in the vocabulary."""
    tokens = [*SPECIAL, "<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *"abcdefghijklmnopqrstuvwxyz.,!日本"]
    merges = [("▁", "t"), ("▁t", "h"), ("▁th", "e"), ("o", "n"), ("▁", "a")]
    tokens += [left + right for left, right in merges]
    tokenizer = Tokenizer(
        models.BPE({t: i for i, t in enumerate(tokens)}, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return _finished(tokenizer)


def _finished(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    return _wrapped(tokenizer)


def _wrapped(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    fast.chat_template = TEMPLATE
    return fast


def stripping() -> PreTrainedTokenizerFast:
    """As Phi 3: control tokens take the blanks beside them, and only the first word of a prompt has a `▁`."""
    tokens = [*SPECIAL, "<unk>", "▁", *"abcdefghijklmnopqrstuvwxyz.,!?<>|_/[]{}ABCDEFGHIKLMNOPRSTUVWY0123456789:\n"]
    tokenizer = Tokenizer(models.BPE({t: i for i, t in enumerate(tokens)}, [], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="first", split=False)
    tokenizer.add_special_tokens([AddedToken(token, special=True, lstrip=True, rstrip=True) for token in SPECIAL])
    return _wrapped(tokenizer)


def unigram() -> PreTrainedTokenizerFast:
    """As T5 and rinna's GPT-NeoX: the model itself has the control tokens among its pieces, as the best ones."""
    pieces = [*((token, 0.0) for token in SPECIAL), ("<unk>", -20.0), ("▁", -3.0)]
    pieces += [(character, -10.0) for character in "abcdefghijklmnopqrstuvwxyz.,!?<>|_/[]\n"]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=3))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return _finished(tokenizer)


class ByteTokenizer:
    """A tokenizer in Python, without a `tokenizers` backend: token i is byte i."""

    eos_token_id: int | None = None
    added_tokens_decoder: dict[int, Any] = {}

    def decode(self, tokens: list[int], **_: Any) -> str:
        return bytes(tokens).decode(errors="replace")


def panicking() -> PreTrainedTokenizerFast:
    """One that cannot decode a blank by itself: the library takes it away at both ends, and panics."""
    tokenizer = byte_level()
    tokenizer.backend_tokenizer.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 1, 1)])
    return tokenizer


def panic() -> None:
    """Raise what the library raises when it panics."""
    tokenizer = panicking()
    tokenizer.decode(tokenizer(" ")["input_ids"])
