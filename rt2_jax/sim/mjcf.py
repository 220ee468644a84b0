"""Scene -> MuJoCo model. Everything is made in memory: no mesh, texture or XML file."""

from __future__ import annotations

import math
from xml.etree import ElementTree

import mujoco
import numpy as np

from rt2_jax.sim.scene import Scene, SceneObject
from rt2_jax.sim.textures import symbol_texture, table_texture
from rt2_jax.sim.world import Shape, World

TIMESTEP = 0.004
CAMERAS = ("front", "top", "wrist")
FINGER_OPENING = 0.024  # metres that each finger travels from closed to open
_FINGER_SIZE = (0.006, 0.006, 0.036)  # half sizes of a finger, metres
_TABLE_SIZE = (0.55, 0.55, 0.02)
_DENSITY = 600.0  # kg/m^3, as of wood
_FRICTION = "0.7 0.01 0.0001"
_SHAFT_RGBA, _PALM_RGBA, _FINGER_RGBA = ".55 .55 .58 1", ".22 .22 .25 1", ".12 .12 .14 1"


def build_model(world: World, scene: Scene, *, robot: bool = True) -> mujoco.MjModel:
    """Compiles the scene: a table, the objects as free bodies and a gripper on a mocap body.

    Bodies are called `object_0`.. in the order of `scene.objects`; `hand`, whose origin is the
    gripper's tip, and `target`, the mocap body; cameras `front` (from beyond the table, above),
    `top` and `wrist`; actuators `left` and `right` (metres each finger is open).
    With `robot=False` there is no gripper, and with it go `wrist` and the actuators.
    """
    root = ElementTree.Element("mujoco", model=f"{world.name}-{scene.skill}-{scene.seed}")
    _add(root, "option", timestep=TIMESTEP, integrator="implicitfast", cone="elliptic", impratio=5)
    visual = _add(root, "visual")
    _add(visual, "global", offwidth=1024, offheight=1024)
    _add(visual, "headlight", ambient=".4 .4 .4", diffuse=".15 .15 .15", specular="0 0 0")
    _add(visual, "map", znear=0.02)
    assets = {"table.png": table_texture(world.tables[scene.table], _table_random(scene))}
    asset, body = _add(root, "asset"), _add(root, "worldbody")
    _add_surroundings(asset, body, scene)
    if robot:
        _add_gripper(root, body, scene)
    for index, thing in enumerate(scene.objects):
        _add_object(asset, body, assets, world, thing, index)
    return mujoco.MjModel.from_xml_string(ElementTree.tostring(root, encoding="unicode"), assets)


def _add(parent: ElementTree.Element, tag: str, **attributes: object) -> ElementTree.Element:
    """A child element; numbers and sequences of numbers become MJCF text."""
    text = {
        key.rstrip("_"): (
            " ".join(f"{v:.6g}" for v in value)
            if isinstance(value, (tuple, list, np.ndarray))
            else str(value)
        )
        for key, value in attributes.items()
    }
    return ElementTree.SubElement(parent, tag, text)


def _table_random(scene: Scene) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(scene.table_seed))


def _add_surroundings(asset: ElementTree.Element, body: ElementTree.Element, scene: Scene) -> None:
    _add(asset, "texture", name="table", type="2d", file="table.png")
    _add(asset, "material", name="table", texture="table", texrepeat=(1, 1), specular=0)
    direction = tuple(-value for value in scene.light)
    _add(
        body,
        "light",
        name="lamp",
        pos=scene.light,
        dir=direction,
        diffuse=".5 .5 .5",
        specular="0 0 0",
    )
    depth = _TABLE_SIZE[2]
    _add(
        body,
        "geom",
        name="table",
        type="box",
        size=_TABLE_SIZE,
        pos=(0, 0, -depth),
        material="table",
        contype=0,
        conaffinity=0,
    )
    # What things stand on: on a plane a mesh has several points of contact in every MuJoCo; on a
    # box it has one before 4.0, and creeps.
    _add(body, "geom", type="plane", size=(3, 3, 0.1), friction=_FRICTION, rgba="0 0 0 0")
    _add(
        body,
        "geom",
        name="floor",
        type="plane",
        size=(3, 3, 0.1),
        pos=(0, 0, -0.7),
        rgba=".42 .42 .45 1",
    )
    _add(body, "camera", name="front", fovy=39, **_look_at((0.33, 0.0, 0.62), (-0.052, 0.0, 0.0)))
    _add(body, "camera", name="top", fovy=38, **_look_at((-0.035, 0.0, 0.72), (-0.04, 0.0, 0.0)))


def _look_at(eye: tuple[float, ...], centre: tuple[float, ...]) -> dict[str, object]:
    """Position and axes of a camera whose picture has the robot at its top edge."""
    back = np.subtract(eye, centre)
    back = back / np.linalg.norm(back)
    right = np.cross((0.0, 0.0, 1.0), back)
    right = right / np.linalg.norm(right)
    return {"pos": eye, "xyaxes": (*right, *np.cross(back, right))}


