"""Chooses how each linear layer of a step program is computed, and in which numbers keys and values are kept.

The choice is the fastest whose error is small enough. A layer's error is measured: that of its outputs on the
calibration text, relative, as the mean over the outputs (a product of several layers has outputs of very different
size). With SmolLM2 and 8 bits of VNNI, rows and weights rounded as they are have 2 to 12 %; smoothed (alpha 0.5), 1 to
2 %, and 3 % before `down_proj`, whose inputs have the worst outliers; with 16 bits for the rows 0.6 to 1.4 %. Most of
what int8 costs comes from a few of them. Perplexity relative to float32: all as they are 1.053; all smoothed 1.024;
`down_proj` twice in addition 1.011; all above 2 % twice 1.012 (with 63 levels 1.00, as far as 1,300 tokens tell).
`down_proj` and the head twice but nothing smoothed: 1.030. So layers are smoothed where it helps, and computed twice
where they are above the bound.

The error of all layers together is measured too, by the divergence of the next-token distributions. While that is
above BOUND, the bound for a layer is made smaller.
"""

from __future__ import annotations

import hashlib
import json
import logging
import platform
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import safetensors
import torch
from safetensors.torch import save
from torch import Tensor

from llm import diskcache
from llm.engine import layout
from llm.engine.attention import kernels, packed
from llm.engine.layout import Decode
from llm.engine.linear import calibration, int8, products, timing
from llm.engine.linear.calibration import Quantizable
from llm.engine.linear.layer import Linear, Product
from llm.engine.linear.products import Way
from llm.engine.linear.timing import decoding, fastest_first
from llm.errors import one_line

logger = logging.getLogger(__name__)

BOUND = 0.0198
"""The largest divergence: ln 1.02, a perplexity of 1.02 times that of float32."""
LAYER_BOUNDS = (0.02, 0.015, 0.01)
ALPHA = 0.5
EVERY = 4
"""One token in this many is looked at for the error of a layer, all of them for the error of the layers together."""
DECODED = 16
"""One token in this many is computed as it is in decode."""

KEEPING = {str(dtype): dtype for dtype in (torch.float32, torch.bfloat16)}

SOURCES = (packed, calibration, int8, kernels, layout, products, timing)
"""The modules whose code decides the choice, beside this one."""

Names = tuple[str, ...]


class Choice(NamedTuple):
    """The choice for one layer: the name of a way, and the factors that smooth its input."""

    way: str
    factors: Tensor | None = None


class Choices(NamedTuple):
    """The choices for a program: its layers, the numbers of keys and values, and how those are read in decode."""

    layers: Mapping[Names, Choice]
    keeping: torch.dtype = torch.float32
    decode: Decode = Decode()


def quantized(program: Quantizable, tokens: Sequence[int] | None, folder: Path) -> tuple[Quantizable, str]:
    """Return the program with the fastest products that are exact enough, and its choices in words.

    `tokens` are those of the calibration text; None: float32 everywhere. The choices are kept in `folder`, for this
    model, machine and version of torch.
    """
    began = time.perf_counter()
    target = folder / f"{_key(program, exact=tokens is None)}.safetensors"
    choices = _kept(target, program)
    if choices is None:
        choices, ready = _exact(program) if tokens is None else _chosen(program, tokens[: calibration.TOKENS])
        _keep(target, choices)
    else:
        ready = _bound(program, choices.layers).keeping(choices.keeping, choices.decode)
    words = summary(choices)
    logger.info("%s (%.1f s)", words, time.perf_counter() - began)
    return ready, words


def summary(choices: Choices) -> str:
    counts = Counter(choice.way for choice in choices.layers.values())
    keeping = str(choices.keeping).removeprefix("torch.")
    if all(products.way(name).exact for name in counts) and keeping == "float32":
        return "float32"
    layers = ", ".join(f"{count} in {name}" for name, count in counts.most_common())
    attention = ", ".join(f"{rows} {way}" for rows, way in zip(Decode._fields, choices.decode, strict=True))
    return f"linear layers: {layers}; keys and values: {keeping}; attention in decode: {attention}"


@torch.inference_mode()
def _chosen(program: Quantizable, tokens: Sequence[int]) -> tuple[Choices, Quantizable]:
    """Choose, and return the program too; only exact products are chosen if the others together change too much."""
    seen, exact = calibration.recorded(program, tokens)
    fastest = fastest_first(program.linears)
    for bound in LAYER_BOUNDS:
        choices = {
            linear.names: choice(linear, seen[linear.names][::EVERY], fastest[linear.weight.shape], bound)
            for linear in program.linears
        }
        ready = _bound(program, choices)
        lost = calibration.divergence(calibration.logits(ready, tokens), exact)
        if lost <= BOUND:
            ready = _with_fewer_bits(ready, tokens, exact)
            return Choices(choices, ready.layout.dtype, ready.layout.decode), ready
    logger.warning("No coarser products are used: together they change the answers too much (%.3f nats).", lost)
    return _exact(program)


@torch.inference_mode()
def _exact(program: Quantizable) -> tuple[Choices, Quantizable]:
    """Choose the fastest products that lose nothing, and return the program too."""
    fastest = fastest_first(program.linears, exact=True)
    choices = {linear.names: Choice(fastest[linear.weight.shape][0].name) for linear in program.linears}
    decode, _ = decoding(program.layout)
    return Choices(choices, decode=decode), _bound(program, choices).keeping(torch.float32, decode)


