"""The GL renderers: like the `ray` renderer where they work, a clear message where they don't."""

from __future__ import annotations

import os
import subprocess
import sys

import mujoco
import numpy as np
import pytest

from rt2_jax.sim.render import RenderSettings, make_renderer
from rt2_jax.sim.render.probe import probe

SCENE = """<mujoco>
  <visual><headlight ambient=".5 .5 .5" diffuse=".2 .2 .2" specular="0 0 0"/></visual>
  <asset>
    <texture name="board" type="2d" builtin="gradient" rgb1="1 .9 .5" rgb2=".1 .3 .9"
      width="64" height="64"/>
    <texture name="faces" type="cube" rgb1="1 0 0" rgb2="0 0 1" builtin="gradient" mark="edge"
      markrgb="0 1 0" width="32" height="192"/>
    <material name="board" texture="board" specular="0"/>
    <material name="faces" texture="faces" specular="0"/>
    <material name="dull" specular="0"/>
    <mesh name="wedge" vertex="0 0 0 .2 0 0 0 .2 0 0 0 .12"/>
  </asset>
  <worldbody>
    <light pos=".4 -.5 1.5" directional="true" dir="-.2 .3 -1" diffuse=".4 .4 .4" specular="0 0 0"/>
    <camera name="down" pos="0 0 1" xyaxes="1 0 0 0 1 0" fovy="60"/>
    <camera name="side" pos="0 -.9 .5" xyaxes="1 0 0 0 .5 .87" fovy="50"/>
    <camera name="back" pos="0 .9 .5" xyaxes="-1 0 0 0 -.5 .87" fovy="50"/>
    <geom type="box" size=".5 .5 .05" pos="0 0 -.05" material="board"/>
    <geom type="box" size=".1 .1 .1" pos="-.2 .2 .1" euler="0 0 20" material="faces"/>
    <geom type="box" size=".1 .1 .1" pos=".2 .2 .1" euler="180 0 30" material="faces"/>
    <geom type="sphere" size=".07" pos="0 0 .07" material="dull" rgba=".1 .2 .8 1"/>
    <geom type="capsule" size=".04 .06" pos="-.25 -.2 .1" euler="60 0 30" material="dull"
      rgba=".7 .1 .6 1"/>
    <geom type="cylinder" size=".06 .05" pos="0 -.25 .05" material="dull" rgba=".9 .5 .1 1"/>
    <geom type="mesh" mesh="wedge" pos=".25 -.2 .06" material="dull" rgba=".9 .8 .1 1"/>
    <site name="marker" pos="0 0 .3" size=".1" rgba="1 0 1 1"/>
  </worldbody>
</mujoco>"""
OTHER = """<mujoco><worldbody><camera name="down" pos="0 0 1"/>
  <geom type="sphere" size=".2" rgba="1 0 0 1"/></worldbody></mujoco>"""
CAMERAS = ("down", "side", "back")
LIBRARIES = ("osmesa", "egl")
# One process can use one GL library, so each gets a process of its own.
DRAW = """
import sys
import mujoco, numpy as np
from rt2_jax.sim.render import RenderSettings, make_renderer

library, scene, other, out = sys.argv[1:]
def drawn(renderer, xml, cameras):
    model = mujoco.MjModel.from_xml_string(xml)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    renderer.load(model)
    return np.stack([renderer.render(data, camera) for camera in cameras])

settings = dict(renderer=library, height=128, width=160)
cameras = ("down", "side", "back")
renderer = make_renderer(RenderSettings(**settings))
pictures = {"first": drawn(renderer, scene, cameras), "other": drawn(renderer, other, ["down"])}
pictures["again"] = drawn(renderer, scene, cameras)
try:
    drawn(renderer, other, ["wrist"])
except KeyError as error:
    pictures["camera_error"] = np.array(str(error))
renderer.close()
for option in ("antialias", "shadows"):
    renderer = make_renderer(RenderSettings(**settings, **{option: False}))
    pictures[option] = drawn(renderer, scene, cameras)
np.savez(out, **pictures)
"""


@pytest.fixture(scope="module", params=LIBRARIES)
def pictures(request, tmp_path_factory):
    """What a process that uses one GL library has drawn."""
    try:
        probe(request.param)
    except RuntimeError as error:
        pytest.skip(str(error))
    out = tmp_path_factory.mktemp("gl") / "pictures.npz"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", DRAW, request.param, SCENE, OTHER, str(out)]
    child = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert child.returncode == 0 and not child.stderr, child.stderr
    with np.load(out) as stored:
        return dict(stored)


def test_gl_and_ray_draw_the_same_scene(pictures):
    """Same places, colours, texture orientation, light and shadows, up to filtering at edges."""
    if int(mujoco.__version__.split(".")[0]) < 4:
        pytest.skip(
            "the GL renderer of mujoco 3 lays 2D textures differently on the sides of boxes"
        )
    model = mujoco.MjModel.from_xml_string(SCENE)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    renderer = make_renderer(RenderSettings(height=128, width=160))
    renderer.load(model)
    for camera, picture in zip(CAMERAS, pictures["first"], strict=True):
        difference = np.abs(renderer.render(data, camera).astype(int) - picture)
        assert np.median(difference) <= 2
        assert difference.mean() < 3, camera


def test_one_gl_context_serves_several_scenes(pictures):
    np.testing.assert_array_equal(pictures["first"], pictures["again"])
    assert pictures["other"][0, 64, 80].argmax() == 0


def test_the_settings_reach_gl(pictures):
    for option in ("antialias", "shadows"):
        assert (pictures["first"] != pictures[option]).any(axis=-1).mean() > 0.005, option
    darker = pictures["shadows"].astype(int) - pictures["first"] > 25
    assert darker.any(axis=-1).mean() > 0.005


def test_gl_too_lists_the_cameras(pictures):
    assert "camera 'wrist' isn't in the scene; it has: down" in str(pictures["camera_error"])


@pytest.mark.parametrize(
    ("library", "package"), [("osmesa", "libosmesa6"), ("egl", "libegl1 libegl-mesa0 libgl1-mesa")]
)
def test_a_missing_library_is_named_with_the_package_to_install(
    library, package, tmp_path, monkeypatch
):
    (tmp_path / "sitecustomize.py").write_text(
        "import ctypes\n"
        "dlopen = ctypes._dlopen\n"
        "def without_gl(name, *mode):\n"
        "    if 'GL' in str(name) or 'OSMesa' in str(name):\n"
        "        raise OSError(f'{name}: cannot open shared object file')\n"
        "    return dlopen(name, *mode)\n"
        "ctypes._dlopen = without_gl\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    monkeypatch.delenv("PYOPENGL_PLATFORM", raising=False)
    probe.cache_clear()
    with pytest.raises(RuntimeError) as caught:
        make_renderer(RenderSettings(renderer=library))
    message = str(caught.value)
    assert f"renderer '{library}'" in message and "doesn't work here (exit status 1" in message
    assert f"apt-get install {package}" in message and "use the renderer ray" in message


def test_a_process_that_has_chosen_another_gl_library_is_told_so(monkeypatch):
    monkeypatch.setenv("PYOPENGL_PLATFORM", "egl")
    probe.cache_clear()
    with pytest.raises(
        RuntimeError, match="already chosen 'egl'.*start a process with MUJOCO_GL=osmesa"
    ):
        make_renderer(RenderSettings(renderer="osmesa"))
