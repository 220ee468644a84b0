"""How much light reaches the points of a scene."""

from __future__ import annotations

import mujoco
import numpy as np

from rt2_jax.sim.render.camera import View
from rt2_jax.sim.render.casting import RayCaster

_GAP = 1e-3  # metres: a light's ray that stops nearer to the point than this reaches it
_FAR = 100.0  # how far away a directional light stands, in extents of the scene
# mjtLightType; mujoco 3.3.0 has the flag `light_directional` instead.
_DIRECTIONAL, _IMAGE = 1, 3


class Lights:
    """Lambert's law for the headlight and the scene's lights, as in OpenGL's fixed pipeline.

    A spot shines in all directions, undimmed by distance. Only the first light with `castshadow`
    casts shadows: its rays to the points all leave one place, and such rays the caster is fast at.
    Image lights give none, as in MuJoCo's GL renderer.
    """

    def __init__(self, model: mujoco.MjModel, caster: RayCaster, shadows: bool) -> None:
        self._caster = caster
        kinds = model.light_type if hasattr(model, "light_type") else model.light_directional
        self._lamps = np.flatnonzero(model.light_active & (kinds < _IMAGE))
        self._directional = kinds == _DIRECTIONAL
        self._diffuse = model.light_diffuse.astype(np.float32)[..., None]
        casting = self._lamps[model.light_castshadow[self._lamps].astype(bool)]
        self._casting = casting[0] if shadows and len(casting) else None
        self._distance = _FAR * model.stat.extent
        self._centre = model.stat.center.copy()
        head = model.vis.headlight
        share = np.float32(head.active != 0)
        self._head = head.diffuse[:, None] * share
        ambient = head.ambient * share + model.light_ambient[self._lamps].sum(axis=0)
        self._ambient = ambient.astype(np.float32)[:, None]

    def at(
        self, data: mujoco.MjData, view: View, points: np.ndarray, normals: np.ndarray
    ) -> np.ndarray:
        """Light of each colour, float32 [3, n]; 1 shows a surface in its own colour.

        Args:
          data: the scene's state.
          view: the camera, which carries the headlight.
          points: float64 [3, n] in the world.
          normals: float32 [3, n] in the world.
        """
        light = self._ambient + self._head * facing(normals, view.axes[2].astype(np.float32))
        for lamp in self._lamps:
            place, towards = data.light_xpos[lamp], -data.light_xdir[lamp]
            if self._directional[lamp]:
                place = self._centre + towards * self._distance
                strength = facing(normals, towards.astype(np.float32))
            else:
                x, y, z = away = (place[:, None] - points).astype(np.float32)
                strength = facing(normals, away) / np.sqrt(x * x + y * y + z * z)
            if lamp == self._casting:
                self._shade(data, place, points, strength)
            light += self._diffuse[lamp] * strength
        return light

    def _shade(
        self, data: mujoco.MjData, place: np.ndarray, points: np.ndarray, strength: np.ndarray
    ) -> None:
        """Sets the strength to 0 where something stands between the light and the point."""
        lit = np.flatnonzero(strength)
        x, y, z = rays = points.take(lit, axis=1) - place[:, None]
        _, reach = self._caster.cast(data, place, rays)
        blocked = (reach >= 0) & (reach < 1 - _GAP / np.sqrt(x * x + y * y + z * z))
        strength[lit[blocked]] = 0


def facing(normals: np.ndarray, towards: np.ndarray) -> np.ndarray:
    """The dot products of vectors [3, n] and [3] or [3, n], float32 [n], or 0 where negative."""
    x, y, z = normals
    return np.maximum(x * towards[0] + y * towards[1] + z * towards[2], 0)