def _with_fewer_bits(program: Quantizable, tokens: Sequence[int], exact: Tensor) -> Quantizable:
    """Return the program with the fastest attention, and keys and values in bfloat16 if that is faster and loses
    little: in a prompt, and in decode, where scores have no more bits either."""
    decode, seconds = decoding(program.layout)
    program = program.keeping(program.layout.dtype, decode)
    decode, fewer = decoding(program.layout._replace(dtype=torch.bfloat16))
    coarser = program.keeping(torch.bfloat16, decode)
    if fewer >= seconds:
        return program
    positions = range(DECODED, len(tokens), DECODED)
    lost = max(
        calibration.divergence(calibration.logits(coarser, tokens), exact),
        calibration.divergence(calibration.decoded(coarser, tokens, positions), exact[positions.start :: DECODED]),
    )
    return coarser if lost <= BOUND else program


def choice(linear: Linear, seen: Tensor, fastest: Sequence[Way], bound: float) -> Choice:
    """Return the first way, smoothed if need be, whose error is within the bound."""
    exact = torch.nn.functional.linear(seen, linear.weight, linear.bias)
    for way in fastest:
        if way.exact:
            return Choice(way.name)
        for smooth in (None, factors(linear, seen)) if way.smooths else (None,):
            if error(way.make(linear, smooth)(seen), exact) <= bound:
                return Choice(way.name, smooth)
    return Choice("float32")


def factors(linear: Linear, seen: Tensor) -> Tensor:
    """Return factors by the geometric mean of the size of an input and of its weights, for alpha 0.5."""
    inputs, weights = seen.abs().amax(0).clamp_min(1e-5), linear.weight.abs().amax(0).clamp_min(1e-5)
    found = inputs**ALPHA / weights ** (1 - ALPHA)
    return found / found.mean()


def error(found: Tensor, exact: Tensor) -> float:
    """Return the mean over the outputs of their error in proportion to themselves; NaN counts as an infinite error."""
    size = torch.linalg.vector_norm(exact, dim=0).clamp_min(1e-12)
    relative = (torch.linalg.vector_norm(found - exact, dim=0) / size).mean().item()
    return relative if relative == relative else float("inf")


def _bound(program: Quantizable, choices: Mapping[Names, Choice]) -> Quantizable:
    def choose(linear: Linear) -> Product:
        chosen = choices[linear.names]
        return products.way(chosen.way).make(linear, chosen.factors)

    return program.rebound(choose)


def _key(program: Quantizable, *, exact: bool) -> str:
    """Return a hash of this model, machine and code, to which each number of the model contributes."""
    told: list[object] = [exact, torch.__version__, torch.get_num_threads(), _processor()]
    told += [Path(str(module.__file__)).read_text() for module in SOURCES]
    told += [Path(__file__).read_text()]
    told += [(linear.names, tuple(linear.weight.shape)) for linear in program.linears]
    told += [(name, *_told_apart(tensor)) for name, tensor in program.tensors.items()]
    return hashlib.sha256(repr(told).encode()).hexdigest()[:16]


def _told_apart(tensor: Tensor) -> tuple[object, ...]:
    """Return what tells these numbers from others: the sums of their bits, row by row and column by column.

    They take a quarter of the time of a hash of all bytes, and less with more threads.
    """
    if tensor.dim() < 2:
        return str(tensor.dtype), tensor.tolist()
    bits = tensor.flatten(0, -2).contiguous().view(torch.uint8 if tensor.itemsize % 4 else torch.int32)
    if bits.dtype == torch.int32 and bits.shape[1] % 2 == 0:
        bits = bits.view(torch.int64)  # one number for two
    sums = [hashlib.sha256(bits.sum(dim, dtype=torch.int64).numpy().tobytes()).hexdigest() for dim in (0, 1)]
    return str(tensor.dtype), tuple(tensor.shape), *sums


def _processor() -> str:
    """Return what tells one kind of processor from another, above all its instructions."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return "\n".join(sorted({line for line in lines if line.lower().startswith(("model name", "flags", "features"))}))


def _kept(target: Path, program: Quantizable) -> Choices | None:
    try:
        with safetensors.safe_open(target, "pt") as file:
            ways = json.loads(file.metadata()["ways"])
            keeping = KEEPING[file.metadata()["keeping"]]
            decode = Decode(*json.loads(file.metadata()["decode"]))
            smoothed = set(file.keys())
            tensors = {name: file.get_tensor(name) for name in ways if name in smoothed}
        choices = {
            linear.names: Choice(ways[" ".join(linear.names)], tensors.get(" ".join(linear.names)))
            for linear in program.linears
        }
        for linear in program.linears:
            _check(linear, choices[linear.names])
        for way in decode:
            kernels.WAYS[way]
        diskcache.used(target)
    except FileNotFoundError:
        return None
    except (OSError, KeyError, TypeError, ValueError, safetensors.SafetensorError) as error:
        logger.warning("What was chosen before cannot be read (%s); it is chosen again.", one_line(error))
        return None
    return Choices(choices, keeping, decode)


def _check(linear: Linear, chosen: Choice) -> None:
    """Raise KeyError or ValueError for a choice that can never have been made for such a layer."""
    products.way(chosen.way)
    smooth = chosen.factors
    if smooth is not None and not (
        smooth.shape == linear.weight.shape[1:] and (smooth > 0).all() and smooth.isfinite().all()
    ):
        raise ValueError("its factors are none")


def _keep(target: Path, choices: Choices) -> None:
    named = {" ".join(names): chosen for names, chosen in choices.layers.items()}
    content = save(
        {name: chosen.factors.contiguous() for name, chosen in named.items() if chosen.factors is not None},
        metadata={
            "ways": json.dumps({name: chosen.way for name, chosen in named.items()}),
            "keeping": str(choices.keeping),
            "decode": json.dumps(choices.decode),
        },
    )
    try:
        diskcache.keep(target, lambda path: path.write_bytes(content))
    except OSError as error:
        logger.warning("What was chosen cannot be kept: %s", error)
