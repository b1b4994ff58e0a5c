"""Asks once, at load, whether packed batching computes a model right, without any list of names.

Some architectures ignore the attention function they are given, keep state elsewhere, or decide by the mask what a
token sees: they would run and be silently wrong. Each check says in one line why it turns a model away.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from collections.abc import Sequence as SequenceOf
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, DynamicCache

from llm.engine.layout import LayerShape, Layout
from llm.engine.model_runner import Forward, PackedModel
from llm.engine.sampler import RowSampling
from llm.engine.sequence import Sequence
from llm.engine.step import Engine
from llm.errors import Unsupported, one_line
from llm.sampling import SamplingParams

PROBE_NAME = "packed_probe"
KNOWN_CACHE_LAYERS = {"DynamicLayer", "DynamicSlidingWindowLayer", "DummyLayer"}
KNOWN_TENSORS = {"position_ids", "s_aux"}

PROMPT_LENGTHS = (5, 19)
DECODED = 3
CHUNK_TOKENS = 8

TOLERANCE = 1e-3
"""Largest error of a logit in float32, in standard deviations of all; right models have 1e-5."""
COARSE_TOLERANCE = 0.5
"""The same in half precision, whose rounding alone makes 0.05 to 0.3 of it."""


def packed(model: Any, context: int = 0) -> PackedModel:
    """Return `model` made ready for the engine, for sequences of up to `context` tokens.

    Raises Unsupported; the model is then as it was.
    """
    with _in_words():
        check_class(model)
        check_length(model.config, context)
        own_attention = model.config._attn_implementation
        try:
            return _tried(model)
        except BaseException:
            model.set_attn_implementation(own_attention)
            raise


@contextmanager
def _in_words() -> Iterator[None]:
    try:
        yield
    except Unsupported:
        raise
    except Exception as error:
        raise Unsupported(f"it fails when it is tried ({one_line(error)})") from error


def _tried(model: Any) -> PackedModel:
    layers = probe(model)
    model.set_attn_implementation("eager")
    expected = [own_logits(model, tokens) for tokens in conversations(model)]
    ready = PackedModel(model, Layout(layers, model.dtype, model.device))
    compare(packed_logits(ready, conversations(model)), expected, tolerance(model))
    return ready


def tolerance(model: Any) -> float:
    return TOLERANCE if model.dtype == torch.float32 else COARSE_TOLERANCE


def check_class(model: Any) -> None:
    """Check what can be known without running the model. Raises Unsupported."""
    if not model._can_set_attn_implementation():
        raise Unsupported("its attention cannot be replaced")
    kinds = {type(layer).__name__ for layer in DynamicCache(config=model.config).layers}
    if model._is_stateful or not kinds <= KNOWN_CACHE_LAYERS:
        raise Unsupported("it keeps more than keys and values of earlier tokens")


def check_length(config: Any, context: int) -> None:
    """Raise Unsupported if rotary embeddings that change with the longest sequence of a batch would be wrong.

    They are those of every sequence only as long as no sequence is longer than the original length.
    """
    limit = packed_limit(config)
    if limit is not None and context > limit:
        raise Unsupported(f"its rotary embeddings change where a sequence is longer than {limit} tokens")


def context_limit(config: Any) -> int | None:
    """Return how many tokens a sequence may have; None if the model does not say."""
    limit: int | None = getattr(config, "max_position_embeddings", None)
    for rope in _changing_ropes(config):
        if rope["rope_type"] == "dynamic" and limit is not None:
            limit = max(limit, int(limit * rope.get("factor", 1.0)))
    return limit


def packed_limit(config: Any) -> int | None:
    """Return how many tokens a sequence may have if sequences are computed together; None if the model does not say."""
    limit: int | None = getattr(config, "max_position_embeddings", None)
    for rope in _changing_ropes(config):
        original = rope.get("original_max_position_embeddings")
        limit = original or getattr(config, "original_max_position_embeddings", None) or limit
    return limit


def _changing_ropes(config: Any) -> list[Mapping[str, Any]]:
    """Return the ropes that change with the length; a model has one rope, or one for each kind of layer."""
    found = getattr(config, "rope_parameters", None) or {}
    ropes = [found] if "rope_type" in found else [rope for rope in found.values() if isinstance(rope, Mapping)]
    return [rope for rope in ropes if rope.get("rope_type") in ("dynamic", "longrope")]


class _Call(NamedTuple):
    """One call of the attention function."""

    layer: int
    shape: LayerShape
    window: int | None
    sees: Any  # the mask function: (batch, head, query, key) -> bool


def probe(model: Any) -> tuple[LayerShape, ...]:
    """Return what each layer keeps of a token, by one forward in which every call of the attention is looked at."""
    calls: list[_Call] = []

    def spy(module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Any, **keywords: Any) -> tuple[Tensor, None]:
        tensors = {name for name, found in keywords.items() if isinstance(found, Tensor)}
        if tensors - KNOWN_TENSORS:
            raise Unsupported(f"its attention needs {', '.join(sorted(tensors - KNOWN_TENSORS))}")
        shape = LayerShape(key.shape[1], key.shape[3], value.shape[3])
        calls.append(_Call(module.layer_idx, shape, keywords.get("sliding_window"), mask))
        return value.new_zeros(1, query.shape[2], query.shape[1], value.shape[3]), None

    AttentionInterface.register(PROBE_NAME, spy)
    AttentionMaskInterface.register(PROBE_NAME, lambda **keywords: keywords["mask_function"])
    model.set_attn_implementation(PROBE_NAME)
    tokens = torch.arange(PROMPT_LENGTHS[0], device=model.device)[None]
    with torch.inference_mode():
        model(input_ids=tokens, attention_mask=torch.ones_like(tokens), use_cache=False)
    return _checked(calls)


def _checked(calls: SequenceOf[_Call]) -> tuple[LayerShape, ...]:
    if not calls:
        raise Unsupported("it does not use the attention function it is given")
    if sorted(call.layer for call in calls) != list(range(len(calls))):
        raise Unsupported("its layers do not each attend once")
    if not all(sees_as_expected(call.sees, call.window) for call in calls):
        raise Unsupported("its mask is neither causal nor a sliding window")
    return tuple(call.shape for call in sorted(calls, key=lambda call: call.layer))


def sees_as_expected(sees: Any, window: int | None) -> bool:
    """Return whether a mask function says what the engine assumes, also far beyond the length of any trial."""
    if not callable(sees):
        return False
    queries = torch.tensor([0, 7, 100, 1023, 5000, 70_001])[:, None]
    keys = torch.cat((queries[:, 0], torch.arange(0, 70_002, 977)))[None]
    zero = torch.zeros((), dtype=torch.long)
    hidden = (keys > queries) | (keys <= queries - (window or 1 << 40))
    return torch.equal(torch.as_tensor(sees(zero, zero, queries, keys)).expand_as(hidden), ~hidden)


def conversations(model: Any) -> list[list[int]]:
    """Return conversations of different lengths, for trials."""
    vocabulary = model.get_input_embeddings().weight.shape[0]
    return [[(7 * i + length) % vocabulary for i in range(length + DECODED)] for length in PROMPT_LENGTHS]


@torch.inference_mode()
def own_logits(model: Any, tokens: SequenceOf[int]) -> Tensor:
    """Return the logits that follow the prompt and each decoded token, by the model's own forward."""
    logits: Tensor = model(input_ids=torch.tensor([tokens], device=model.device), use_cache=False).logits
    return logits[0, -DECODED - 1 :].float()


