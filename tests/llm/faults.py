"""Fault injection by walking: an exception at every call out of some modules, one after the other.

A run notes every place where a function of those modules calls a function of another module (the first time that it
comes there). Then the same run is repeated, and the call of one place raises instead. What has to hold after that is
for the test to say. Only functions written in Python are seen; calls into torch are seen one level below, as operators
(`operators`), in the thread that enters it.
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


class Site(NamedTuple):
    """A call: from where, and of what."""

    module: str
    function: str
    line: int
    callee: str

    def __str__(self) -> str:
        return f"{self.module}.{self.function}:{self.line} -> {self.callee}"


class Fault(Exception):
    """Raised at the place that is to fail."""


class Faults:
    """Notes the places of a run in `sites`; with `failing`, the call of that place raises Fault, once."""

    def __init__(self, *modules: ModuleType, failing: Site | None = None) -> None:
        self._modules = {str(module.__file__): module.__name__.rpartition(".")[2] for module in modules}
        self._failing = failing
        self.sites: dict[Site, None] = {}
        self.raised = False

    @contextmanager
    def everywhere(self) -> Iterator[None]:
        """Within the context, calls of this thread and of those that begin meanwhile are seen."""
        threading.setprofile(self._called)
        sys.setprofile(self._called)
        try:
            yield
        finally:
            sys.setprofile(None)
            threading.setprofile(None)

    def operators(self) -> TorchDispatchMode:
        """Return a context in which the operators of torch are seen too, for what those modules do."""
        return _Operators(self._computes)

    def _called(self, frame: FrameType, event: str, _: Any) -> None:
        caller = frame.f_back
        if event != "call" or caller is None or caller.f_code.co_filename not in self._modules:
            return
        if caller.f_code.co_filename != frame.f_code.co_filename:
            self._pass(caller, f"{Path(frame.f_code.co_filename).stem}.{frame.f_code.co_qualname}")

    def _computes(self, operator: str) -> None:
        frame: FrameType | None = sys._getframe()
        while frame is not None and frame.f_code.co_filename not in self._modules:
            frame = frame.f_back
        if frame is not None:
            self._pass(frame, operator)

    def _pass(self, frame: FrameType, callee: str) -> None:
        module = self._modules[frame.f_code.co_filename]
        site = Site(module, frame.f_code.co_qualname, frame.f_lineno, callee)
        if site in self.sites:
            return
        self.sites[site] = None
        if site == self._failing:
            self.raised = True
            raise Fault(str(site))


class _Operators(TorchDispatchMode):
    def __init__(self, seen: Callable[[str], None]) -> None:
        super().__init__()
        self._seen = seen

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self._seen(str(func))
        return func(*args, **(kwargs or {}))
