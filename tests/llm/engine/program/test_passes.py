"""Each pass finds its pattern, leaves alone what only looks like it, and changes no number."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from llm.engine.attention.kernels import Kind
from llm.engine.program import operations, passes
from llm.engine.program.capture import attend as opaque_attend
from llm.engine.program.capture import captured
from llm.engine.program.passes.surplus import CHECKS
from tests.llm.models import tiny

aten: Any = torch.ops.aten
WIDTH = 8
EXAMPLE = torch.linspace(-2, 2, 5 * WIDTH).reshape(1, 5, WIDTH)


class Traced:
    """The graph of a module of one input, in which the number of tokens is a variable."""

    def __init__(self, module: nn.Module) -> None:
        torch.manual_seed(3)
        for parameter in module.parameters():
            nn.init.normal_(parameter)
        module.requires_grad_(False)
        dynamic = ({1: torch.export.Dim("tokens", min=2, max=99)},)
        self.module = torch.export.export(module, (EXAMPLE,), dynamic_shapes=dynamic, strict=False).module()
        self.graph: fx.Graph = self.module.graph

    def run(self, x: Tensor) -> Tensor:
        (out,) = Running(self.module, graph=self.graph).run(x, enable_io_processing=False)
        return out

    def after(self, *chosen: Callable[[fx.Graph], None]) -> Counter[Any]:
        """How often each operator is called after the passes; the numbers must be as before."""
        longer = torch.cat((EXAMPLE, EXAMPLE.flip(1) + 1, EXAMPLE * 3), 1)
        expected = [self.run(x) for x in (EXAMPLE, longer, longer[:, :1])]
        for one in (passes.drop_checks, *chosen):
            one(self.graph)
            self.graph.eliminate_dead_code()
        self.graph.lint()
        for x, before in zip((EXAMPLE, longer, longer[:, :1]), expected, strict=True):
            torch.testing.assert_close(self.run(x), before)
        return Counter(node.target for node in self.graph.nodes if node.op == "call_function")


class Running(fx.Interpreter):
    """With the products as they are, and an attention that does not mix tokens."""

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        if target is operations.product:
            names, weights, biases = args
            zeros = [w.new_zeros(len(w)) if b is None else b for w, b in zip(weights, biases, strict=True)]
            return torch.cat(weights), torch.cat(zeros)
        if target is operations.apply:
            return F.linear(args[1], *args[0])
        if target is opaque_attend._opoverload:
            return (args[0] * 2 + args[1] * 3 + args[2]).transpose(1, 2) * args[4]
        if target is operations.attend:
            return (args[1] * 2 + args[2] * 3 + args[3]) * args[4].scale
        return super().call_function(target, args, kwargs)


class Formula(nn.Module):
    """A function with parameters of the given sizes."""

    def __init__(self, forward: Callable[..., Tensor], *sizes: tuple[int, ...]) -> None:
        super().__init__()
        self.parameters_ = nn.ParameterList([nn.Parameter(torch.empty(size)) for size in sizes])
        self.formula = forward

    def forward(self, x: Tensor) -> Tensor:
        return self.formula(x, *self.parameters_)


def traced(forward: Callable[..., Tensor], *sizes: tuple[int, ...]) -> Traced:
    return Traced(Formula(forward, *sizes))


def norm(x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5)


def turned(x: Tensor) -> Tensor:
    return torch.cat((-x[..., x.shape[-1] // 2 :], x[..., : x.shape[-1] // 2]), -1)


def checks(graph: fx.Graph) -> list[str]:
    return [str(node.target) for node in graph.nodes if any(name in str(node.target) for name in CHECKS)]


def test_drop_checks() -> None:
    """What a cast asserts of its input, and a number that is read out of a tensor; nothing else goes."""
    graph = traced(lambda x: x.double().cos().narrow(1, 0, x[0, 0, 0].abs().clamp(max=1).int().item()).float())
    dropped = set(checks(graph.graph))
    assert dropped == {"_guards_fn", "aten._assert_tensor_metadata.default", "aten._assert_scalar.default"}
    found = graph.after()
    assert checks(graph.graph) == []
    assert (found[aten.to.dtype], found[aten.cos.default], found[aten.narrow.default]) == (3, 1, 1)


def test_drop_checks_leaves_what_is_none_or_used() -> None:
    graph = fx.Graph()
    x = graph.placeholder("x")
    doubled = graph.call_function(aten.mul.Tensor, (x, 2))
    used = graph.call_function(aten._functional_assert_async.msg, (doubled, "not zero", x))
    written = graph.call_function(aten.add_.Tensor, (used, 1))
    checked = graph.call_function(aten._assert_async.msg, (used, "nor this"))
    out = graph.output(used)
    assert list(graph.nodes) == [x, doubled, used, written, checked, out]
    for _ in range(2):
        passes.drop_checks(graph)
        assert list(graph.nodes) == [x, doubled, used, written, out]


@torch.inference_mode()
def test_drop_checks_leaves_the_logits_of_a_model() -> None:
    graph = captured(tiny("llama, one key head for each query head, tied")).graph
    module = graph.owning_module
    assert module is not None
    inputs = torch.arange(5, 12)[None], torch.arange(7)[None], torch.tensor([2, 6])
    (expected,) = Running(module, graph=graph).run(*inputs, enable_io_processing=False)
    assert len(checks(graph)) > 3
    passes.drop_checks(graph)
    assert checks(graph) == []
    (found,) = Running(module, graph=graph).run(*inputs, enable_io_processing=False)
    assert torch.equal(found, expected)


def test_drop_noops() -> None:
    found = traced(
        lambda x: F.dropout(x.to(torch.float32), 0.5, training=False)[..., :99].type_as(x) + x.double().float()
    ).after(passes.drop_noops)
    assert found == {aten.add.Tensor: 1, aten.to.dtype: 2}


def test_drop_noops_of_a_rotation_of_the_whole_width() -> None:
    found = traced(lambda x: torch.cat((x + 1, x[..., WIDTH:]), -1)).after(passes.drop_noops)
    assert found == {aten.add.Tensor: 1}
    assert traced(lambda x: torch.cat((x, x[..., 2:]), -1)).after(passes.drop_noops)[aten.cat.default] == 1


@pytest.mark.parametrize(
    "forward",
    [
        lambda x, weight: weight * norm(x),
        lambda x, weight: norm(x) * (1.0 + weight),
        lambda x, weight: weight * (x * (x.pow(2).mean(-1, keepdim=True) + 1e-5).pow(-0.5)),
    ],
    ids=["llama", "gemma", "power"],
)
def test_fuse_rms_norm(forward: Callable[..., Tensor]) -> None:
    found = traced(forward, (WIDTH,)).after(passes.drop_noops, passes.fuse_rms_norm)
    assert found[aten.rms_norm.default] == 1
    assert not {aten.mul.Tensor, aten.rsqrt.default, aten.mean.dim} & set(found)


def test_fuse_rms_norm_without_a_weight_for_each_number() -> None:
    """The weight is of another shape, or no constant: the norm is fused, the product stays."""
    for forward, size in ((lambda x, weight: weight * norm(x), (5, WIDTH)), (lambda x, _: x * norm(x), (WIDTH,))):
        if size == (5, WIDTH):
            forward, size = (lambda x, weight: (weight * norm(x[:, None])).sum(1)), (5, 1, WIDTH)
        found = traced(forward, size).after(passes.fuse_rms_norm)
        assert (found[aten.rms_norm.default], found[aten.mul.Tensor]) == (1, 1)


@pytest.mark.parametrize(
    "forward",
    [
        lambda x: x * torch.rsqrt(x.pow(2).mean(1, keepdim=True) + 1e-5),
        lambda x: x * torch.rsqrt(x.pow(2).mean(-1) + 1e-5)[..., None],
        lambda x: x * torch.rsqrt(x.abs().pow(3).mean(-1, keepdim=True) + 1e-5),
        lambda x: x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True)),
        lambda x: (x + 1) * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5),
        lambda x: x + torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5),
    ],
    ids=["over tokens", "kept flat", "cubes", "no epsilon", "of another", "sum"],
)
def test_fuse_rms_norm_leaves_what_is_none(forward: Callable[..., Tensor]) -> None:
    assert traced(forward).after(passes.fuse_rms_norm)[aten.rms_norm.default] == 0


@pytest.mark.parametrize(("kind", "quick"), [(torch.float32, 1), (torch.bfloat16, 0)], ids=["float32", "bfloat16"])
def test_quicken_rms_norm(kind: torch.dtype, quick: int) -> None:
    """With weight and without; of rows of zeros too. Not in numbers too coarse for a sum of squares."""

    def forward(x: Tensor, weight: Tensor) -> Tensor:
        x = (x * (x > 0)).to(kind)
        return F.rms_norm(x, (WIDTH,), weight.to(kind), 1e-3) + F.rms_norm(x, (WIDTH,), None, 1e-3)

    found = traced(forward, (WIDTH,)).after(passes.quicken_rms_norm)
    assert (found[operations.normed], found[aten.rms_norm.default]) == (2 * quick, 2 - 2 * quick)


def test_fuse_gelu() -> None:
    def gelu(x: Tensor, factor: float = 0.044715) -> Tensor:
        return 0.5 * x * (1.0 + torch.tanh(0.7978845608028654 * (x + factor * torch.pow(x, 3.0))))

    assert traced(lambda x: gelu(x)).after(passes.fuse_gelu) == {aten.gelu.default: 1}
    assert traced(lambda x: gelu(x, 0.05)).after(passes.fuse_gelu)[aten.gelu.default] == 0


def test_unfold_conv1d() -> None:
    def conv1d(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return torch.addmm(bias, x.view(-1, WIDTH), weight).view(*x.shape[:-1], 6)

    found = traced(conv1d, (WIDTH, 6), (6,)).after(passes.unfold_conv1d)
    assert (found[aten.linear.default], found[aten.addmm.default]) == (1, 0)
    found = traced(lambda x, w, b: torch.addmm(b, x.view(-1, WIDTH), w), (WIDTH, 6), (6,)).after(passes.unfold_conv1d)
    assert (found[aten.linear.default], found[aten.addmm.default]) == (0, 1)


def test_join_linears() -> None:
    """Those of one input, with and without bias; not that of another, nor one with computed weights."""

    def forward(x: Tensor, one: Tensor, two: Tensor, bias: Tensor, other: Tensor, computed: Tensor) -> Tensor:
        first, second = F.linear(x, one), F.linear(x, two, bias)
        return torch.cat((first, second, F.linear(first, other), F.linear(x, computed * 2)), -1)

    graph = traced(forward, (6, WIDTH), (3, WIDTH), (3,), (4, 6), (2, WIDTH))
    found = graph.after(passes.join_linears)
    assert (found[operations.apply], found[aten.split_with_sizes.default], found[aten.linear.default]) == (2, 1, 1)
    names = [node.args[0] for node in graph.graph.nodes if node.target is operations.product]
    assert [len(each) for each in names] == [2, 1]


def rotated(x: Tensor) -> Tensor:
    return x * x[:, :1].cos() + turned(x) * x[:, :1].sin()


def test_fuse_rotary() -> None:
    found = traced(rotated).after(passes.fuse_rotary)
    assert (found[operations.rotate], found[operations.signed], found[aten.cat.default]) == (1, 1, 0)


@pytest.mark.parametrize(
    "forward",
    [
        lambda x: x * x.cos() + torch.cat((-x[..., : WIDTH // 2], x[..., WIDTH // 2 :]), -1) * x.sin(),
        lambda x: x * x.cos() + torch.cat((-x[..., 3:], x[..., :3]), -1) * x.sin(),
        lambda x: x * x.cos() + turned(x + 1) * x.sin(),
        lambda x: x * x.cos() * turned(x) * x.sin(),
    ],
    ids=["halves in place", "not halves", "of another", "product"],
)
def test_fuse_rotary_leaves_what_is_none(forward: Callable[..., Tensor]) -> None:
    assert traced(forward).after(passes.fuse_rotary)[operations.rotate] == 0


def heads(x: Tensor) -> Tensor:
    return x.view(1, x.shape[1], 2, WIDTH // 2).transpose(1, 2)


def attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return opaque_attend(query, key, value, 0, 0.5, 7, None, None).flatten(2)


def test_attend_by_token() -> None:
    """No swap is left where linear layers, norms and rotations alone come before."""

    def forward(x: Tensor, weight: Tensor) -> Tensor:
        cos, sin = (angles[:, None, :, : WIDTH // 2] for angles in (x[..., ::2].cos(), x[..., 1::2].sin()))
        query = weight * norm(heads(x))
        return attention(query * cos + turned(query) * sin, heads(x * 2), heads(x * 3))

    graph = traced(forward, (WIDTH // 2,))
    found = graph.after(passes.drop_noops, passes.fuse_rms_norm, passes.fuse_rotary, passes.attend_by_token)
    assert found[operations.attend] == found[operations.rotate] == found[aten.rms_norm.default] == 1
    assert found[aten.transpose.int] == 2, "of the angles"
    assert found[Kind] == 1


def test_attend_by_token_of_what_mixes_heads() -> None:
    found = traced(lambda x: attention(heads(x).cumsum(1), heads(x), heads(x))).after(passes.attend_by_token)
    assert (found[operations.attend], found[aten.transpose.int]) == (1, 2)


def by_product(swapped: bool) -> Callable[..., Tensor]:
    """Query and key of one product, both rotated; the key may lie before the query."""

    def forward(x: Tensor, one: Tensor, two: Tensor, three: Tensor) -> Tensor:
        cos, sin = (angles[:, None, :, : WIDTH // 2] for angles in (x[..., ::2].cos(), x[..., 1::2].sin()))
        query, key, value = (heads(F.linear(x, weight)) for weight in (one, two, three))
        query, key = (key, query) if swapped else (query, key)
        return attention(query * cos + turned(query) * sin, key * cos + turned(key) * sin, value)

    return forward


@pytest.mark.parametrize(("swapped", "rotations"), [(False, 1), (True, 2)])
def test_rotate_at_once(swapped: bool, rotations: int) -> None:
    earlier = passes.join_linears, passes.fuse_rotary, passes.attend_by_token, passes.share_equals
    graph = traced(by_product(swapped), *[(WIDTH, WIDTH)] * 3)
    assert graph.after(*earlier, passes.rotate_at_once)[operations.rotate] == rotations


def test_share_equals() -> None:
    def forward(x: Tensor) -> Tensor:
        return x[:, None].cos() + x[:, None].cos() + x.unsqueeze(2).mul(1).transpose(1, 2)

    found = traced(forward).after(passes.share_equals)
    assert (found[aten.cos.default], found[aten.unsqueeze.default]) == (1, 2)


def test_write_in_place() -> None:
    found = traced(lambda x: F.silu(x) * x + (x * x)).after(passes.write_in_place)
    assert (found[aten.mul_.Tensor], found[aten.add_.Tensor], found[aten.add.Tensor]) == (1, 1, 0)


@pytest.mark.parametrize(
    "forward",
    [
        lambda x: (y := F.silu(x)) * x + y,
        lambda x: F.silu(x).view(-1) + x.reshape(-1),
        lambda x: x * 2,
        lambda x: F.silu(x[:, :1]) * x,
        lambda x: F.silu(x) * x.double(),
    ],
    ids=["used again", "a view", "an input", "of another shape", "of another type"],
)
def test_write_in_place_leaves_what_is_needed(forward: Callable[..., Tensor]) -> None:
    found = traced(forward).after(passes.write_in_place)
    assert found[aten.mul_.Tensor] == 0
