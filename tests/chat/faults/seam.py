"""A seam: calls that pass it are counted, and one of them fails in one of the ways in which calls fail.

A walk plays something once to count the calls, then again for each of them, with that one failing.
"""

from __future__ import annotations

import asyncio
import enum
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any


class Fault(enum.Enum):
    """How a call fails."""

    BREAKS = "raises what nobody expects"
    REFUSES = "raises what its contract names"
    LOST = "does its work, and raises after a while"
    HANGS = "does not answer"
    LEAVES = "is the last that who asked waits for"
    ENDS = "is the moment in which the process is told to end"


class Broken(Exception):
    """Nobody expects this."""


@dataclass(frozen=True)
class Contract:
    """What a collaborator may do: raise `raises`, after at most `within` seconds (None: it may say nothing for ever).

    Without `raises` it may raise nothing; it is to be survived if it does.
    """

    raises: Callable[[], Exception] | None = None
    within: float | None = 0.0
    faults: frozenset[Fault] = frozenset(Fault)


class Seam:
    """Lets calls pass, but has the one numbered `at` fail by `fault`. `calls` are the names of those that came.

    `happens` is called instead for what befalls others than the called one: LEAVES and ENDS.
    """

    def __init__(self, at: int | None = None, fault: Fault | None = None) -> None:
        self.at = at
        self.fault = fault
        self.calls: list[tuple[str, Contract]] = []
        self.happens: Callable[[Fault], None] = lambda fault: None

    def into(self, target: Any, contract: Contract, *names: str) -> None:
        """Have the calls of these methods of `target` pass here."""
        for name in names:
            method = getattr(target, name)
            through = self._awaited if inspect.iscoroutinefunction(method) else self.called
            setattr(target, name, through(f"{type(target).__name__}.{name}", method, contract))

    def called(self, name: str, method: Callable[..., Any], contract: Contract) -> Callable[..., Any]:
        """Return `method`, a function that is not awaited, whose calls pass here."""

        @wraps(method)
        def passed(*args: Any, **kwargs: Any) -> Any:
            fault = self._due(name, contract)
            if fault is None or fault is Fault.HANGS:
                return method(*args, **kwargs)
            if fault is Fault.LOST:
                method(*args, **kwargs)
            raise _error(fault, contract)

        return passed

    def _due(self, name: str, contract: Contract) -> Fault | None:
        """Count a call, and tell how it fails."""
        self.calls.append((name, contract))
        if len(self.calls) - 1 != self.at or self.fault not in contract.faults:
            return None
        if self.fault in (Fault.LEAVES, Fault.ENDS):
            self.happens(self.fault)
            return None
        return self.fault

    def _awaited(self, name: str, method: Callable[..., Any], contract: Contract) -> Callable[..., Any]:
        @wraps(method)
        async def passed(*args: Any, **kwargs: Any) -> Any:
            fault = self._due(name, contract)
            if fault is None:
                return await method(*args, **kwargs)
            if fault is Fault.LOST:
                await method(*args, **kwargs)
                await asyncio.sleep(1.0 if contract.within else 0.0)
            if fault is Fault.HANGS:
                if contract.within is None:
                    await asyncio.get_running_loop().create_future()
                await asyncio.sleep(contract.within or 0.0)
            raise _error(fault, contract)

        return passed


def _error(fault: Fault, contract: Contract) -> Exception:
    return Broken() if fault is Fault.BREAKS or contract.raises is None else contract.raises()
