"""The ROS 2 example: conversions, and its node on topics of a stand-in for rclpy.

ROS 2 is not on PyPI; the stand-in has only the messages' fields and what the node calls.
"""

import importlib.util
import json
import sys
import threading
import time
import types
from pathlib import Path
from types import SimpleNamespace as Fields

import numpy as np
import pytest

from rt2_jax.actions.space import language_table_action_space, rt2_action_space
from rt2_jax.client.rotations import TO_MATRIX
from rt2_jax.serving.options import ServerOptions
from rt2_jax.serving.server import PolicyServer
from tests.serving.conftest import SPACE, Toy

FILE = Path(__file__).parents[2] / "examples/ros2_node.py"


@pytest.fixture(scope="module")
def example():
    """The example as a module; nothing of ROS is there to import."""
    spec = importlib.util.spec_from_file_location("ros2_node", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def image(pixels, encoding, padding=0, stamp=(0, 0)):
    height, width, depth = pixels.shape
    rows = np.zeros((height, width * depth + padding), np.uint8)
    rows[:, : width * depth] = pixels.reshape(height, -1)
    return Fields(
        encoding=encoding,
        height=height,
        width=width,
        step=rows.shape[1],
        data=rows.tobytes(),
        header=Fields(stamp=Fields(sec=stamp[0], nanosec=stamp[1])),
    )


@pytest.mark.parametrize("padding", [0, 5])
def test_pictures_of_every_encoding_become_rgb(example, padding):
    rgb = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    alpha = np.full((2, 3, 1), 255, np.uint8)
    for encoding, pixels in (
        ("rgb8", rgb),
        ("bgr8", rgb[..., ::-1]),
        ("rgba8", np.concatenate([rgb, alpha], -1)),
        ("bgra8", np.concatenate([rgb[..., ::-1], alpha], -1)),
    ):
        found = example.picture(image(pixels, encoding, padding))
        np.testing.assert_array_equal(found, rgb, encoding)
        assert found.flags.c_contiguous
    grey = example.picture(image(rgb[..., :1], "mono8", padding))
    np.testing.assert_array_equal(grey, rgb[..., [0, 0, 0]])
    with pytest.raises(ValueError, match="encoding '16UC1', expected one of"):
        example.picture(image(rgb, "16UC1"))
    short = image(rgb, "rgb8")
    short.data = short.data[:-1]
    with pytest.raises(ValueError, match="17 bytes and a step of 9 for 2 x 3 rgb8"):
        example.picture(short)


def test_stamps_become_ages_and_those_of_other_clocks_are_left_out(example):
    now = 100 * 10**9
    taken = example.captured_at(Fields(sec=99, nanosec=750_000_000), now)
    assert abs(time.monotonic() - taken - 0.25) < 0.05
    for sec in (0, 101):  # none set; of the future
        assert example.captured_at(Fields(sec=sec, nanosec=0), now) is None
    assert example.captured_at(Fields(sec=1, nanosec=0), 2 * 10**18) is None


def test_an_action_says_its_units_and_frames(example):
    action = np.array([0, 0.01, 0, 0, 0, 0, 0.1, 0.75], np.float32)
    said = example.action_message(SPACE, action)
    assert json.loads(json.dumps(said)) == said and said["control_rate_hz"] == 5
    fields = {field["name"]: field for field in said["fields"]}
    assert fields["terminate"]["meaning"] == "terminate"
    x = fields["position_delta_x"]
    assert (x["unit"], x["frame"], x["reference"]) == ("m", "base", "added to the previous target")
    assert fields["gripper_extension"]["polarity"] == "high_is_open"
    assert fields["rotation_delta_z"]["rotation"] == "rotation_vector"


def test_a_pose_delta_is_made_only_of_fields_that_mean_one(example):
    action = np.array([1, 0.01, 0.02, 0.03, 0.1, -0.2, 0.15, 1], np.float32)
    frame, translation, xyzw = example.pose_delta(SPACE, action)
    assert frame == "base_link"
    np.testing.assert_allclose(translation, [0.01, 0.02, 0.03], rtol=1e-6)
    expected = TO_MATRIX["rotation_vector"](action[4:7].astype(float))
    np.testing.assert_allclose(TO_MATRIX["quaternion_xyzw"](xyzw), expected, atol=1e-12)
    still = example.pose_delta(SPACE, np.zeros(8))
    np.testing.assert_allclose(still[2], [0, 0, 0, 1])
    for change in (
        {"rotation": "euler_xyz"},
        {"frame": "as_recorded"},
        {"reference": "current_state"},
    ):
        other = rt2_action_space(
            "o",
            translation_bound_m=1,
            rotation_bound_rad=1,
            gripper_polarity="high_is_open",
            control_rate_hz=3,
            **change,
        )
        assert example.pose_delta(other, action) is None, change
    assert example.pose_delta(language_table_action_space(), np.zeros(2)) is None


class Node:
    """Topics without a network."""

    def __init__(self, parameters):
        self.parameters, self.callbacks, self.published = parameters, {}, {}

    def declare_parameter(self, name, value):
        return Fields(value=self.parameters.get(name, value))

    def create_subscription(self, kind, topic, callback, depth):
        self.callbacks[topic] = callback

    def create_publisher(self, kind, topic, depth):
        return Fields(publish=self.published.setdefault(topic, []).append)

    def get_name(self):
        return "rt2_policy"

    def get_clock(self):
        now = Fields(nanoseconds=time.time_ns(), to_msg=lambda: "now")
        return Fields(now=lambda: now)

    def get_logger(self):
        return Fields(info=print, error=print)


def pose():
    return Fields(header=Fields(), pose=Fields(position=Fields(), orientation=Fields()))


def stand_in(monkeypatch, node):
    """Modules that look like ROS's to the node; returns the event that ends it."""
    ended = threading.Event()
    modules = {
        "rclpy": {
            "init": lambda: None,
            "create_node": lambda name: node,
            "ok": lambda: not ended.is_set(),
            "spin": lambda node: ended.wait(),
            "try_shutdown": ended.set,
        },
        "rclpy.executors": {"ExternalShutdownException": RuntimeError},
        "geometry_msgs.msg": {"PoseStamped": pose},
        "sensor_msgs.msg": {"Image": None},
        "std_msgs.msg": {"String": Fields},
    }
    for name in ("geometry_msgs", "sensor_msgs", "std_msgs"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    for name, content in modules.items():
        module = types.ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    return ended


def until(condition):
    end = time.monotonic() + 10
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    assert condition()


def test_the_node_drives_an_episode_for_each_instruction(example, monkeypatch):
    toy = Toy()
    server = PolicyServer(toy, port=0, options=ServerOptions())
    with server.in_thread() as url:
        node = Node({"url": url, "budget_ms": 5000.0})
        ended = stand_in(monkeypatch, node)
        thread = threading.Thread(target=example.main)
        thread.start()
        until(lambda: len(node.callbacks) == 3)

        def look():
            for topic in ("image_front", "image_wrist"):
                stamp = divmod(time.time_ns(), 10**9)
                pixels = np.full((4, 6, 3), 100, np.uint8)
                node.callbacks[topic](image(pixels, "bgr8", stamp=stamp))

        look()
        node.callbacks["instruction"](Fields(data="go"))
        said = node.published["action"]
        until(lambda: len(said) >= 2)
        first = json.loads(said[0].data)
        assert first["fields"][1] == {
            "name": "position_delta_x",
            "value": pytest.approx(0.01),
            "unit": "m",
            "frame": "base",
            "reference": "added to the previous target",
        }
        (message, *_) = node.published["pose_delta"]
        assert message.header.frame_id == "base_link"
        assert message.pose.position.x == pytest.approx(0.01)
        assert message.pose.orientation.w == 1
        node.callbacks["instruction"](Fields(data=""))  # ends it
        until(lambda: "stop" in json.loads(said[-1].data))
        count = len(said)
        time.sleep(0.3)
        assert len(said) == count
        ended.set()
        thread.join(10)
        assert not thread.is_alive()
