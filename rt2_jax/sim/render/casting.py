"""Rays against all visible geoms of a scene in one call, with exactly `mj_ray`'s answers."""

from __future__ import annotations

import copy

import mujoco
import numpy as np

# Newer releases (4.x) take an output array for normals before `nray`; 3.3 doesn't.
_NORMALS = (None,) if "normal" in (mujoco.mj_multiRay.__doc__ or "") else ()
_FARTHEST = 1e9  # metres
_MARGIN = 1e-4  # of a cosine: far above what float32 rounds away


class RayCaster:
    """Finds the nearest surface along rays that leave one point.

    `mj_multiRay` skips bodies whose bounding sphere a ray misses, and that sphere (the root of the
    body's volume hierarchy) holds only the geoms that collide: visual geoms of a body that also
    has colliding ones lose pixels (3.3.0 to 4.0.0; `engine_ray.c`, `mjCBoundingVolumeHierarchy`).
    A body without a hierarchy is never skipped, so the caster works on copies of the model that
    have none.
    """

    def __init__(self, model: mujoco.MjModel, visible: np.ndarray) -> None:
        """Takes the scene; geoms with `visible` (bool [ngeom]) False are no obstacle."""
        scenery = model.body_weldid[model.geom_bodyid] == 0
        self._movable = np.flatnonzero(visible & ~scenery)
        self._radius = model.geom_rbound[self._movable]
        self._all = _without_culling(model, visible)
        self._scenery = _without_culling(model, visible & scenery)

    def cast(
        self, data: mujoco.MjData, origin: np.ndarray, rays: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The hits of rays from `origin` [3] along `rays` float64 [3, n].

        Returns:
          The geom that each ray hits, int32 [n], -1 for none; and how far, float64 [n], in lengths
          of the ray, -1 for none.
        """
        count = rays.shape[1]
        geom, reach = np.empty(count, np.int32), np.empty(count)
        near = self._near_movable(data, origin, rays)
        rays = np.ascontiguousarray(rays.T)
        for model, at in (
            (self._all, np.flatnonzero(near)),
            (self._scenery, np.flatnonzero(~near)),
        ):
            found, distance = np.empty(len(at), np.int32), np.empty(len(at))
            mujoco.mj_multiRay(
                model,
                data,
                origin,
                rays.take(at, axis=0).reshape(-1),
                None,
                1,
                -1,
                found,
                distance,
                *_NORMALS,
                len(at),
                _FARTHEST,
            )
            geom[at], reach[at] = found, distance
        return geom, reach

    def _near_movable(
        self, data: mujoco.MjData, origin: np.ndarray, rays: np.ndarray
    ) -> np.ndarray:
        """Which rays may meet something movable, bool [n]: those that meet a bounding sphere.

        Few do; the others are tried against the scenery alone, which saves most of the time.
        """
        towards = data.geom_xpos[self._movable] - origin
        distance = np.maximum(np.sqrt((towards * towards).sum(axis=1)), 1e-9)
        sine = np.minimum(self._radius / distance, 1)
        # Too many candidates cost time only, too few would lose hits: hence the margin.
        cosine = np.where(sine < 1, np.sqrt(1 - sine * sine), -1) - _MARGIN
        axes = (towards / distance[:, None]).astype(np.float32)
        x, y, z = rays = rays.astype(np.float32)
        along = np.einsum("gi,in->gn", axes, rays / np.sqrt(x * x + y * y + z * z))
        return (along >= cosine.astype(np.float32)[:, None]).any(axis=0)


def _without_culling(model: mujoco.MjModel, visible: np.ndarray) -> mujoco.MjModel:
    """A copy of the model that `mj_multiRay` answers exactly for."""
    model = copy.copy(model)
    model.body_bvhadr[:] = -1
    model.geom_matid[:] = -1  # a geom without material is skipped where its own alpha is 0
    model.geom_rgba[:, 3] = visible
    return model
