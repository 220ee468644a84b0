"""The one interface of all renderers, and the choice between them."""

from __future__ import annotations

from typing import Protocol

import mujoco
import numpy as np

from rt2_jax.sim.render.settings import RenderSettings


class Renderer(Protocol):
    """Draws what a camera of a MuJoCo scene sees.

    Make one and keep it: what is slow to set up (a GL context) is reused from scene to scene.
    """

    settings: RenderSettings

    def load(self, model: mujoco.MjModel) -> None:
        """Takes a new scene. Colours, sizes and textures are those of this moment.

        Raises:
          ValueError: the scene has something that this renderer can't draw.
        """

    def render(self, data: mujoco.MjData, camera: str) -> np.ndarray:
        """A picture, uint8 [height, width, 3], of the loaded scene in the state `data`.

        `data` belongs to the loaded model (or one of equal structure) and is up to date
        (`mj_forward` or `mj_step` came before).

        Raises:
          KeyError: the scene has no camera of this name.
          RuntimeError: no scene is loaded.
        """

    def close(self) -> None:
        """Frees what the renderer holds. It can't be used afterwards."""


def make_renderer(settings: RenderSettings) -> Renderer:
    """The renderer that the settings name.

    Raises:
      RuntimeError: a GL renderer doesn't work here; the message says what to install.
    """
    if settings.renderer == "ray":
        from rt2_jax.sim.render.ray import RayRenderer

        return RayRenderer(settings)
    from rt2_jax.sim.render.gl import GLRenderer

    return GLRenderer(settings)
