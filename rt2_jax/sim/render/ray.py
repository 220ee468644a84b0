"""Pictures from MuJoCo's ray caster and NumPy: no GL library, the same pixels everywhere.

Only exactly rounded operations make the pixels (no matrix products, powers or logarithms), so that
neither the kind of CPU nor the number of threads changes them.
"""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np

from rt2_jax.sim.render.camera import View, find_view
from rt2_jax.sim.render.casting import RayCaster
from rt2_jax.sim.render.light import Lights, facing
from rt2_jax.sim.render.settings import RenderSettings
from rt2_jax.sim.render.surface import SURFACES, Surfaces, put
from rt2_jax.sim.render.texture import coverings, texels_of

_EDGE = 0.1  # difference in light between neighbours that makes an edge
_STEP = 1 / 3  # pixels: where an edge's second and third ray go, on a diagonal through the first
_GRAZING = np.float32(0.05)  # keeps pixels at the horizon finite
_DEFAULT_RGBA = np.array([0.5, 0.5, 0.5, 1], np.float32)  # of a geom that has none of its own


@dataclass(frozen=True)
class _Samples:
    """What n rays saw: geom int32 [n] (-1 for none), light float32 [n], colour float32 [3, n]."""

    geom: np.ndarray
    light: np.ndarray
    colour: np.ndarray