def _add_gripper(root: ElementTree.Element, body: ElementTree.Element, scene: Scene) -> None:
    _add(body, "body", name="target", mocap="true", pos=scene.tip)
    hand = _add(body, "body", name="hand", pos=scene.tip, gravcomp=1)
    _add(hand, "freejoint", name="hand")
    _add(hand, "inertial", pos=(0, 0, 0.08), mass=0.6, diaginertia=(0.002, 0.002, 0.001))
    _add(
        hand, "camera", name="wrist", fovy=75, pos=(0.07, 0, 0.07), xyaxes=(0, 1, 0, -0.93, 0, 0.36)
    )
    _, width, length = _FINGER_SIZE
    for kind, size, height, rgba in (
        ("box", (0.010, 0.036, 0.008), 2 * length + 0.008, _PALM_RGBA),
        ("cylinder", (0.008, 0.025), 2 * length + 0.016 + 0.025, _SHAFT_RGBA),
    ):
        _add(
            hand,
            "geom",
            type=kind,
            size=size,
            pos=(0, 0, height),
            rgba=rgba,
            contype=0,
            conaffinity=0,
        )
    actuator, equality = _add(root, "actuator"), _add(root, "equality")
    contact = _add(root, "contact")
    for side, sign in (("left", 1), ("right", -1)):
        finger = _add(hand, "body", name=side, pos=(0, sign * width, length), gravcomp=1)
        _add(
            finger,
            "joint",
            name=side,
            type="slide",
            axis=(0, sign, 0),
            range=(0, FINGER_OPENING),
            damping=4,
        )
        _add(
            finger,
            "geom",
            type="box",
            size=_FINGER_SIZE,
            rgba=_FINGER_RGBA,
            mass=0.03,
            friction="1.2 0.02 0.001",
            condim=4,
        )
        _add(
            actuator,
            "position",
            name=side,
            joint=side,
            kp=150,
            ctrlrange=(0, FINGER_OPENING),
            forcerange=(-12, 12),
        )
    _add(contact, "exclude", body1="left", body2="right")
    _add(
        equality,
        "weld",
        body1="target",
        body2="hand",
        solref=(0.012, 1),
        solimp=(0.95, 0.99, 0.001),
    )


def _add_object(
    asset: ElementTree.Element,
    body: ElementTree.Element,
    assets: dict[str, bytes],
    world: World,
    thing: SceneObject,
    index: int,
) -> None:
    shape, radius = world.shapes[thing.shape], world.scene.object_radius
    # MuJoCo's cube textures stand upright in the front camera's picture after a quarter turn.
    yaw = thing.yaw if thing.symbol is None else thing.yaw + math.pi / 2
    holder = _add(
        body,
        "body",
        name=f"object_{index}",
        pos=(thing.x, thing.y, shape.height / 2),
        quat=(math.cos(yaw / 2), 0, 0, math.sin(yaw / 2)),
    )
    _add(holder, "freejoint", name=f"object_{index}")
    look: dict[str, object]
    if thing.symbol is not None:
        half = radius / math.sqrt(2)
        name = f"symbol_{thing.symbol}"
        assets[f"{name}.png"] = symbol_texture(world.symbols[thing.symbol])
        _add(asset, "texture", name=name, type="cube", file=f"{name}.png")
        _add(asset, "material", name=name, texture=name, specular=0)
        look = {"type": "box", "size": (half, half, shape.height / 2), "material": name}
    else:
        assert thing.colour is not None, f"{thing.name} has neither colour nor symbol"
        name = f"shape_{index}"
        points, faces = _prism(shape, radius)
        _add(
            asset, "mesh", name=name, vertex=points.ravel(), face=" ".join(map(str, faces.ravel()))
        )
        rgba = (*(value / 255 for value in world.colours[thing.colour]), 1)
        look = {"type": "mesh", "mesh": name, "rgba": rgba}
    _add(holder, "geom", density=_DENSITY, friction=_FRICTION, condim=4, **look)


def _prism(shape: Shape, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """The extruded outline: vertices float [2n + 2, 3] around the middle, triangles int [4n, 3]."""
    ring = np.asarray(shape.outline) * radius
    count, half = len(ring), shape.height / 2
    low, high = np.full((count, 1), -half), np.full((count, 1), half)
    vertices = np.vstack(
        [np.hstack([ring, low]), np.hstack([ring, high]), [[0, 0, -half]], [[0, 0, half]]]
    )
    i = np.arange(count)
    j = (i + 1) % count
    bottom, top = np.full(count, 2 * count), np.full(count, 2 * count + 1)
    faces = np.vstack(
        [
            np.stack([i, j, count + j], 1),
            np.stack([i, count + j, count + i], 1),
            np.stack([bottom, j, i], 1),
            np.stack([top, count + i, count + j], 1),
        ]
    )
    return vertices, faces
