"""Pictures that the world is covered with: table tops and cubes with a symbol, as PNG bytes."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping

import numpy as np
from PIL import Image

from rt2_jax.sim.world import TABLE_PATTERNS, Table

TABLE_PIXELS = 256
_DOT_PIXELS = 6
_MARGIN_DOTS = (2, 1)  # columns and rows left blank around a 5 x 7 symbol, so that a face is square
_PAPER, _INK = (246, 244, 238), (24, 24, 28)


def table_texture(table: Table, random: np.random.Generator) -> bytes:
    """A PNG [256, 256, 3] of the table's pattern; every call with new random numbers differs."""
    mix = np.clip(_PATTERNS[table.pattern](random), 0.0, 1.0)[..., None]
    first, second = (np.asarray(colour, np.float64) for colour in table.colours)
    return _png(first + mix * (second - first))


def symbol_texture(dots: tuple[str, ...]) -> bytes:
    """A PNG [54, 54, 3] of one 5 x 7 symbol, dark on light: the face of a symbol cube."""
    ink = np.array([[dot == "#" for dot in row] for row in dots])
    columns, rows = _MARGIN_DOTS
    ink = np.pad(ink, ((rows, rows), (columns, columns)))
    ink = np.kron(ink, np.ones((_DOT_PIXELS, _DOT_PIXELS), bool))
    return _png(np.where(ink[..., None], _INK, _PAPER))


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    image = Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))
    image.save(buffer, "PNG", compress_level=1)  # MuJoCo reads it at once; nobody stores it
    return buffer.getvalue()


def _grid() -> tuple[np.ndarray, np.ndarray]:
    rows, columns = np.mgrid[0:TABLE_PIXELS, 0:TABLE_PIXELS] / TABLE_PIXELS
    return rows, columns


def _smooth_noise(random: np.random.Generator, cells: int) -> np.ndarray:
    """Noise in 0..1 that varies over 1/cells of the picture, by bicubic enlargement."""
    coarse = Image.fromarray((random.random((cells, cells)) * 255).astype(np.uint8))
    return np.asarray(coarse.resize((TABLE_PIXELS, TABLE_PIXELS), Image.Resampling.BICUBIC)) / 255


def _plain(random: np.random.Generator) -> np.ndarray:
    return _smooth_noise(random, 4)


def _wood(random: np.random.Generator) -> np.ndarray:
    rows, _ = _grid()
    bend = 0.05 * _smooth_noise(random, 5)
    grain = np.sin(2 * np.pi * (10 + 6 * random.random()) * (rows + bend))
    return 0.5 + 0.4 * grain + 0.2 * (_smooth_noise(random, 64) - 0.5)


def _marble(random: np.random.Generator) -> np.ndarray:
    rows, columns = _grid()
    cloud = _smooth_noise(random, 8) + 0.4 * _smooth_noise(random, 32)
    return np.abs(np.sin(2 * np.pi * (columns + 0.7 * rows + 0.6 * cloud))) ** 8


def _speckle(random: np.random.Generator) -> np.ndarray:
    return _smooth_noise(random, 96)


def _weave(random: np.random.Generator) -> np.ndarray:
    rows, columns = _grid()
    threads = 40 + 16 * random.random()
    return 0.5 + 0.5 * np.sin(2 * np.pi * threads * rows) * np.sin(2 * np.pi * threads * columns)


def _checker(random: np.random.Generator) -> np.ndarray:
    rows, columns = _grid()
    fields = int(random.integers(4, 9))
    return (np.floor(rows * fields) + np.floor(columns * fields)) % 2


def _stripes(random: np.random.Generator) -> np.ndarray:
    _, columns = _grid()
    return (np.floor(columns * int(random.integers(8, 17)))) % 2


_PATTERNS: Mapping[str, Callable[[np.random.Generator], np.ndarray]] = {
    "plain": _plain,
    "wood": _wood,
    "marble": _marble,
    "speckle": _speckle,
    "weave": _weave,
    "checker": _checker,
    "stripes": _stripes,
}
assert set(_PATTERNS) == set(TABLE_PATTERNS)
