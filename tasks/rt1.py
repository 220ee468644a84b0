"""RT-1's kitchen demonstrations in RT-1's own numbers (Brohan et al., 2022, arXiv:2212.06817).

The data set is `fractal20220817_data` of Open X-Embodiment, 87,212 episodes of the paper's 130,000.
Its other task, `oxe_fractal20220817_data`, has the gripper's state and bounds from statistics, as
the rest of Open X-Embodiment. Here the numbers are as recorded and the bounds RT-1's, which RT-2
inherits (RT-2, section 3.2); so it needs no statistics. The base's three numbers are left out, as
in RT-2.
"""

from __future__ import annotations

import dataclasses
import math

from rt2_jax.actions.bounds import FixedBounds
from rt2_jax.actions.space import ActionField, rt2_action_space
from rt2_jax.data.instructions import InstructionEncoder
from rt2_jax.data.rlds_columns import RldsColumns, rlds_task
from rt2_jax.tasks.oxe_spaces import field_names

_SPACE = rt2_action_space(
    "rt1",
    # robotics_transformer, rt1.py of Open X-Embodiment; RT-1-X widens the first to 2 m.
    translation_bound_m=1.0,
    rotation_bound_rad=math.pi / 2,
    gripper_polarity="high_is_closed",
    control_rate_hz=3.0,
    rotation="euler_xyz",
)
RT1_ACTIONS = dataclasses.replace(
    _SPACE,
    fields=(
        *_SPACE.fields[:-1],
        ActionField(
            "gripper_closedness_change",
            "1",
            "none",
            "current_state",
            FixedBounds(-1.0, 1.0),
            polarity="high_is_closed",
        ),
    ),
)
"""RT-2's fields; the gripper's is a change, 1 to close and -1 to open."""

rlds_task(
    "rt1",
    "fractal20220817_data/0.1.0",
    {"train": "train[:95%]", "validation": "train[95%:]"},
    RldsColumns(
        views={"front": "observation/image"},
        text="observation/natural_language_instruction",
        action=(
            "action/world_vector",
            "action/rotation_delta",
            "action/gripper_closedness_action",
        ),
        # Of RT-1's three modes the first ends the episode.
        terminate="action/terminate_episode[:1] | invert",
        state=("observation/base_pose_tool_reached", "observation/gripper_closed"),
        instruction_embedding="observation/natural_language_embedding",
    ),
    embodiment="google_robot",
    action_space=RT1_ACTIONS,
    state_fields=field_names("x y z qx qy qz qw gripper_closed"),
    image_size=(256, 320),
    # Cer et al. 2018; RT-1, section 5.1.
    instruction_encoder=InstructionEncoder("universal-sentence-encoder", 512),
)
