"""A ROS 2 node that drives a robot with a policy server: an example to copy.

    python3 examples/ros2_node.py --ros-args -p url:=ws://127.0.0.1:8000 -p budget_ms:=300.0

It needs `rt2-client` (Python 3.8 or later) and a sourced ROS 2; `rclpy` is imported when it runs.

Subscribes
  image_<view>  sensor_msgs/Image, one for each view in the server's metadata
  instruction   std_msgs/String: begins an episode, and ends the one before; an empty one only ends
Publishes
  action        std_msgs/String: JSON of one action, see `action_message`: every field with its
                unit, frame and reference; `{"stop": true, ...}` at the end of an episode
  pose_delta    geometry_msgs/PoseStamped: translation in metres and rotation as a quaternion, to
                be added to the last commanded pose in the frame of the header; where the action
                space has such fields relative to the previous target
"""

from __future__ import annotations

import json
import math
import threading
import time
from typing import Any

import numpy as np

from rt2_jax.actions.policy import Observation
from rt2_jax.actions.space import REFERENCES, ActionSpace
from rt2_jax.client import RemotePolicy, run_episode

CHANNELS = {"rgb8": (3, (0, 1, 2)), "bgr8": (3, (2, 1, 0)), "rgba8": (4, (0, 1, 2))}
CHANNELS.update({"bgra8": (4, (2, 1, 0)), "mono8": (1, (0, 0, 0))})
FRAMES = {"base": "base_link", "tool": "tool0", "world": "world"}
TRANSLATION = ("position_delta_x", "position_delta_y", "position_delta_z")
ROTATION = ("rotation_delta_x", "rotation_delta_y", "rotation_delta_z")
OLDEST_S = 1.0


def picture(message: Any) -> np.ndarray:
    """uint8 [H, W, 3], RGB, of a sensor_msgs/Image; rows may be padded.

    Raises:
      ValueError: an encoding that is not in `CHANNELS`, or too few bytes.
    """
    if message.encoding not in CHANNELS:
        raise ValueError(
            f"image: encoding {message.encoding!r}, expected one of {sorted(CHANNELS)}; convert it "
            "with image_proc"
        )
    depth, order = CHANNELS[message.encoding]
    data = np.frombuffer(bytes(message.data), np.uint8)
    if message.step < message.width * depth or data.size < message.height * message.step:
        raise ValueError(
            f"image: {data.size} bytes and a step of {message.step} for {message.height} x "
            f"{message.width} {message.encoding}"
        )
    rows = data[: message.height * message.step].reshape(message.height, message.step)
    pixels = rows[:, : message.width * depth].reshape(message.height, message.width, depth)
    return np.ascontiguousarray(pixels[:, :, order])


def captured_at(stamp: Any, now_ns: int) -> float | None:
    """A header's stamp on `time.monotonic`.

    Args:
      stamp: seconds and nanoseconds on the node's clock; zero when the driver sets none.
      now_ns: that clock now.

    Returns:
      None without a stamp, or with one of the future or of another clock (an hour off): the budget
      then counts from when the server is asked.
    """
    stamp_ns = stamp.sec * 10**9 + stamp.nanosec
    age_s = (now_ns - stamp_ns) / 1e9
    if stamp_ns == 0 or not 0 <= age_s < 3600:
        return None
    return time.monotonic() - age_s


def action_message(space: ActionSpace, action: np.ndarray) -> dict[str, Any]:
    """One action in words: `fields`, each with name, value, unit, frame, reference, and what it has
    of rotation, gripper polarity and levels' names."""
    fields = []
    for field, value in zip(space.fields, action):
        said: dict[str, Any] = {
            "name": field.name,
            "value": float(value),
            "unit": field.unit,
            "frame": field.frame,
            "reference": REFERENCES[field.reference],
        }
        if field.rotation:
            said["rotation"] = field.rotation
        if field.polarity:
            said["polarity"] = field.polarity
        if field.levels:
            said["meaning"] = field.levels[int(value)]
        fields.append(said)
    return {"action_space": space.name, "control_rate_hz": space.control_rate_hz, "fields": fields}


def pose_delta(space: ActionSpace, action: np.ndarray) -> tuple[str, np.ndarray, np.ndarray] | None:
    """The frame, the translation [3] in metres and the rotation, a quaternion x, y, z, w.

    Returns:
      None if the space has no such fields: only metres and rotation vectors in radians, both
      relative to the previous target and in one frame of `FRAMES`, mean what the topic says.
    """
    if not set(TRANSLATION + ROTATION) <= set(space.names):
        return None
    fields = [space.fields[space.index(name)] for name in TRANSLATION + ROTATION]
    if (
        {field.unit for field in fields[:3]} != {"m"}
        or {field.unit for field in fields[3:]} != {"rad"}
        or {field.rotation for field in fields[3:]} != {"rotation_vector"}
        or {field.reference for field in fields} != {"previous_target"}
        or len({field.frame for field in fields}) > 1
        or fields[0].frame not in FRAMES
    ):
        return None
    values = np.array([action[space.index(name)] for name in TRANSLATION + ROTATION], float)
    angle = float(np.linalg.norm(values[3:]))
    axis = values[3:] / angle if angle > 0 else values[3:]
    quaternion = np.array([*(math.sin(angle / 2) * axis), math.cos(angle / 2)])
    return FRAMES[fields[0].frame], values[:3], quaternion


