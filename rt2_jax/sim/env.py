"""The table-top world as a gymnasium environment."""

from __future__ import annotations

import string
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np

from rt2_jax.actions.policy import Observation
from rt2_jax.actions.space import check_actions
from rt2_jax.sim.mjcf import CAMERAS
from rt2_jax.sim.render import RenderSettings, make_renderer
from rt2_jax.sim.scene import Scene, sample_scene
from rt2_jax.sim.simulation import STATE_FIELDS, TABLETOP_ACTIONS, TABLETOP_BOUNDS, Simulation
from rt2_jax.sim.skills import TableState, judge
from rt2_jax.sim.world import World, load_world

MAX_STEPS = 40
_DISCRETE = np.array([field.levels is not None for field in TABLETOP_ACTIONS.fields])
_TERMINATE = TABLETOP_ACTIONS.index("terminate")
_FIRST_DELTA = TABLETOP_ACTIONS.index("position_delta_x")
_GRIPPER = TABLETOP_ACTIONS.index("gripper_extension")
_FAR = 4.0  # beyond any metre or radian of the state


class ActionBox(gymnasium.spaces.Box):
    """`TABLETOP_ACTIONS` as gymnasium knows it: a box whose discrete fields hold level indices."""

    def __init__(self) -> None:
        super().__init__(
            TABLETOP_BOUNDS.low.astype(np.float32),
            TABLETOP_BOUNDS.high.astype(np.float32),
            dtype=np.float32,
        )

    def sample(self, mask: None = None, probability: None = None) -> np.ndarray:
        """A random action, float32 [8]."""
        action = super().sample(mask, probability)
        action[_DISCRETE] = np.rint(action[_DISCRETE])
        return action

    def contains(self, x: Any) -> bool:
        """Whether it is an action within the bounds."""
        return super().contains(x) and bool(np.all(x[_DISCRETE] == np.rint(x[_DISCRETE])))


