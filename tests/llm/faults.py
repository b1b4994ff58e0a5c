"""Fault injection by walking: an exception at every call out of some modules, one after the other.

A run notes every place where a function of those modules calls a function of another module (the first time that it
comes there, by each way). Then the same run is repeated, and the call of one place raises instead. What has to hold
after that is for the test to say. Only functions written in Python are seen; calls into torch are seen one level below,
as operators, in the thread that enters `operators`.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any, NamedTuple

from torch.utils._python_dispatch import TorchDispatchMode

import llm

INTERPRETER = ("weakref.", "_weakrefset.")
"""Modules whose functions are called by the interpreter, wherever it happens to be when something is not needed."""


OURS = str(Path(llm.__file__).parent)


class Site(NamedTuple):
    """A call: on behalf of which function, from where, and of what."""

    by: str
    function: str
    line: int
    callee: str

    def __str__(self) -> str:
        return f"{self.by} -> {self.function}:{self.line} -> {self.callee}"

    def within(self, *names: str) -> bool:
        """Return whether it is a call of, from, or on behalf of functions whose names begin so."""
        return any(name.startswith(names) for name in (self.by, self.function, self.callee))


class Fault(Exception):
    """Raised at the place that is to fail."""


class Faults:
    """Notes the places of a run in `sites`; with `failing`, the call of that place raises Fault, once.

    Calls of functions whose names begin with one of `sure` are left out: whatever happens, they do not fail.
    """

    def __init__(self, *modules: ModuleType, sure: tuple[str, ...] = (), failing: Site | None = None) -> None:
        self._files = {str(module.__file__) for module in modules}
        self._sure = (*INTERPRETER, *sure)
        self._failing = failing
        self.sites: dict[Site, None] = {}
        self.raised = False

    @contextmanager
    def everywhere(self) -> Iterator[None]:
        """Within the context, calls of this thread and of those that begin meanwhile are seen."""
        threading.settrace(self._called)
        sys.settrace(self._called)
        try:
            yield
        finally:
            sys.settrace(None)
            threading.settrace(None)  # type: ignore[arg-type]

    def operators(self) -> TorchDispatchMode:
        """Return a context in which the operators of torch are seen too, for what those modules do."""
        return _Operators(self._computes)

    def _called(self, frame: FrameType, _event: str, _: Any) -> None:
        caller = frame.f_back
        if caller is None or caller.f_code.co_filename not in self._files:
            return
        if caller.f_code.co_filename != frame.f_code.co_filename:
            self._pass(caller, _name(frame))

    def _computes(self, operator: str) -> None:
        frame: FrameType | None = sys._getframe()
        while frame is not None and OURS not in frame.f_code.co_filename:
            frame = frame.f_back
        if frame is not None and frame.f_code.co_filename in self._files:
            self._pass(frame, operator)

    def _pass(self, frame: FrameType, callee: str) -> None:
        by = "" if frame.f_back is None or frame.f_back.f_code.co_filename not in self._files else _name(frame.f_back)
        site = Site(by, _name(frame), frame.f_lineno, callee)
        if self.raised or site in self.sites or callee.startswith(self._sure):
            return
        self.sites[site] = None
        if site == self._failing:
            self.raised = True
            raise Fault(str(site))


def _name(frame: FrameType) -> str:
    return f"{Path(frame.f_code.co_filename).stem}.{frame.f_code.co_qualname}"


class _Operators(TorchDispatchMode):
    def __init__(self, seen: Callable[[str], None]) -> None:
        super().__init__()
        self._seen = seen

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self._seen(str(func))
        return func(*args, **(kwargs or {}))
