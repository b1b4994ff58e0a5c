"""Gives the graph of a model fewer and larger calls.

Each pass knows one pattern, whatever the architecture, and leaves alone what it does not know: the result computes
the same numbers (up to the order of sums), with or without any of them. They run in the order of `PASSES`.
"""

from __future__ import annotations

from torch import fx

from llm.engine.program.passes.activations import fuse_gelu
from llm.engine.program.passes.layout import attend_by_token
from llm.engine.program.passes.linears import join_linears, unfold_conv1d
from llm.engine.program.passes.memory import write_in_place
from llm.engine.program.passes.norms import fuse_rms_norm, quicken_rms_norm
from llm.engine.program.passes.rotary import fuse_rotary, rotate_at_once
from llm.engine.program.passes.surplus import drop_checks, drop_noops, share_equals

PASSES = (
    drop_checks,
    drop_noops,
    fuse_rms_norm,
    fuse_gelu,
    unfold_conv1d,
    join_linears,
    fuse_rotary,
    attend_by_token,
    quicken_rms_norm,
    share_equals,
    rotate_at_once,
    write_in_place,
)


def simplify(graph: fx.Graph) -> None:
    for simplified in PASSES:
        simplified(graph)
        graph.eliminate_dead_code()
