"""Clients as they are on PyPI, each in an environment of its own, on one port of one server.

json-numpy with requests and openpi-client (`test_openpi_client.py`) also run in CI's short form.
"""

import json
import subprocess
import sys
import venv

import numpy as np
import pytest

from .conftest import Toy

pytestmark = pytest.mark.slow

JSON_NUMPY = """
import sys, json
import json_numpy, numpy as np, requests
json_numpy.patch()
url = f"http://127.0.0.1:{sys.argv[1]}/act"
payload = {"image": np.full((48, 64, 3), 100, np.uint8), "instruction": "go", "unnorm_key": "toy"}
plain = requests.post(url, json=payload).json()
double = json.loads(requests.post(url, json={"encoded": json_numpy.dumps(payload)}).json())
refused = requests.post(url, json={**payload, "unnorm_key": "bridge_orig"})
print("FOUND", json.dumps({
    "plain": plain.tolist(), "double": double.tolist(), "dtype": str(plain.dtype),
    "status": refused.status_code, "reason": refused.json()["error"],
}))
"""
WIDOWX = """
import sys, json
import numpy as np
from inspect_robots.scene import Scene
from inspect_robots.types import Observation
from inspect_robots_widowx.policy import OpenpiPolicy, OpenVLAPolicy
port = int(sys.argv[1])
seen = Observation(images={"external_cam": np.full((48, 64, 3), 100, np.uint8)}, state={})
found = {}
for name, policy in (
    ("openvla", OpenVLAPolicy(server_url=f"http://127.0.0.1:{port}", unnorm_key="toy")),
    ("openpi", OpenpiPolicy(host=f"ws://127.0.0.1:{port}/plain", port=port)),
):
    policy.reset(Scene(id="s", instruction="go"))
    found[name] = [action.data.tolist() for action in policy.act(seen).actions]
print("FOUND", json.dumps(found))
"""
YAM = """
import sys, json
import numpy as np
from inspect_robots.scene import Scene
from inspect_robots.types import Observation
from inspect_robots_yam.policy import ActServerPolicy
policy = ActServerPolicy(server_url=f"http://127.0.0.1:{sys.argv[1]}")
policy.reset(Scene(id="s", instruction="go"))
names = ("top_cam", "left_cam", "right_cam")
cameras = {name: np.full((224, 224, 3), 100, np.uint8) for name in names}
chunk = policy.act(Observation(images=cameras, state={"joint_pos": np.zeros(14)}))
actions = [action.data.tolist() for action in chunk.actions]
print("FOUND", json.dumps({"actions": actions, "hz": chunk.control_hz}))
"""
VLA_EVAL = """
import sys, json
import numpy as np
import vla_eval
from vla_eval.benchmarks.base import StepBenchmark, StepResult
from vla_eval.specs import GRIPPER_01, IMAGE_RGB, LANGUAGE, POSITION_DELTA, ROTATION_AA

class Reach(StepBenchmark):
    def __init__(self, send_wrist_image=False):
        super().__init__()
        self.send_wrist_image = send_wrist_image
    def get_tasks(self):
        return [{"name": "reach"}]
    def reset(self, task):
        self.x = 0.0
        return None
    def step(self, action):
        assert np.shape(action["actions"]) == (7,), action
        self.x += float(action["actions"][0])
        return StepResult(None, 0.0, self.x > 0.035, {})
    def make_obs(self, raw, task):
        picture = np.full((48, 64, 3), 100, np.uint8)
        images = {"agentview": picture}
        if self.send_wrist_image:
            images["wrist"] = picture
        return {"images": images, "task_description": "go"}
    def get_step_result(self, result):
        return {"success": self.x > 0.035}
    def get_action_spec(self):
        return {"position": POSITION_DELTA, "rotation": ROTATION_AA, "gripper": GRIPPER_01}
    def get_observation_spec(self):
        return {"image": IMAGE_RGB, "language": LANGUAGE, "wrist": IMAGE_RGB}
    def get_metadata(self):
        return {"max_steps": 8}

if __name__ == "__main__":
    results = vla_eval.run(
        {"benchmarks": [{"benchmark": "reach_benchmark:Reach", "episodes_per_task": 2}]},
        server_url=f"ws://127.0.0.1:{sys.argv[1]}/vla-eval", docker=False, no_save=True,
        output_dir=sys.argv[2],
    )
    episodes = [e for task in results[0]["tasks"] for e in task["episodes"]]
    print("FOUND", json.dumps([[e["metrics"]["success"], e["steps"]] for e in episodes]))
"""


