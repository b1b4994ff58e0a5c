"""Decides how many tokens of prompts a step takes beside those in decode, by the time they cost on this machine.

Each prompt that waits may take up to 80 % of the time of a step from those in decode: while one long prompt arrives, no
stream becomes as slow as half its speed; when many arrive, their first words are worth more. The cost of a step was
measured at load, and is corrected by what every step takes since. The module knows no sequences.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from itertools import accumulate

SHARE = 0.8
"""Time that one waiting prompt may take in a step, as a part of what the step takes without it."""
LONGEST = 0.2
"""Seconds of a step while nothing is in decode, and the most that many waiting prompts make of one: a cancel has to be
seen soon."""
FEWEST = 4
"""Tokens of prompts in any step, however slow: a prompt has to end some time."""
REACH = 8
"""Times the largest measured step: it cannot tell what a step so much larger costs, and takes of memory."""
ALONE_EVERY = 16
"""Steps with prompts, after which one goes without: what decode takes by itself changes while many prompts arrive, and
an estimate below the truth would leave them next to nothing of a step."""
SMOOTHING = 0.2
UNMEASURED = 128


class Pace:
    """The pace of an engine. `measured` are (tokens in a step, its seconds), ascending; without them it is constant."""

    def __init__(self, measured: Sequence[tuple[int, float]] = ()) -> None:
        self._sizes = [size for size, _ in measured]
        self._seconds = [*accumulate((seconds for _, seconds in measured), lambda one, next: max(one * 1.001, next))]
        self._decode = self._mixed = 1.0  # what steps take by what was measured: contexts grow, machines get busy
        self._beside = 0  # steps since one in decode had no prompts beside it

    def prompt_tokens(self, decoding: int, waiting: int) -> int:
        """Return the tokens for a step with that many rows in decode and prompts that wait; 0 now and then."""
        if not self._sizes:
            return UNMEASURED
        if decoding and self._beside >= ALONE_EVERY:
            return 0
        without = self._decode * self._expected(decoding) if decoding else 0.0
        allowed = max(without * (1 + SHARE), min(without * (1 + SHARE * waiting), LONGEST) if decoding else LONGEST)
        size = min(self._size(allowed / self._mixed), REACH * self._sizes[-1])
        return max(FEWEST, size - decoding)

    def saw(self, decoding: int, prompt_tokens: int, seconds: float) -> None:
        """Learn what a step took."""
        if not self._sizes:
            return
        ratio = seconds / self._expected(decoding + prompt_tokens)
        if prompt_tokens:
            self._beside += 1
            self._mixed += SMOOTHING * (min(ratio, 4 * self._mixed) - self._mixed)
        else:  # the longer ago the last one was, the less it says
            weight = 1 - (1 - SMOOTHING) ** (1 + self._beside)
            self._beside = 0
            self._decode += weight * (min(ratio, 4 * self._decode) - self._decode)

    def _expected(self, size: int) -> float:
        return _interpolate(size, self._sizes, self._seconds)

    def _size(self, seconds: float) -> int:
        return int(_interpolate(seconds, self._seconds, self._sizes))


def _interpolate(at: float, xs: Sequence[float], ys: Sequence[float]) -> float:
    """Return the value at `at` on the line through the two points around it, or the nearest two."""
    if len(xs) == 1:
        return at / xs[0] * ys[0]
    right = min(max(bisect.bisect_left(xs, at), 1), len(xs) - 1)
    slope = (ys[right] - ys[right - 1]) / (xs[right] - xs[right - 1])
    return max(0.0, ys[right] + slope * (at - xs[right]))
