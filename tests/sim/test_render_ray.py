"""What the pictures of the `ray` renderer show."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys

import mujoco
import numpy as np
import pytest
from PIL import Image

from rt2_jax.sim.render import RenderSettings, make_renderer

FULL_LIGHT = '<visual><headlight ambient="1 1 1" diffuse="0 0 0" specular="0 0 0"/></visual>'
FROM_ABOVE = '<camera name="down" pos="0 0 1" xyaxes="1 0 0 0 1 0" fovy="60"/>'
EVERY_SHAPE = f"""<mujoco>
  <asset>
    <texture name="board" type="2d" builtin="checker" rgb1=".9 .8 .6" rgb2=".5 .3 .2"
      width="64" height="64"/>
    <texture name="dice" type="cube" builtin="gradient" rgb1="1 0 0" rgb2="0 0 1"
      width="16" height="96"/>
    <texture type="skybox" builtin="flat" rgb1=".4 .5 .6" width="8" height="48"/>
    <material name="board" texture="board" texrepeat="3 3"/>
    <material name="dice" texture="dice"/>
    <mesh name="wedge" vertex="0 0 0 .2 0 0 0 .2 0 0 0 .12"/>
  </asset>
  <worldbody>
    <light pos=".4 -.5 1.5" dir="-.2 .3 -1" diffuse=".6 .6 .5"/>
    <light pos="0 0 2" dir=".3 .3 -1" diffuse=".1 .1 .2" castshadow="false"/>
    {FROM_ABOVE}
    <camera name="side" pos="0 -1 .5" xyaxes="1 0 0 0 .4 .9" fovy="50"/>
    <geom type="plane" size="1 1 .1" material="board"/>
    <geom type="box" size=".08 .06 .05" pos="-.25 .2 .05" euler="0 0 20" material="dice"/>
    <geom type="sphere" size=".07" pos="0 .2 .07" rgba=".1 .2 .8 1"/>
    <geom type="ellipsoid" size=".09 .05 .04" pos=".25 .2 .04" rgba=".1 .7 .2 1"/>
    <geom type="capsule" size=".04 .06" pos="-.25 -.1 .1" euler="60 0 30" rgba=".7 .1 .6 1"/>
    <geom type="cylinder" size=".06 .05" pos="0 -.1 .05" rgba=".9 .5 .1 1"/>
    <geom type="mesh" mesh="wedge" pos=".25 -.1 .06" rgba=".9 .8 .1 1"/>
  </worldbody>
