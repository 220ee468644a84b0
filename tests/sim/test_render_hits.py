"""Every pixel of the `ray` renderer sees what MuJoCo's `mj_ray` says it sees."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest

from rt2_jax.sim.mjcf import build_model
from rt2_jax.sim.render.camera import find_view
from rt2_jax.sim.render.casting import RayCaster
from rt2_jax.sim.render.surface import MeshFaces, Surfaces
from rt2_jax.sim.scene import sample_scene
from rt2_jax.sim.world import load_world

SIDE = 48
SHAPES = (
    'type="box" size=".06 .03 .05"',
    'type="sphere" size=".05"',
    'type="ellipsoid" size=".06 .03 .04"',
    'type="capsule" size=".03 .05"',
    'type="cylinder" size=".04 .05"',
    'type="mesh" mesh="wedge"',
    'type="mesh" mesh="star"',
)


def star(points: int = 5) -> str:
    """A star-shaped prism, which isn't convex, as MJCF."""
    angle = np.arange(2 * points) * np.pi / points
    radius = np.where(np.arange(2 * points) % 2, 0.02, 0.06)
    ring = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    low, high = (np.column_stack([ring, np.full(len(ring), z)]) for z in (-0.02, 0.02))
    vertices = np.vstack([low, high, [[0, 0, -0.02], [0, 0, 0.02]]])
    n, faces = 2 * points, []
    for i in range(n):
        j = (i + 1) % n
        faces += [i, j, n + j, i, n + j, n + i, 2 * n, j, i, 2 * n + 1, n + i, n + j]
    text = " ".join(f"{value:.6g}" for value in vertices.ravel())
    return f'<mesh name="star" vertex="{text}" face="{" ".join(map(str, faces))}"/>'


def cluttered_scene(seed: int) -> mujoco.MjModel:
    """Bodies of several geoms, turned anyhow, some of which don't collide.

    `mj_multiRay` itself misses geoms here: see `RayCaster`.
    """
    random = np.random.default_rng(seed)

    def numbers(low: float, high: float, count: int) -> str:
        return " ".join(f"{value:.4f}" for value in random.uniform(low, high, count))

    bodies = ""
    for _ in range(8):
        inertia = '<inertial pos=".1 -.05 .08" mass="1" diaginertia=".01 .01 .01"/>'
        bodies += f'<body pos="{numbers(-0.3, 0.3, 3)}" quat="{numbers(-1, 1, 4)}"><freejoint/>'
        bodies += inertia if random.random() < 0.5 else ""
        for shape in random.choice(SHAPES, size=random.integers(1, 4)):
            collides = random.choice(["", 'contype="0" conaffinity="0"'])
            bodies += f'<geom {shape} {collides} pos="{numbers(-0.1, 0.1, 3)}" '
            bodies += f'quat="{numbers(-1, 1, 4)}"/>'
        bodies += "</body>"
    return mujoco.MjModel.from_xml_string(
        f"""<mujoco><asset>{star()}<mesh name="wedge" vertex="0 0 0 .1 0 0 0 .1 0 0 0 .06"/></asset>
        <worldbody>
          <geom type="plane" size="2 2 .1" pos="0 0 -.4"/>
          <geom type="box" size=".5 .5 .02" pos="0 0 -.3"/>
          <geom type="cylinder" size=".03 .2" pos=".3 .3 -.1"/>
          <camera name="down" pos="0 0 1" xyaxes="1 0 0 0 1 0" fovy="60"/>
          <camera name="side" pos="1 0 .1" xyaxes="0 1 0 0 0 1" fovy="60"/>
          <camera name="oblique" pos="-.6 -.5 .6" xyaxes=".6 -.8 0 .4 .3 .86" fovy="60"/>
          <camera name="close" pos=".05 .02 .1" quat="{numbers(-1, 1, 4)}" fovy="90"/>
          {bodies}
        </worldbody></mujoco>"""
    )


def table_scene(seed: int) -> mujoco.MjModel:
    """A scene of the built-in world."""
    world = load_world()
    return build_model(
        world, sample_scene(world, list(world.skills)[seed % len(world.skills)], seed)
    )


def state_of(model: mujoco.MjModel, steps: int = 0) -> mujoco.MjData:
    """The scene's first state, or that after some steps of physics."""
    data = mujoco.MjData(model)
    for _ in range(steps):
        mujoco.mj_step(model, data)
    mujoco.mj_forward(model, data)
    return data


def rays_of(model: mujoco.MjModel, data: mujoco.MjData, camera: str):
    """The camera's place [3] and the rays [3, SIDE * SIDE] through its pixels."""
    view = find_view(model, data, camera, SIDE)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    pixel = np.stack([columns + 0.5 - SIDE / 2, SIDE / 2 - rows - 0.5], axis=-1).reshape(-1, 2)
    local = np.column_stack([pixel * view.pixel, np.full(len(pixel), -1.0)])
    return view.origin, (local @ view.axes).T


def one_by_one(model, data, origin, rays):
    """What `mj_ray` says of each ray."""
    hit = np.zeros((1, 1), np.int32)
    geoms, reaches = [], []
    for ray in np.ascontiguousarray(rays.T):
        reaches.append(mujoco.mj_ray(model, data, origin, ray, None, 1, -1, hit))
        geoms.append(hit[0, 0])
    return np.array(geoms), np.array(reaches)


