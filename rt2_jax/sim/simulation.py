"""The physics of one scene: a gripper that follows a target pose, and where everything ends up."""

from __future__ import annotations

import math

import mujoco
import numpy as np

from rt2_jax.actions.space import ActionSpace, rt2_action_space
from rt2_jax.actions.statistics import resolve_bounds
from rt2_jax.sim.mjcf import FINGER_OPENING, TIMESTEP, build_model
from rt2_jax.sim.scene import Scene
from rt2_jax.sim.skills import TableState
from rt2_jax.sim.world import WORKSPACE, World

SIMULATION_VERSION = 4
"""Part of a recording's identity: to be raised when scenes, physics, experts or judges change."""

EMBODIMENT = "rt2_tabletop_gripper"
"""The robot's name: with the action space it is the key of its statistics."""

TABLETOP_ACTIONS: ActionSpace = rt2_action_space(
    "rt2_tabletop",
    translation_bound_m=0.05,
    rotation_bound_rad=0.25,
    gripper_polarity="high_is_open",
    control_rate_hz=5.0,
)
"""The built-in robot's action space: RT-2's 8 fields, deltas of the target pose (base frame)."""

TABLETOP_BOUNDS = resolve_bounds(TABLETOP_ACTIONS)

STATE_FIELDS = (
    "tip_x",
    "tip_y",
    "tip_z",
    "rotation_x",
    "rotation_y",
    "rotation_z",
    "gripper_extension",
)
"""Proprioception: metres and a rotation vector in radians (base frame); the gripper, 1 = open."""

_LARGEST_TILT = 0.6  # radians between the tool and the vertical
_PIECES = 10  # a control step moves the target pose in this many pieces


class Simulation:
    """One scene in motion. Lengths in metres, angles in radians, in the base frame."""

    def __init__(self, world: World, scene: Scene) -> None:
        self.model = build_model(world, scene)
        self.data = mujoco.MjData(self.model)
        self._heights = np.array([world.shapes[thing.shape].height for thing in scene.objects])
        self._bodies = [self.model.body(f"object_{i}").id for i in range(len(scene.objects))]
        self._hand = self.model.body("hand").id
        self._opening = self.model.jnt_qposadr[[self.model.joint(s).id for s in ("left", "right")]]
        self._position = np.array(scene.tip)
        self._rotation = np.array([1.0, 0.0, 0.0, 0.0])
        mujoco.mj_forward(self.model, self.data)
        self._advance(np.zeros(3), np.zeros(3))  # lets the objects settle

    def move(self, translation: np.ndarray, rotation: np.ndarray, extension: float) -> list[str]:
        """Adds the deltas to the target pose and simulates one control step.

        Args:
          translation: [3], metres.
          rotation: [3], a rotation vector in radians.
          extension: the gripper's, 0 closed to 1 open.

        Returns:
          Which of `translation` and `rotation` the limits have touched: a translation is cut to the
          workspace, a rotation that would tilt the tool too far is left out.
        """
        limited = []
        goal = np.clip(self._position + translation, *np.transpose(WORKSPACE))
        if not np.allclose(goal, self._position + translation, atol=1e-9):
            limited.append("translation")
        if _tilt(_product(_quaternion(rotation), self._rotation)) > _LARGEST_TILT:
            limited.append("rotation")
            rotation = np.zeros(3)
        self.data.ctrl[:] = extension * FINGER_OPENING
        self._advance(goal - self._position, rotation)
        return limited

    def _advance(self, translation: np.ndarray, rotation: np.ndarray) -> None:
        steps = round(1 / (TABLETOP_ACTIONS.control_rate_hz * TIMESTEP * _PIECES))
        start, turn = self._position, _quaternion(np.asarray(rotation) / _PIECES)
        for piece in range(1, _PIECES + 1):
            self._position = start + translation * (piece / _PIECES)
            self._rotation = _product(turn, self._rotation)
            self.data.mocap_pos[0], self.data.mocap_quat[0] = self._position, self._rotation
            mujoco.mj_step(self.model, self.data, steps)
        mujoco.mj_forward(self.model, self.data)

    def table_state(self) -> TableState:
        """Where the tip and the objects are."""
        return TableState(
            tip=self.data.xpos[self._hand].copy(),
            centres=self.data.xpos[self._bodies],
            heights=self._heights,
        )

    def proprioception(self) -> np.ndarray:
        """`STATE_FIELDS`, float32 [7]."""
        rotation = np.zeros(3)
        mujoco.mju_quat2Vel(rotation, self.data.xquat[self._hand], 1.0)
        extension = self.data.qpos[self._opening].mean() / FINGER_OPENING
        return np.concatenate([self.data.xpos[self._hand], rotation, [extension]]).astype(
            np.float32
        )


def _quaternion(rotation: np.ndarray) -> np.ndarray:
    """Rotation vector [3] -> quaternion wxyz [4]."""
    angle = float(np.linalg.norm(rotation))
    result = np.array([1.0, 0.0, 0.0, 0.0])
    if angle > 0:
        mujoco.mju_axisAngle2Quat(result, np.asarray(rotation) / angle, angle)
    return result


def _product(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    result = np.empty(4)
    mujoco.mju_mulQuat(result, first, second)
    return result / np.linalg.norm(result)


def _tilt(quaternion: np.ndarray) -> float:
    """The angle between the tool's axis and the vertical, radians."""
    _, x, y, _ = quaternion
    return math.acos(max(-1.0, min(1.0, 1 - 2 * (x * x + y * y))))
