"""Is a model computed right by packed batching? Asked once, at load, without any list of names.

Some architectures ignore the attention function they are given, keep state elsewhere, or decide by the mask what a
token sees: they would run and be silently wrong. Each check refuses with one line that says why.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.masking_utils import AttentionMaskInterface

from llm.engine import attention
from llm.engine.core import Engine
from llm.engine.kvcache import LayerShape, Layout
from llm.engine.model import PackedModel
from llm.engine.sampler import RowSampling
from llm.engine.sequence import Sequence as Request
from llm.errors import ConfigurationError
from llm.sampling import SamplingParams

STATELESS_LAYERS = {"DynamicLayer", "DynamicSlidingWindowLayer", "DummyLayer"}
PROBE = (5, 3, 11, 7, 2)
PROMPTS = (tuple(range(3, 8)), tuple(range(4, 23)))
DECODE_STEPS = 3
TOLERANCE = {torch.float32: 1e-3}
"""Largest error of a logit, in standard deviations of the logits; good is about 1e-5."""
COARSE_TOLERANCE = 0.5
"""The same for half precision, whose rounding alone makes 0.05 to 0.3 of it; wrong models are far above 1."""


class Unsupported(Exception):
    """This model cannot be computed by packed batching; the message says why."""


def packed(model: Any) -> PackedModel:
    """`model`, ready for the engine. Raises Unsupported."""
    _check_class(model)
    _check_cache(model)
    _check_positions(model.config)
    layout = probe(model)
    expected = [reference_logits(model, prompt) for prompt in _teacher_forced()]
    ready = PackedModel(model, layout)
    compare(packed_logits(ready), expected)
    return ready
