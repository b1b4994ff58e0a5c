"""An event loop whose clock stands while anything can be done, and then jumps to what is due next."""

from __future__ import annotations

import asyncio
import selectors


class _Idle(selectors.DefaultSelector):
    """Waits by letting the loop's clock go on."""

    loop: Clockwork

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        assert timeout is not None, "nothing is due, ever"
        self.loop.now += timeout
        return super().select(0)


class Clockwork(asyncio.SelectorEventLoop):
    """To sleep on it is to let all happen that happens until then, in its order, in no time."""

    def __init__(self) -> None:
        self.now = 1_000.0
        selector = _Idle()
        super().__init__(selector)
        selector.loop = self

    def time(self) -> float:
        return self.now