def assert_same_hits(model, data, origin, rays):
    geom, reach = RayCaster(model, np.ones(model.ngeom, bool)).cast(data, origin, rays)
    expected_geom, expected_reach = one_by_one(model, data, origin, rays)
    np.testing.assert_array_equal(geom, expected_geom)
    np.testing.assert_array_equal(reach, expected_reach)
    return geom


@pytest.mark.parametrize("seed", range(6))
def test_every_pixel_of_a_cluttered_scene_sees_what_mj_ray_sees(seed):
    model = cluttered_scene(seed)
    data = state_of(model)
    seen = set()
    for camera in ("down", "side", "oblique", "close"):
        seen.update(assert_same_hits(model, data, *rays_of(model, data, camera)))
    assert len(seen) > 10


@pytest.mark.parametrize("steps", [0, 200])
@pytest.mark.parametrize("seed", range(4))
def test_every_pixel_of_the_built_in_world_sees_what_mj_ray_sees(seed, steps):
    model = table_scene(seed)
    data = state_of(model, steps)
    seen = set()
    for camera in ("front", "top", "wrist"):
        seen.update(assert_same_hits(model, data, *rays_of(model, data, camera)))
    assert len(seen) > 6


def test_a_point_on_the_planes_of_two_faces_is_told_by_the_face_it_lies_on():
    """The inner sides of an L, prolonged, cross its top."""
    ring = [(0, 0), (2, 0), (2, 1), (1, 1), (1, 2), (0, 2)]
    vertices = [(x, y, z) for z in (0, 1) for x, y in ring]
    sides = [(i, (i + 1) % 6, (i + 1) % 6 + 6) for i in range(6)]
    sides += [(i, (i + 1) % 6 + 6, i + 6) for i in range(6)]
    lids = [(0, 1, 2), (0, 2, 3), (0, 3, 4), (0, 4, 5)]
    faces = sides + [(a + 6, b + 6, c + 6) for a, b, c in lids] + [(a, c, b) for a, b, c in lids]
    text = [" ".join(str(value) for row in rows for value in row) for rows in (vertices, faces)]
    model = mujoco.MjModel.from_xml_string(
        f"""<mujoco><asset><mesh name="L" vertex="{text[0]}" face="{text[1]}"/></asset>
        <worldbody><geom type="mesh" mesh="L"/></worldbody></mujoco>"""
    )
    turn, centre = state_of(model).geom_xmat[0].reshape(3, 3), state_of(model).geom_xpos[0]
    along = np.linspace(0.05, 0.95, 19)
    for points in (np.stack([along, 1 + 0 * along]), np.stack([1 + 0 * along, along])):
        top = np.vstack([points, np.ones(19)])
        own = (turn.T @ (top - centre[:, None])).astype(np.float32)
        found = turn @ MeshFaces(model, 0).normals_at(own)
        np.testing.assert_allclose(found, np.tile([[0], [0], [1]], 19), atol=1e-5)


@pytest.mark.parametrize("seed", range(2))
def test_rays_of_a_lamp_hit_what_mj_ray_hits(seed):
    model = cluttered_scene(seed)
    data = state_of(model)
    place = np.array([0.3, -0.2, 1.2])
    targets = np.random.default_rng(seed).uniform(-0.4, 0.4, (3, 1500))
    assert_same_hits(model, data, place, targets - place[:, None])


def test_rays_that_leave_the_middle_of_a_geom_hit_it():
    model = cluttered_scene(0)
    data = state_of(model)
    _, rays = rays_of(model, data, "side")
    assert_same_hits(model, data, data.geom_xpos[model.ngeom - 1].copy(), rays)


def test_hidden_geoms_are_no_obstacle():
    model = cluttered_scene(0)
    data = state_of(model)
    origin, rays = rays_of(model, data, "down")
    visible = np.arange(model.ngeom) % 2 == 0
    geom, _ = RayCaster(model, visible).cast(data, origin, rays)
    assert visible[geom[geom >= 0]].all()


@pytest.mark.parametrize("seed", range(6))
def test_surfaces_face_where_mujoco_says(seed):
    if "normal" not in (mujoco.mj_ray.__doc__ or ""):
        pytest.skip(f"mujoco {mujoco.__version__} doesn't tell normals")
    model = cluttered_scene(seed)
    data = state_of(model)
    surfaces = Surfaces(model, np.ones(model.ngeom, bool))
    hit, expected = np.zeros((1, 1), np.int32), np.zeros(3)
    checked = set()
    for camera in ("down", "side", "oblique"):
        origin, rays = rays_of(model, data, camera)
        for ray in np.ascontiguousarray(rays.T[::7]):
            reach = mujoco.mj_ray(model, data, origin, ray, None, 1, -1, hit, expected)
            geom = int(hit[0, 0])
            if geom < 0:
                continue
            turn = data.geom_xmat[geom].reshape(3, 3)
            point = ((origin + reach * ray - data.geom_xpos[geom]) @ turn).astype(np.float32)[
                :, None
            ]
            scaled = point / surfaces.scale[:, [geom]]
            found = turn @ surfaces.normals(np.array([geom]), point, scaled)[:, 0]
            np.testing.assert_allclose(found, expected, atol=2e-3, err_msg=f"geom {geom}")
            checked.add(int(model.geom_type[geom]))
    assert len(checked) >= 5
