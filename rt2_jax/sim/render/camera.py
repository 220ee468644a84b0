"""Where a camera of the scene stands and what it sees."""

from __future__ import annotations

import math
from dataclasses import dataclass

import mujoco
import numpy as np


@dataclass(frozen=True)
class View:
    """A pinhole camera.

    Attributes:
      origin: its place in the world, float64 [3], metres.
      axes: right, up and back in the world, float64 [3, 3], one a row.
      pixel: the width of a pixel at depth 1.
    """

    origin: np.ndarray
    axes: np.ndarray
    pixel: float

    def project(self, points: np.ndarray) -> np.ndarray:
        """Where points of the world, float [N, 3], are seen: float [N, 2], pixels.

        They are (rows down, columns right) from the middle of the picture.
        """
        right, up, back = self.axes @ (np.asarray(points) - self.origin).T
        return np.stack([up / back, right / -back], axis=1) / self.pixel


def find_camera(model: mujoco.MjModel | None, data: mujoco.MjData, name: str) -> int:
    """The camera's number.

    Raises:
      RuntimeError: there is no model.
      ValueError: the data belongs to a model of another structure.
      KeyError: the model has no such camera.
    """
    if model is None:
        raise RuntimeError("no scene is loaded: call load(model) before render(data, camera)")
    found, expected = (len(data.geom_xpos), len(data.cam_xpos)), (model.ngeom, model.ncam)
    if found != expected:
        raise ValueError(
            f"data: found {found[0]} geoms and {found[1]} cameras, expected {expected[0]} and "
            f"{expected[1]} as in the loaded model; call load(model) when the scene changes"
        )
    camera = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_CAMERA, name)
    if camera < 0:
        names = ", ".join(model.camera(i).name or f"(unnamed {i})" for i in range(model.ncam))
        raise KeyError(f"camera {name!r} isn't in the scene; it has: {names or 'no camera'}")
    return camera


def find_view(model: mujoco.MjModel | None, data: mujoco.MjData, name: str, height: int) -> View:
    """The view of the camera called `name` for a picture `height` pixels high.

    Raises: as `find_camera`; and ValueError for an orthographic or off-centre camera.
    """
    camera = find_camera(model, data, name)
    assert model is not None
    kinds = model.cam_projection if hasattr(model, "cam_projection") else model.cam_orthographic
    if kinds[camera] or model.cam_sensorsize[camera].any():
        raise ValueError(
            f"camera {name!r} is orthographic or has a sensor size: the `ray` renderer draws "
            "cameras that `fovy` alone describes; use the renderer osmesa or egl"
        )
    pixel = 2 * math.tan(math.radians(model.cam_fovy[camera]) / 2) / height
    axes = data.cam_xmat[camera].reshape(3, 3).T
    return View(data.cam_xpos[camera].copy(), axes.copy(), pixel)
