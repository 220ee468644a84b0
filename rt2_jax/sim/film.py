"""Films of episodes, as GIFs that a person can follow."""

from __future__ import annotations

import pathlib

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from rt2_jax.sim.env import TabletopEnv
from rt2_jax.sim.render import RenderSettings, make_renderer
from rt2_jax.sim.rollout import Outcome
from rt2_jax.sim.simulation import TABLETOP_ACTIONS

_BAR = 46  # pixels of the caption under the picture
_HOLD = 7  # control steps that the last picture stays
_PAPER, _TEXT, _GOOD, _BAD = (250, 250, 248), (30, 30, 34), (20, 120, 50), (176, 32, 32)


class Film:
    """Collects pictures while episodes are played: pass `watch` to `rt2_jax.sim.rollout.play`.

    Args:
      path: of the animated GIF.
      render: the pictures' size and renderer; they may be larger than what the policy sees.
      camera: whose pictures.

    Raises:
      ValueError: the path does not end in `.gif`.
      OSError: the film cannot be written there.
    """

    def __init__(
        self, path: str | pathlib.Path, render: RenderSettings, *, camera: str = "front"
    ) -> None:
        self._path, self._camera = pathlib.Path(path), camera
        if self._path.suffix.lower() != ".gif":
            raise ValueError(f"film: found {str(path)!r}, expected a name that ends in .gif")
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("ab"):  # a place that cannot be written is known before the play
            pass
        self._renderer = make_renderer(render)
        self._model: object = None
        self._episode: list[np.ndarray] = []
        self._frames: list[Image.Image] = []

    def watch(self, env: TabletopEnv) -> None:
        """Takes one picture of the environment's present state."""
        if env.simulation.model is not self._model:
            self._model = env.simulation.model
            self._renderer.load(env.simulation.model)
        self._episode.append(self._renderer.render(env.simulation.data, self._camera))

    def end_episode(self, outcome: Outcome) -> None:
        """Captions the pictures of the episode that has just been played."""
        for step, picture in enumerate(self._episode):
            last = step == len(self._episode) - 1
            self._frames += [self._caption(picture, outcome, step, last)] * (_HOLD if last else 1)
        self._episode = []

    def _caption(self, picture: np.ndarray, outcome: Outcome, step: int, last: bool) -> Image.Image:
        height, width, _ = picture.shape
        frame = Image.new("RGB", (width, height + _BAR), _PAPER)
        frame.paste(Image.fromarray(picture))
        draw = ImageDraw.Draw(frame)
        words = f"\u201c{outcome.instruction}\u201d"
        draw.text((8, height + 5), words, _TEXT, _fitting_font(words, width - 16))
        line, colour = f"seed {outcome.seed}   step {step}", _TEXT
        if last:
            line += "   success" if outcome.success else f"   failure: {outcome.reason}"
            colour = _GOOD if outcome.success else _BAD
        draw.text((8, height + 26), line, colour, _fitting_font(line, width - 16))
        return frame

    def save(self) -> None:
        """Writes the film, at the robot's own speed.

        Raises:
          ValueError: nothing has been filmed.
        """
        if not self._frames:
            raise ValueError(f"film {self._path}: no episode has been played")
        first, *rest = self._frames
        first.save(
            self._path,
            save_all=True,
            append_images=rest,
            duration=round(1000 / TABLETOP_ACTIONS.control_rate_hz),
            loop=0,
            optimize=True,
        )

    def close(self) -> None:
        """Frees the renderer."""
        self._renderer.close()


def _fitting_font(text: str, width: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The largest of a few sizes at which the text fits."""
    for size in (15, 13, 11, 9):
        font = ImageFont.load_default(size)
        if font.getlength(text) <= width:
            break
    return font