class TabletopEnv(gymnasium.Env[dict[str, Any], np.ndarray]):
    """A gripper over a table with named objects; every episode is a new scene.

    Observations are dicts: `images` (camera name -> uint8 [H, W, 3]), `instruction` (str) and
    `state` (float32 [7], `STATE_FIELDS`). Actions are float32 [8] of `TABLETOP_ACTIONS`, native
    units. An episode ends when an action's `terminate` field is 0 (its motion is not executed) or
    after `MAX_STEPS`; success is judged then, once, and is the reward of the last step.

    Args:
      skill: "reach" or "push".
      world: the scene vocabulary; the built-in one if absent.
      render: renderer, size and its options.
      cameras: which of `rt2_jax.sim.mjcf.CAMERAS` the observation shows.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": int(TABLETOP_ACTIONS.control_rate_hz)}
    render_mode = "rgb_array"

    def __init__(
        self,
        skill: str = "reach",
        *,
        world: World | None = None,
        render: RenderSettings | None = None,
        cameras: Sequence[str] = ("front",),
    ) -> None:
        self.world = world or load_world()
        self.world.skill(skill)
        self.skill = skill
        unknown = sorted(set(cameras) - set(CAMERAS))
        if unknown or not cameras:
            raise ValueError(
                f"cameras: found {list(cameras)}, expected some of {', '.join(CAMERAS)}"
            )
        self.cameras = tuple(cameras)
        self.render_settings = render or RenderSettings()
        self._renderer = make_renderer(self.render_settings)
        self._scene: Scene | None = None
        self._simulation: Simulation | None = None
        self._instruction = ""
        self._step, self._done = 0, True
        self.action_space: ActionBox = ActionBox()
        size = (self.render_settings.height, self.render_settings.width, 3)
        image = gymnasium.spaces.Box(0, 255, size, np.uint8)
        self.observation_space = gymnasium.spaces.Dict(
            {
                "images": gymnasium.spaces.Dict(dict.fromkeys(self.cameras, image)),
                "instruction": gymnasium.spaces.Text(200, charset=_characters(self.world)),
                "state": gymnasium.spaces.Box(-_FAR, _FAR, (len(STATE_FIELDS),)),
            }
        )

    @property
    def scene(self) -> Scene:
        """The current episode's scene."""
        if self._scene is None:
            raise RuntimeError("no scene yet: call reset() first")
        return self._scene

    @property
    def simulation(self) -> Simulation:
        """The current episode's physics."""
        if self._simulation is None:
            raise RuntimeError("no simulation yet: call reset() first")
        return self._simulation

    def table_state(self) -> TableState:
        """Where everything really is: for scripted experts and judges, not for learned policies."""
        return self.simulation.table_state()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Starts the scene of this seed (a random one if absent).

        Args:
          seed: the scene is a function of (world, skill, seed) alone.
          options: `{"swap_instruction": True}` names other objects than those that are judged.

        Raises:
          ValueError: a negative seed, or an unknown option.
        """
        if seed is not None and seed < 0:
            raise ValueError(f"seed: found {seed}, expected 0 or more")
        super().reset(seed=seed)
        options = dict(options or {})
        swapped = bool(options.pop("swap_instruction", False))
        if options:
            raise ValueError(f"options: unknown {sorted(options)}, expected swap_instruction")
        if seed is None:
            seed = int(self.np_random.integers(2**31))
        self._scene = sample_scene(self.world, self.skill, seed)
        self._simulation = Simulation(self.world, self._scene)
        self._renderer.load(self._simulation.model)
        self._instruction = self._scene.swapped_instruction if swapped else self._scene.instruction
        self._step, self._done = 0, False
        return self._observe(), self._info([], [])

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Executes one action, float [8].

        `info` tells `step`, `success` and `distance` (as if judged now), `reason` (why it is no
        success), `clipped` (names of fields outside the action space's bounds, cut to them) and
        `limited` (which motion the workspace has cut).

        Raises:
          TypeError, ValueError: not an action of `TABLETOP_ACTIONS`; nothing has moved.
          RuntimeError: the episode is over, or has not begun.
        """
        if self._done:
            raise RuntimeError("the episode is over (or not begun): call reset() first")
        action = check_actions(TABLETOP_ACTIONS, action, where=f"step {self._step}")
        if action.shape != (TABLETOP_ACTIONS.dimension,):
            raise ValueError(
                f"step {self._step}: expected one action [{TABLETOP_ACTIONS.dimension}], found "
                f"shape {list(action.shape)}; execute an action chunk one step at a time"
            )
        action = action.astype(np.float64)
        low, high = TABLETOP_BOUNDS.low, TABLETOP_BOUNDS.high
        rounding = 1e-6  # a float32 bound is not quite the float64 one
        outside = (action < low - rounding) | (action > high + rounding)
        clipped = [TABLETOP_ACTIONS.names[i] for i in np.flatnonzero(outside)]
        action = np.clip(action, low, high)
        self._step += 1
        terminated = bool(action[_TERMINATE] == 0)
        limited: list[str] = []
        if not terminated:
            deltas = action[_FIRST_DELTA : _FIRST_DELTA + 6]
            limited = self.simulation.move(deltas[:3], deltas[3:], float(action[_GRIPPER]))
        truncated = not terminated and self._step >= MAX_STEPS
        self._done = terminated or truncated
        info = self._info(clipped, limited)
        reward = float(self._done and info["success"])
        return self._observe(), reward, terminated, truncated, info

    def _info(self, clipped: list[str], limited: list[str]) -> dict[str, Any]:
        verdict = judge(self.world, self.scene, self.table_state())
        return {
            "step": self._step,
            "success": verdict.success,
            "distance": verdict.distance,
            "reason": verdict.reason,
            "clipped": clipped,
            "limited": limited,
        }

    def _observe(self) -> dict[str, Any]:
        images = {
            camera: self._renderer.render(self.simulation.data, camera) for camera in self.cameras
        }
        return {
            "images": images,
            "instruction": self._instruction,
            "state": self.simulation.proprioception(),
        }

    def render(self) -> np.ndarray:
        """The first camera's picture, uint8 [H, W, 3]."""
        return self._renderer.render(self.simulation.data, self.cameras[0])

    def close(self) -> None:
        """Frees the renderer."""
        self._renderer.close()


def _characters(world: World) -> str:
    """Every character that an instruction may have, as gymnasium's text space wants to know."""
    words = [*world.colours, *world.shapes, *world.symbols, string.ascii_letters, " "]
    words += [template for skill in world.skills.values() for template in skill.templates]
    return "".join(sorted(set("".join(words))))


def to_observation(observed: dict[str, Any], session: str, step: int) -> Observation:
    """What the environment shows, as any `Policy` takes it."""
    return Observation(
        images=observed["images"],
        instruction=observed["instruction"],
        state=observed["state"],
        session=session,
        step=step,
    )
