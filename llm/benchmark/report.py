"""Defines the results of a run, and how they are shown."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import msgspec
from rich.console import Group
from rich.table import Table

HEADINGS: dict[str, tuple[str, str]] = {
    "tokens_per_second": ("tok/s", ".0f"),
    "each": ("tok/s each", ".1f"),
    "ttft": ("TTFT", ".2f s"),
    "ttft_p50": ("TTFT p50", ".2f s"),
    "ttft_p95": ("TTFT p95", ".2f s"),
    "first_ttft": ("first turn TTFT", ".2f s"),
    "second_ttft": ("second turn TTFT", ".2f s"),
    "prompt_tokens": ("prompt", ".0f"),
    "cached_tokens": ("cached", ".0f"),
    "alone_p50": ("gap alone p50", ".3f s"),
    "gap_p50": ("gap p50", ".3f s"),
    "gap_p99": ("gap p99", ".3f s"),
    "seconds": ("time", ".2f s"),
    "perplexity": ("perplexity", ".3f"),
    "ratio": ("to fp32", ".4f"),
    "mib": ("MiB", ".0f"),
}
"""Heading of each value, and its format with its unit."""


class Row(msgspec.Struct, frozen=True):
    """One measurement: its name, what it is of, and its values. Rows of one name have the same keys."""

    name: str
    of: dict[str, int | str]
    values: dict[str, float]


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """All rows of a run, with the machine and the model that they are of."""

    machine: str
    cpu_features: list[str]
    threads: int
    torch: str
    model: str
    mode: str
    rows: list[Row]


def shown(report: Report) -> Group:
    title = f"{report.model}: {report.mode}"
    on = f"{report.machine}; {', '.join(report.cpu_features) or 'no known features'}"
    caption = f"{on}; {report.threads} threads, torch {report.torch}"
    groups = [list(rows) for _, rows in itertools.groupby(report.rows, key=lambda row: row.name)]
    return Group(title, *map(table, groups), caption)


def table(rows: list[Row]) -> Table:
    found = Table(title=rows[0].name, title_justify="left")
    for key in rows[0].of:
        found.add_column(key, justify="right")
    for key in rows[0].values:
        found.add_column(HEADINGS[key][0], justify="right")
    for row in rows:
        found.add_row(*map(str, row.of.values()), *(in_units(key, value) for key, value in row.values.items()))
    return found


def in_units(key: str, value: float) -> str:
    number, _, unit = HEADINGS[key][1].partition(" ")
    return f"{value:{number}} {unit}".rstrip()


def share(values: Iterable[float], part: float) -> float:
    """Return the value that this share of the values does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * round(part * 100) // 100) - 1)]