class RayRenderer:
    """Draws planes, boxes, spheres, ellipsoids, cylinders, capsules and meshes (flat shaded).

    Drawn as in MuJoCo's GL renderer: colours, textures, the headlight, diffuse light. Not drawn:
    highlights, mirrors, emission, haze, and the skybox, of which the mean colour stands behind the
    scene. A geom that is half transparent, or of another type, is refused.
    """

    def __init__(self, settings: RenderSettings) -> None:
        self.settings = settings
        self._model: mujoco.MjModel | None = None
        rows, columns = np.mgrid[: settings.height, : settings.width]
        self._x = (columns + 0.5 - settings.width / 2).ravel()
        self._y = (settings.height / 2 - rows - 0.5).ravel()

    def load(self, model: mujoco.MjModel) -> None:
        """Takes a new scene.

        Raises:
          ValueError: it has something that can't be drawn here; the message names it.
        """
        self._model = None  # should this fail, no scene is loaded
        rgba = _rgba(model)
        visible = (rgba[:, 3] > 0) & (model.geom_group < 3)
        _check(model, rgba, visible)
        self._caster = RayCaster(model, visible)
        self._lights = Lights(model, self._caster, self.settings.shadows)
        self._surfaces = Surfaces(model, visible)
        self._coverings = coverings(model, visible, self._surfaces.scale)
        self._rgb = rgba[:, :3].T.copy()
        self._background = _background(model)
        self._model = model

    def render(self, data: mujoco.MjData, camera: str) -> np.ndarray:
        """A picture, uint8 [height, width, 3]; see `Renderer.render`."""
        view = find_view(self._model, data, camera, self.settings.height)
        samples = self._look(data, view, self._x, self._y)
        colour = samples.colour
        if self.settings.antialias:
            at = np.flatnonzero(self._edges(samples))
            x, y = self._x[at], self._y[at]
            x, y = np.concatenate([x - _STEP, x + _STEP]), np.concatenate([y - _STEP, y + _STEP])
            more = self._look(data, view, x, y).colour.reshape(3, 2, -1)
            put(colour, at, (colour.take(at, axis=1) + more[:, 0] + more[:, 1]) / 3)
        colour = np.minimum(colour, 1) * 255 + np.float32(0.5)
        return colour.astype(np.uint8).T.reshape(self.settings.height, self.settings.width, 3)

    def close(self) -> None:
        """Lets the scene go."""
        self._model = None

    def _look(self, data: mujoco.MjData, view: View, x: np.ndarray, y: np.ndarray) -> _Samples:
        """What is seen through points of the picture, in pixels right and up of its middle."""
        right, up, back = view.axes[..., None]
        rays = (x * view.pixel) * right + (y * view.pixel) * up - back
        geom, depth = self._caster.cast(data, view.origin, rays)
        hit = np.flatnonzero(geom >= 0)
        if len(hit) == len(geom):
            return _Samples(geom, *self._shine(data, view, geom, rays, depth))
        light = np.zeros(len(geom), np.float32)
        colour = np.repeat(self._background[:, None], len(geom), axis=1)
        rays = rays.take(hit, axis=1)
        seen = self._shine(data, view, geom.take(hit), rays, depth.take(hit))
        light[hit] = seen[0]
        put(colour, hit, seen[1])
        return _Samples(geom, light, colour)

    def _shine(
        self,
        data: mujoco.MjData,
        view: View,
        geom: np.ndarray,
        rays: np.ndarray,
        depth: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Green light [n] and colour [3, n] of the points where rays [3, n] end."""
        reach = rays * depth
        pose = np.concatenate(
            [data.geom_xmat.T, (data.geom_xpos - view.origin).T, self._surfaces.scale, self._rgb]
        )
        pose = pose.astype(np.float32).take(geom, axis=1)
        turn, centre, scale, colour = pose[:9].reshape(3, 3, -1), pose[9:12], pose[12:15], pose[15:]
        points = _combine(turn, reach.astype(np.float32) - centre)
        scaled = points / scale
        own_normals = self._surfaces.normals(geom, points, scaled)
        normals = _combine(turn.swapaxes(0, 1), own_normals)
        light = self._lights.at(data, view, reach + view.origin[:, None], normals)
        for covered, covering in self._coverings.items():
            at = np.flatnonzero(geom == covered)
            if len(at):
                x, y, z = ray = rays.take(at, axis=1).astype(np.float32)
                slant = facing(normals.take(at, axis=1), -ray) / np.sqrt(x * x + y * y + z * z)
                width = depth.take(at).astype(np.float32) * np.float32(view.pixel)
                width /= np.sqrt(slant + _GRAZING)
                texels = covering.colours(
                    scaled.take(at, axis=1), own_normals.take(at, axis=1), width
                )
                put(colour, at, colour.take(at, axis=1) * texels)
        return light[1], colour * light

    def _edges(self, samples: _Samples) -> np.ndarray:
        """Which pixels see another geom or another light than a neighbour, bool [height, width]."""
        shape = (self.settings.height, self.settings.width)
        geom, light = samples.geom.reshape(shape), samples.light.reshape(shape)
        edges = np.zeros(shape, bool)
        for one, other in ((np.s_[:, 1:], np.s_[:, :-1]), (np.s_[1:], np.s_[:-1])):
            differ = (geom[one] != geom[other]) | (np.abs(light[one] - light[other]) > _EDGE)
            edges[one] |= differ
            edges[other] |= differ
        return edges


def _combine(columns: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Sums `columns` [3, 3, n], each times its weight of `weights` [3, n]: float32 [3, n]."""
    return columns[0] * weights[0] + columns[1] * weights[1] + columns[2] * weights[2]


def _rgba(model: mujoco.MjModel) -> np.ndarray:
    """Every geom's colour, float32 [ngeom, 4]: its material's unless it has one of its own."""
    rgba = model.geom_rgba.copy()
    plain = (model.geom_matid >= 0) & (rgba == _DEFAULT_RGBA).all(axis=1)
    rgba[plain] = model.mat_rgba[model.geom_matid[plain]]
    return rgba


def _background(model: mujoco.MjModel) -> np.ndarray:
    """The mean colour of the first skybox, float32 [3]; black where there is none, as in GL."""
    for texture in np.flatnonzero(model.tex_type == int(mujoco.mjtTexture.mjTEXTURE_SKYBOX)):
        return (texels_of(model, int(texture)).mean(axis=(0, 1)) / 255).astype(np.float32)
    return np.zeros(3, np.float32)


def _check(model: mujoco.MjModel, rgba: np.ndarray, visible: np.ndarray) -> None:
    """Refuses what this renderer would leave out or draw wrongly."""
    instead = "use the renderer osmesa or egl"
    if model.nflex or model.nskin:
        raise ValueError(
            f"the scene has {model.nflex} flexes and {model.nskin} skins, which the `ray` renderer "
            f"doesn't draw; {instead}"
        )
    for geom in np.flatnonzero(visible):
        name = f"geom {geom} ({model.geom(geom).name!r})"
        kind = mujoco.mjtGeom(model.geom_type[geom])
        if kind not in SURFACES:
            raise ValueError(
                f"{name} is of type {kind.name}, which the `ray` renderer doesn't draw; {instead}"
            )
        if rgba[geom, 3] < 1:
            raise ValueError(
                f"{name} is half transparent (alpha {rgba[geom, 3]:g}), and the `ray` renderer "
                f"draws opaque geoms only: set alpha to 0 (invisible) or 1, or {instead}"
            )
