"""The unmodified `openpi-client` from PyPI, in an environment of its own (it pins numpy<2)."""

import json
import subprocess
import sys
import venv

import numpy as np
import pytest

pytestmark = pytest.mark.slow

PACKAGES = ("openpi-client==0.1.2", "typing-extensions")  # which it imports without asking for it
PROGRAM = """
import json, sys
import numpy as np
from openpi_client import action_chunk_broker, image_tools, websocket_client_policy

policy = websocket_client_policy.WebsocketClientPolicy("127.0.0.1", int(sys.argv[1]))
views = policy.get_server_metadata()["views"]
broker = action_chunk_broker.ActionChunkBroker(policy, action_horizon=1)
picture = np.full((48, 64, 3), 100, np.uint8)
wrist = image_tools.resize_with_pad(picture, 32, 32)
observation = {"observation/image": picture, "observation/wrist_image": wrist, "prompt": "wave"}
broker.reset()
actions = [broker.infer(observation)["actions"].tolist() for _ in range(3)]
try:
    policy.infer({"observation/image": picture, "prompt": "wave"})
except RuntimeError as error:
    refused = str(error)
actions.append(broker.infer(observation)["actions"].tolist())
print(json.dumps({"views": views, "actions": actions, "refused": refused, "numpy": np.__version__}))
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """An interpreter that has openpi-client and not this package."""
    folder = tmp_path_factory.mktemp("openpi") / "venv"
    venv.create(folder)
    interpreter = str(folder / "bin" / "python")
    # By this environment's pip: to install another one takes longer than the packages do.
    pip = [sys.executable, "-m", "pip", "--python", interpreter, "install", "--quiet"]
    subprocess.run([*pip, *PACKAGES], check=True)
    return interpreter


def test_openpis_own_client_drives_the_server(python, serve):
    server, _ = serve()
    result = subprocess.run(
        [python, "-c", PROGRAM, str(server.port)], capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout.splitlines()[-1])
    assert found["views"] == ["front", "wrist"] and found["numpy"] < "2"
    expected = np.zeros((4, 8), np.float32)
    expected[:, :2] = 1, 0.01
    np.testing.assert_allclose(found["actions"], expected)
    assert "wrist" in found["refused"], "an error is text, which openpi's client raises"
