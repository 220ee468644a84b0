"""How long the model takes for a batch of each size, as measured lately."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

_KEPT = 15  # of each size: a few slow ones do not move the middle, and a change is seen soon
_STALE_S = 1.0
_FORGET_S = 10.0  # so that a size that was slow once is tried again


def powers_of_two(largest: int) -> tuple[int, ...]:
    """1, 2, 4, ... up to the first that is not below `largest`."""
    return tuple(2**i for i in range((largest - 1).bit_length() + 1))


class StepTimes:
    """The middle of the latest measured times for each size of a batch.

    The middle of an even number is the lower one of the two: where in doubt, a request is tried.

    Args:
      sizes: that batches are padded to, rising.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        self.sizes = tuple(sorted(set(sizes)))
        self._measured: dict[int, deque[float]] = {}
        self._middle: dict[int, float] = {}
        self._when: dict[int, float] = {}

    def padded(self, count: int) -> int:
        """The size of the program that answers `count` requests."""
        return next((size for size in self.sizes if size >= count), self.sizes[-1])

    def note(self, count: int, seconds: float, now: float) -> None:
        """Notes that a batch of `count` requests took so long."""
        size = self.padded(count)
        kept = self._measured.setdefault(size, deque(maxlen=_KEPT))
        kept.append(seconds)
        self._middle[size] = sorted(kept)[(len(kept) - 1) // 2]
        self._when[size] = now
        for other in [each for each, when in self._when.items() if now - when > _FORGET_S]:
            del self._measured[other], self._middle[other], self._when[other]

    def expected(self, count: int) -> float:
        """Seconds that a batch of `count` requests takes; 0 where nothing is known.

        A size that was never measured takes at least as long as a smaller one.
        """
        size = self.padded(count)
        if size not in self._middle:
            return max((time for known, time in self._middle.items() if known < size), default=0.0)
        return self._middle[size]

    def doubtful(self, count: int, now: float) -> bool:
        """Whether that was not measured in the last second, so that it is worth a try."""
        return now - self._when.get(self.padded(count), float("-inf")) > _STALE_S

    def per_second(self) -> float:
        """Requests that the model can answer in a second; 0 where nothing is known."""
        return max((size / max(time, 1e-6) for size, time in self._middle.items()), default=0.0)

    def measured(self) -> dict[int, float]:
        """Size -> seconds, of all that are known."""
        return dict(self._middle)