@torch.inference_mode()
def packed_logits(forward: Forward, conversations: SequenceOf[SequenceOf[int]]) -> list[Tensor]:
    """Return the same by the engine: all conversations at once, in chunks, the answers given instead of sampled."""
    sequences = [Sequence(tokens[:-DECODED], SamplingParams(), max_new_tokens=DECODED + 1) for tokens in conversations]
    answers = {s.sampling: iter((*tokens[-DECODED:], 0)) for s, tokens in zip(sequences, conversations, strict=True)}
    seen: dict[RowSampling, list[Tensor]] = {sequence.sampling: [] for sequence in sequences}

    def follow(logits: Tensor, rows: SequenceOf[RowSampling]) -> list[int | None]:
        if logits.shape != (len(rows), logits.shape[-1]):
            raise Unsupported("it computes logits of other tokens than it is asked for")
        for row, row_logits in zip(rows, logits.float(), strict=True):
            seen[row].append(row_logits)
        return [next(answers[row]) for row in rows]

    engine = Engine(forward, chunk_tokens=CHUNK_TOKENS, sample=follow, strict=True)
    for sequence in sequences:
        engine.add(sequence)
    while engine.busy:
        engine.step()
    return [torch.stack(seen[sequence.sampling]) for sequence in sequences]


def compare(found: SequenceOf[Tensor], expected: SequenceOf[Tensor], tolerance: float) -> None:
    for mine, own in zip(found, expected, strict=True):
        error = ((mine - own).abs().max() / own.std()).item()
        if not error <= tolerance:  # also where it is NaN
            raise Unsupported(f"its logits differ from those of its own forward (error {error:.2g})")