</mujoco>"""
PICTURES = "9a916233aea090f2605fad66ce8776609a9ea4315da590d1241412e501ae75d4"


def scene(xml: str, assets: dict[str, bytes] | None = None):
    model = mujoco.MjModel.from_xml_string(xml, assets or {})
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    return model, data


def world(content: str, asset: str = "", visual: str = FULL_LIGHT) -> str:
    return (
        f"<mujoco>{visual}<asset>{asset}</asset>"
        f"<worldbody>{FROM_ABOVE}{content}</worldbody></mujoco>"
    )


def draw(xml: str, camera: str = "down", **settings) -> np.ndarray:
    model, data = scene(xml)
    renderer = make_renderer(RenderSettings(**settings))
    renderer.load(model)
    return renderer.render(data, camera)


def hash_of_pictures() -> str:
    pictures = [draw(EVERY_SHAPE, camera).tobytes() for camera in ("down", "side")]
    return hashlib.sha256(b"".join(pictures)).hexdigest()


def test_this_version_of_the_renderer_draws_these_pixels():
    """Where this fails on purpose, raise `RENDERER_VERSION`: recorded data sets look different."""
    assert hash_of_pictures() == PICTURES


def test_the_number_of_threads_changes_nothing():
    program = f"import importlib.util as u; s = u.spec_from_file_location('t', {__file__!r})\n"
    program += "t = u.module_from_spec(s); s.loader.exec_module(t); print(t.hash_of_pictures())"
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    command = [sys.executable, "-c", program]
    child = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert child.stdout.strip() == hash_of_pictures()


def test_a_picture_has_the_shape_that_was_asked_for():
    picture = draw(EVERY_SHAPE, height=30, width=50)
    assert picture.shape == (30, 50, 3) and picture.dtype == np.uint8


def test_a_renderer_that_drew_another_scene_draws_the_same_as_a_new_one():
    model, data = scene(EVERY_SHAPE)
    other_model, other_data = scene(world('<geom type="sphere" size=".1" rgba="1 0 0 1"/>'))
    renderer = make_renderer(RenderSettings())
    renderer.load(other_model)
    renderer.render(other_data, "down")
    renderer.load(model)
    np.testing.assert_array_equal(renderer.render(data, "down"), draw(EVERY_SHAPE))


def test_a_geom_is_seen_where_it_is_in_its_colour():
    picture = draw(world('<geom type="box" size=".1 .1 .1" pos=".2 .3 0" rgba=".2 .4 .6 1"/>'))
    assert picture[10, 48].tolist() == [51, 102, 153]  # right of the middle and above it
    assert not picture[32:].any() and not picture[:, :32].any()


def test_a_geoms_own_colour_goes_before_its_materials():
    asset = '<material name="green" rgba="0 1 0 1"/>'
    own = '<geom type="box" size=".1 .1 .1" material="green" rgba="1 0 0 1"/>'
    assert draw(world(own, asset))[32, 32].tolist() == [255, 0, 0]
    plain = '<geom type="box" size=".1 .1 .1" material="green"/>'
    assert draw(world(plain, asset))[32, 32].tolist() == [0, 255, 0]


@pytest.mark.parametrize("hidden", ['rgba="1 0 0 0"', 'group="3"', 'material="glass"'])
def test_what_is_invisible_is_neither_seen_nor_casts_a_shadow(hidden):
    lamp = '<light pos="0 0 2" dir="0 0 -1"/><geom type="plane" size="2 2 .1"/>'
    asset = '<material name="glass" rgba="1 1 1 0"/>'
    box = f'<geom type="box" size=".1 .1 .1" pos="0 0 .3" {hidden}/>'
    with_box = draw(world(lamp + box, asset, visual=""))
    np.testing.assert_array_equal(with_box, draw(world(lamp, asset, visual="")))


def test_a_box_above_a_plane_casts_a_shadow_on_the_far_side_of_the_lamp():
    xml = world(
        '<light pos="-.8 0 1" dir=".6 0 -1" diffuse=".8 .8 .8"/><geom type="plane" size="2 2 .1"/>'
        '<geom type="box" size=".08 .08 .02" pos="0 0 .2" rgba="1 0 0 1"/>',
        visual="",
    )
    lit, shaded = draw(xml, shadows=False).astype(int), draw(xml).astype(int)
    darker = (lit - shaded).sum(axis=2) > 60
    rows, columns = np.nonzero(darker)
    assert len(rows) > 30
    assert columns.min() > 32 and abs(rows.mean() - 31.5) < 1
    assert draw(xml.replace("<light", '<light castshadow="false"')).astype(int)[darker].mean() > 60


def test_a_directional_light_shines_and_casts_shadows_too():
    xml = world(
        '<light directional="true" dir="1 0 -1" pos="0 0 3"/><geom type="plane" size="2 2 .1"/>'
        '<geom type="sphere" size=".05" pos="0 0 .2"/>',
        visual="",
    )
    darker = (draw(xml, shadows=False).astype(int) - draw(xml)).sum(axis=2) > 60
    # The sphere is .2 m high, the light falls at 45 degrees: .2 m to the right, 11 pixels.
    assert abs(np.nonzero(darker)[1].mean() - (31.5 + 11)) < 1.5


def test_antialiasing_mixes_the_colours_of_an_edge_and_leaves_the_rest():
    xml = world(
        '<geom type="plane" size="2 2 .1" rgba="0 0 0 1"/>'
        '<geom type="box" size=".2 .2 .01" euler="0 0 10" rgba="1 1 1 1"/>'
    )
    hard, soft = draw(xml, antialias=False), draw(xml)
    assert set(np.unique(hard)) == {0, 255}
    assert set(np.unique(soft)) == {0, 85, 170, 255}
    changed = (hard != soft).any(axis=2)
    assert 20 < changed.sum() < 200
    assert abs(hard.mean() - soft.mean()) < 1.5


def test_behind_the_scene_is_black_or_the_mean_of_the_skybox():
    assert not draw(world("")).any()
    colour = 'rgb1=".2 .4 .6" rgb2=".2 .4 .6"'
    skybox = f'<texture type="skybox" builtin="flat" {colour} width="8" height="48"/>'
    assert (draw(world("", skybox)) == [51, 102, 153]).all()


def picture_file(rows: list[list[tuple[int, int, int]]], size: int = 32) -> bytes:
    """A PNG of coloured squares."""
    squares = np.kron(np.array(rows, np.uint8), np.ones((size, size, 1), np.uint8))
    buffer = io.BytesIO()
    Image.fromarray(squares).save(buffer, "PNG")
    return buffer.getvalue()


RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
QUARTERS = {"quarters.png": picture_file([[RED, GREEN], [BLUE, WHITE]])}
MATERIAL = '<texture name="t" type="{}" file="quarters.png"/><material name="m" texture="t"/>'


BOX, PLANE = 'type="box" size=".2 .2 .2"', 'type="plane" size=".2 .2 .1"'


@pytest.mark.parametrize(("kind", "geom"), [("2d", PLANE), ("2d", BOX), ("cube", BOX)])
def test_a_texture_on_top_reads_upright_from_above(kind, geom):
    model, data = scene(world(f'<geom {geom} material="m"/>', MATERIAL.format(kind)), QUARTERS)
    renderer = make_renderer(RenderSettings())
    renderer.load(model)
    picture = renderer.render(data, "down")
    corners = [picture[row, column].tolist() for row in (25, 38) for column in (25, 38)]
    assert corners == [list(RED), list(GREEN), list(BLUE), list(WHITE)]


def test_a_texture_repeats_as_often_as_its_material_says():
    asset = MATERIAL.format("2d").replace('texture="t"/>', 'texture="t" texrepeat="2 1"/>')
    model, data = scene(world('<geom type="plane" size=".4 .4 .1" material="m"/>', asset), QUARTERS)
    renderer = make_renderer(RenderSettings())
    renderer.load(model)
    row = renderer.render(data, "down")[20]
    reds = (row == RED).all(axis=1).astype(int)
    assert (np.diff(reds) == 1).sum() == 2


def test_a_fine_pattern_far_away_becomes_its_mean():
    asset = (
        '<texture name="t" type="2d" builtin="checker" rgb1="0 0 0" rgb2="1 1 1" width="64" '
        'height="64"/><material name="m" texture="t" texrepeat="300 300"/>'
    )
    picture = draw(world('<geom type="plane" size="3 3 .1" material="m"/>', asset))
    assert (np.abs(picture.astype(int) - 127) < 3).all()


def renderer_of(xml: str):
    model, data = scene(xml)
    renderer = make_renderer(RenderSettings())
    renderer.load(model)
    return renderer, data


def test_an_unknown_camera_is_refused_and_those_of_the_scene_are_listed():
    renderer, data = renderer_of(EVERY_SHAPE)
    with pytest.raises(KeyError, match="camera 'wrist' isn't in the scene; it has: down, side"):
        renderer.render(data, "wrist")


def test_a_renderer_without_a_scene_says_so():
    _, data = scene(EVERY_SHAPE)
    renderer = make_renderer(RenderSettings())
    with pytest.raises(RuntimeError, match=r"no scene is loaded: call load\(model\)"):
        renderer.render(data, "down")
    renderer.load(scene(EVERY_SHAPE)[0])
    renderer.close()
    with pytest.raises(RuntimeError, match="no scene is loaded"):
        renderer.render(data, "down")


def test_the_state_of_another_scene_is_refused():
    renderer, _ = renderer_of(EVERY_SHAPE)
    _, other = scene(world('<geom type="sphere" size=".1"/>'))
    with pytest.raises(ValueError, match="found 1 geoms and 1 cameras, expected 7 and 2"):
        renderer.render(other, "down")


def test_an_orthographic_camera_is_refused():
    flag = "projection" if hasattr(mujoco.MjModel, "cam_projection") else "orthographic"
    value = "orthographic" if flag == "projection" else "true"
    renderer, data = renderer_of(world(f'<camera name="flat" pos="0 0 1" {flag}="{value}"/>'))
    with pytest.raises(ValueError, match="camera 'flat' is orthographic or has a sensor size"):
        renderer.render(data, "flat")


@pytest.mark.parametrize(
    ("content", "asset", "message"),
    [
        (
            '<geom name="hill" type="hfield" hfield="h"/>',
            '<hfield name="h" nrow="4" ncol="4" size="1 1 .2 .1"/>',
            r"geom 0 \('hill'\) is of type mjGEOM_HFIELD.*use the renderer osmesa or egl",
        ),
        (
            '<geom name="goal" type="sphere" size=".1" rgba="1 0 0 .3"/>',
            "",
            r"geom 0 \('goal'\) is half transparent \(alpha 0\.3\).*set alpha to 0",
        ),
        (
            '<geom name="ball" type="sphere" size=".1" material="m"/>',
            '<texture name="t" type="2d" builtin="flat" width="8" height="8"/>'
            '<material name="m" texture="t"/>',
            r"geom 0 \('ball'\) has a 2D texture and is neither plane nor box.*type cube",
        ),
    ],
    ids=["height field", "half transparent", "2D texture on a sphere"],
)
def test_what_cannot_be_drawn_is_refused_by_name(content, asset, message):
    model, _ = scene(world(content, asset))
    with pytest.raises(ValueError, match=message):
        make_renderer(RenderSettings()).load(model)


def test_after_a_refused_scene_none_is_loaded():
    renderer, data = renderer_of(EVERY_SHAPE)
    with pytest.raises(ValueError, match="half transparent"):
        renderer.load(scene(world('<geom type="sphere" size=".1" rgba="1 0 0 .5"/>'))[0])
    with pytest.raises(RuntimeError, match="no scene is loaded"):
        renderer.render(data, "down")


def test_flexes_are_refused(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # MuJoCo writes its warnings into a file where it runs
    cloth = '<flexcomp name="cloth" type="grid" count="3 3 1" spacing=".1 .1 .1" dim="2"/>'
    model, _ = scene(world(cloth))
    with pytest.raises(ValueError, match="1 flexes and 0 skins, which the `ray` renderer doesn't"):
        make_renderer(RenderSettings()).load(model)