def run(folder, packages, program, *arguments):
    """What a program prints behind FOUND, in a new environment that has only these packages."""
    venv.create(folder / "venv")
    interpreter = str(folder / "venv" / "bin" / "python")
    # By this environment's pip: to install another one takes longer than the packages do.
    pip = [sys.executable, "-m", "pip", "--python", interpreter, "install", "--quiet"]
    subprocess.run([*pip, *packages], check=True)
    script = folder / "reach_benchmark.py"
    script.write_text(program)
    result = subprocess.run(
        [interpreter, str(script), *map(str, arguments)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
    )
    found = [line for line in result.stdout.splitlines() if line.startswith("FOUND ")]
    assert result.returncode == 0 and found, result.stdout[-2000:] + result.stderr[-4000:]
    return json.loads(found[-1].removeprefix("FOUND ")), result.stdout + result.stderr


def test_json_numpy_and_requests_drive_act(serve, tmp_path):
    server, _ = serve(Toy(views=("front",)))
    found, _ = run(tmp_path, ("json-numpy==2.1.1", "requests"), JSON_NUMPY, server.port)
    expected = [0.01, 0, 0, 0, 0, 0, 0]
    np.testing.assert_allclose([found["plain"], found["double"]], [expected] * 2, rtol=1e-6)
    assert found["dtype"] == "float64" and found["status"] == 422
    assert "expected one of ['toy']" in found["reason"]


def test_vla_evals_harness_runs_a_benchmark(serve, tmp_path, full_check):
    if not full_check:
        pytest.skip("in `make check-long`")
    policy = Toy(horizon=2)
    server, _ = serve(policy)
    found, said = run(tmp_path, ("vla-eval==0.8.0",), VLA_EVAL, server.port, tmp_path)
    assert found == [[True, 4], [True, 4]]
    assert "wrist" in policy.asked[0].images and len(policy.asked) == 4
    assert "mismatch" not in said.lower()


def test_inspect_robots_openvla_and_openpi_policies_drive_the_server(serve, tmp_path, full_check):
    if not full_check:
        pytest.skip("in `make check-long`")
    server, _ = serve(Toy(views=("front",), horizon=2))
    packages = ("inspect-robots-widowx==0.1.0", "openpi-client==0.1.2", "typing-extensions")
    found, _ = run(tmp_path, packages, WIDOWX, server.port)
    assert np.shape(found["openvla"]) == (1, 7) and np.shape(found["openpi"]) == (2, 7)
    assert found["openvla"][0][0] == pytest.approx(0.01, rel=0.02), "its picture was a JPEG"
    assert found["openpi"][0][0] == pytest.approx(0.0075, rel=0.02), "a quarter of it is black"


def test_inspect_robots_yam_policy_drives_act(serve, tmp_path, full_check):
    if not full_check:
        pytest.skip("in `make check-long`")
    server, _ = serve(TwoArms())
    packages = ("inspect-robots-yam==0.37.0",)
    found, _ = run(tmp_path, packages, YAM, server.port)
    assert np.shape(found["actions"]) == (2, 14) and found["hz"] == pytest.approx(30)


class TwoArms:
    """Fourteen joints, two steps."""

    def __init__(self):
        from rt2_jax.actions.bounds import FixedBounds
        from rt2_jax.actions.space import ActionField, ActionSpace

        joints = [
            ActionField(f"joint_{i}", "rad", "joint", "absolute", FixedBounds(-3.1, 3.1))
            for i in range(14)
        ]
        self.metadata = {
            "action_space": ActionSpace("two_arms", joints, 30.0).to_json(),
            "views": ["top", "left", "right"],
            "state_fields": [f"joint_{i}" for i in range(14)],
        }

    def reset(self, session=None):
        pass

    def infer_batch(self, observations):
        return [{"actions": np.ones((2, 14), np.float32)} for _ in observations]
