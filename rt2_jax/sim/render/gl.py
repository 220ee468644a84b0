"""Pictures from MuJoCo's own OpenGL renderer, off screen, with OSMesa or EGL."""

from __future__ import annotations

import copy
import importlib
import weakref
from typing import Any

import mujoco
import numpy as np

from rt2_jax.sim.render.camera import find_camera
from rt2_jax.sim.render.probe import probe
from rt2_jax.sim.render.settings import RenderSettings

_SAMPLES = 4  # per pixel with `antialias`
_SHADOW_MAP = 1024  # texels a side; MuJoCo's 4096 takes several times as long on a CPU


class GLRenderer:
    """Draws with one GL context for all scenes; each scene has its own textures and shapes in it.

    Only geoms are drawn (no sites, tendons or other markers), as by the `ray` renderer.
    """

    def __init__(self, settings: RenderSettings) -> None:
        """Makes the GL context.

        Raises:
          RuntimeError: the GL library doesn't work here; the message says what to install.
        """
        self.settings = settings
        probe(settings.renderer)
        library = importlib.import_module(f"mujoco.{settings.renderer}")
        self._context = library.GLContext(settings.width, settings.height)
        self._drawing: list[mujoco.MjrContext] = []  # of the loaded scene, at most one
        # At the interpreter's end GL is gone before this object would be.
        self._free = weakref.finalize(self, _free, self._context, self._drawing)
        self._model: mujoco.MjModel | None = None
        self._camera = mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
        self._options = mujoco.MjvOption()
        self._options.sitegroup[:] = 0
        self._options.tendongroup[:] = 0
        self._viewport = mujoco.MjrRect(0, 0, settings.width, settings.height)

    def load(self, model: mujoco.MjModel) -> None:
        """Takes a new scene and brings its textures and shapes into the GL context."""
        self._model = None  # should this fail, no scene is loaded
        model = copy.copy(model)
        model.vis.global_.offwidth = self.settings.width
        model.vis.global_.offheight = self.settings.height
        model.vis.quality.offsamples = _SAMPLES if self.settings.antialias else 0
        model.vis.quality.shadowsize = _SHADOW_MAP
        if not self.settings.shadows:
            model.light_castshadow[:] = False
        self._context.make_current()
        while self._drawing:
            self._drawing.pop().free()
        drawing = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100.value)
        self._drawing.append(drawing)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, drawing)
        self._scene = mujoco.MjvScene(model, maxgeom=model.ngeom + model.nflex + model.nskin)
        self._model = model

    def render(self, data: mujoco.MjData, camera: str) -> np.ndarray:
        """A picture, uint8 [height, width, 3]; see `Renderer.render`."""
        self._camera.fixedcamid = find_camera(self._model, data, camera)
        self._context.make_current()
        mujoco.mjv_updateScene(
            self._model,
            data,
            self._options,
            None,
            self._camera,
            mujoco.mjtCatBit.mjCAT_ALL.value,
            self._scene,
        )
        mujoco.mjr_render(self._viewport, self._scene, self._drawing[0])
        picture = np.empty((self.settings.height, self.settings.width, 3), np.uint8)
        mujoco.mjr_readPixels(picture, None, self._viewport, self._drawing[0])
        return picture[::-1].copy()  # GL's first row is the lowest

    def close(self) -> None:
        """Frees the GL context."""
        self._model = None
        self._free()


def _free(context: Any, drawing: list[mujoco.MjrContext]) -> None:
    context.make_current()
    while drawing:
        drawing.pop().free()
    context.free()
