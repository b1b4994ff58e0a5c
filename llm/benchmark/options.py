"""Defines what the command line asks for."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from llm.errors import ConfigurationError

Kind = Literal["throughput", "mixed", "turns", "gap", "cancel", "quality", "start", "memory"]
KINDS: tuple[Kind, ...] = ("throughput", "mixed", "turns", "gap", "cancel", "quality", "start", "memory")
LOCAL_ONLY = {"cancel", "quality", "start", "memory"}


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """The options of a run. `tokens` is how many each chat must generate while all of a round do."""

    only: tuple[Kind, ...] = KINDS
    chats: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    contexts: tuple[int, ...] = (40, 600)
    histories: tuple[int, ...] = (0, 500, 2000)
    tokens: int = 32
    url: str = ""
    model: str = ""
    json: bool = False

    @property
    def kinds(self) -> tuple[Kind, ...]:
        return tuple(kind for kind in self.only if not (self.url and kind in LOCAL_ONLY))


QUICK = Options(only=("throughput", "cancel", "memory"), chats=(1, 8), contexts=(40,), tokens=16)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--quick", action="store_true", help="a few rows within a minute; the options below add to it")
    parser.add_argument("--only", nargs="+", choices=KINDS, metavar="KIND", help=f"some of: {', '.join(KINDS)}")
    parser.add_argument("--chats", type=int, nargs="+", metavar="N", help="how many at once, round by round")
    parser.add_argument("--contexts", type=int, nargs="+", metavar="N", help="tokens of context, for each of these")
    parser.add_argument("--histories", type=int, nargs="+", metavar="N", help="tokens before a second turn")
    parser.add_argument("--tokens", type=int, metavar="N", help="tokens of each chat that are counted")
    parser.add_argument("--url", help="a server instead of the local backend: https://host/v1; its key: OPENAI_API_KEY")
    parser.add_argument("--model", help="the name of its model; by default the first it lists")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of tables")


def of(given: Mapping[str, Any]) -> Options:
    """Return the options that argparse found. Raises ConfigurationError."""
    found = {name: given[name] for name in Options.__struct_fields__ if given.get(name)}
    try:
        base = msgspec.to_builtins(QUICK if given.get("quick") else Options())
        options = msgspec.convert({**base, **found}, Options)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"benchmark: {error}") from error
    numbers = (*options.chats, *options.contexts, options.tokens, *(n + 1 for n in options.histories))
    if min(numbers) < 1:
        raise ConfigurationError("benchmark: numbers of chats and tokens are 1 or more")
    return options