class Bridge:
    """The `Robot` of `run_episode` on the node's topics.

    Args:
      node: an rclpy node.
      metadata: the server's.
    """

    def __init__(self, node: Any, metadata: dict[str, Any]) -> None:
        from geometry_msgs.msg import PoseStamped
        from sensor_msgs.msg import Image
        from std_msgs.msg import String

        self._node, self._string, self._pose = node, String, PoseStamped
        self.space = ActionSpace.from_json(metadata["action_space"])
        self._lock = threading.Lock()
        self._seen: dict[str, tuple[np.ndarray, float | None, float]] = {}
        self.views = list(metadata["views"])
        self.instruction = ""
        self.driven = ""
        self.asked = threading.Event()
        for view in self.views:
            node.create_subscription(Image, f"image_{view}", self._on_image(view), 1)
        node.create_subscription(String, "instruction", self._on_instruction, 1)
        self._actions = node.create_publisher(String, "action", 1)
        self._poses = node.create_publisher(PoseStamped, "pose_delta", 1)

    def _on_image(self, view: str) -> Any:
        def on_image(message: Any) -> None:
            try:
                pixels = picture(message)
            except ValueError as error:
                self._node.get_logger().error(f"{view}: {error}")
                return
            taken = captured_at(message.header.stamp, self._node.get_clock().now().nanoseconds)
            with self._lock:
                self._seen[view] = pixels, taken, time.monotonic()

        return on_image

    def _on_instruction(self, message: Any) -> None:
        self.instruction = message.data.strip()
        self.asked.set()

    def begin(self) -> str:
        """Takes the instruction of the next episode."""
        self.asked.clear()
        self.driven = self.instruction
        return self.driven

    def stop_when(self) -> str | None:
        """Another instruction ends an episode."""
        return "another instruction" if self.asked.is_set() else None

    def observe(self) -> Observation | None:
        """The newest pictures; None while one is missing or older than `OLDEST_S`."""
        with self._lock:
            seen = dict(self._seen)
        now = time.monotonic()
        if set(seen) < set(self.views):
            return None
        begins = [arrived if taken is None else taken for _, taken, arrived in seen.values()]
        if now - min(begins) > OLDEST_S:
            return None
        images = {view: pixels for view, (pixels, _, _) in seen.items()}
        return Observation(images, self.driven, captured_at=min(begins))

    def apply(self, action: np.ndarray) -> None:
        """Publishes one action."""
        self._say(action_message(self.space, action))
        found = pose_delta(self.space, action)
        if found is None:
            return
        frame, translation, quaternion = found
        message = self._pose()
        message.header.stamp = self._node.get_clock().now().to_msg()
        message.header.frame_id = frame
        position, orientation = message.pose.position, message.pose.orientation
        position.x, position.y, position.z = map(float, translation)
        orientation.x, orientation.y, orientation.z, orientation.w = map(float, quaternion)
        self._poses.publish(message)

    def stop(self) -> None:
        """Tells the robot to stand; its driver must also do so when no action comes."""
        self._say({"action_space": self.space.name, "stop": True})

    def _say(self, data: dict[str, Any]) -> None:
        message = self._string()
        message.data = json.dumps(data)
        self._actions.publish(message)


def main() -> None:
    """Drives an episode for each instruction, until Ctrl-C."""
    import rclpy
    from rclpy.executors import ExternalShutdownException

    rclpy.init()
    node = rclpy.create_node("rt2_policy")
    defaults = {"url": "ws://127.0.0.1:8000", "budget_ms": 500.0, "token_file": "", "ca": ""}
    given = {name: node.declare_parameter(name, value).value for name, value in defaults.items()}
    token = open(given["token_file"]).read().strip() if given["token_file"] else None

    def spin() -> None:
        try:
            rclpy.spin(node)
        except ExternalShutdownException:
            pass

    with RemotePolicy(
        given["url"], token, patience_s=60, budget_ms=given["budget_ms"], ca=given["ca"] or None
    ) as policy:
        bridge = Bridge(node, policy.metadata)
        threading.Thread(target=spin, daemon=True).start()
        number = 0
        try:
            while rclpy.ok():
                if not bridge.asked.wait(0.1) or not bridge.begin():
                    continue
                number += 1
                session = f"{node.get_name()} {time.time_ns()} {number}"
                summary = run_episode(
                    policy,
                    bridge,
                    session=session,
                    stop_when=lambda: bridge.stop_when() or (not rclpy.ok() and "shutdown"),
                )
                node.get_logger().info(summary.describe())
        except KeyboardInterrupt:
            pass
        finally:
            rclpy.try_shutdown()


if __name__ == "__main__":
    main()
