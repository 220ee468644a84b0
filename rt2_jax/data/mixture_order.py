"""Which source a place in the stream of examples is of: a mixture's shares, exactly and evenly."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import grain
import numpy as np

ENDLESS = 2**62
_PRECISION = 250  # of the least share in a period: rounding it errs by 1 part in 500 at most
_LONGEST_PERIOD = 2**22


class MixtureOrder(grain.transforms.DatasetSelectionMap):
    """An endless order of sources that repeats after a period, in which each has its share.

    In a period source i comes n_i times, at the times (j + 1/2) / n_i of its length (j from 0 on),
    as stride scheduling does (Waldspurger and Weihl 1995, section 2). So every part of the stream,
    and so every batch, holds the shares too: a source is off by less than 1 + sources * share / 2
    examples.

    Args:
      shares: of the sources, positive; their sum is 1 or is made to be.
      taken: how many examples of each source were taken before this order begins; None for none.

    Attributes:
      counts: int64 [sources], how often each comes in a period.

    Raises:
      ValueError: no sources, a share that is no positive number, or one below 1 part in 16,000,
        which a period of bearable length cannot hold.
    """

    def __init__(self, shares: Sequence[float], taken: Sequence[int] | None = None) -> None:
        wanted = np.asarray(shares, np.float64)
        if wanted.ndim != 1 or not len(wanted) or not (np.isfinite(wanted) & (wanted > 0)).all():
            raise ValueError(f"shares: found {list(shares)}, expected some positive numbers")
        wanted = wanted / wanted.sum()
        period = int(np.ceil(_PRECISION / wanted.min()))
        if period > _LONGEST_PERIOD:
            raise ValueError(
                f"shares: the least is {wanted.min():.2g} of the mixture, expected at least "
                f"{_PRECISION / _LONGEST_PERIOD:.2g}; give it a larger rate, or leave it out"
            )
        self.counts = _round(wanted, period)
        times = np.concatenate([(np.arange(count) + 0.5) / count for count in self.counts])
        sources = np.repeat(np.arange(len(wanted)), self.counts)
        self._sources = sources[np.argsort(times, kind="stable")].astype(np.uint16)
        self._numbers = np.zeros(period, np.uint32)
        for source, count in enumerate(self.counts):
            self._numbers[self._sources == source] = np.arange(count)
        self._taken = np.zeros(len(wanted), np.int64)
        if taken is not None:
            self._taken[:] = taken

    def __len__(self) -> int:
        return ENDLESS

    def __getitem__(self, index: int) -> tuple[int, int]:
        """(source, number of the example among those of its source) of a place in the stream."""
        period, place = divmod(index, len(self._sources))
        source = int(self._sources[place])
        number = period * int(self.counts[source]) + int(self._numbers[place])
        return source, int(self._taken[source]) + number

    def taken(self, index: int) -> np.ndarray:
        """How many examples of each source stand before a place in the stream, int64 [sources]."""
        period, place = divmod(index, len(self._sources))
        part = np.bincount(self._sources[:place], minlength=len(self.counts))
        return self._taken + period * self.counts + part


def source_seed(seed: int, name: str, purpose: str) -> int:
    """A seed of a source, 0 to 2**32 - 1: the same in every mixture, other for every source."""
    text = f"{seed}\n{name}\n{purpose}".encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:4], "little")


def _round(shares: np.ndarray, total: int) -> np.ndarray:
    """Whole numbers of this sum in these shares, by the largest remainders."""
    exact = shares * total
    counts = np.floor(exact).astype(np.int64)
    missing = total - int(counts.sum())
    counts[np.argsort(counts - exact, kind="stable")[:missing]] += 1
    return counts
