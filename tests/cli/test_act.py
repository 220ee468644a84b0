"""`rt2 act`: one question to a real server, printed."""

import numpy as np
import pytest
from PIL import Image

from rt2_jax.cli.main import main
from rt2_jax.serving.options import ServerOptions
from rt2_jax.serving.server import PolicyServer
from tests.serving.conftest import Toy


class Drawing(Toy):
    """Gives two drawn actions with each answer, and notes the pictures."""

    def __init__(self):
        super().__init__()
        self.metadata["views"] = ["front"]
        self.pictures = []

    def infer_batch(self, observations, *rest):
        self.pictures += [each.images["front"] for each in observations]
        results = [self._answer(each) for each in observations]
        for each in results:
            drawn = np.stack([each["actions"], 2 * each["actions"]])
            drawn[:, :, 0] = [[1], [0]]
            each["samples"] = {"actions": drawn, "scores": np.array([-1.5, -2.5], np.float32)}
        return results


@pytest.fixture
def picture(tmp_path):
    """A picture of 100s."""
    Image.fromarray(np.full((40, 60, 3), 100, np.uint8)).save(tmp_path / "front.png")
    return str(tmp_path / "front.png")


def test_the_picture_goes_as_jpeg_and_drawn_actions_are_printed(picture, capsys):
    toy = Drawing()
    toy.metadata["most_samples"] = 2
    with PolicyServer(toy, port=0, options=ServerOptions()).in_thread() as url:
        words = ["act", url, "--image", picture, "--instruction", "go"]
        assert main([*words, "--jpeg", "90", "--samples", "2"]) in (0, None)
    assert toy.pictures[0].shape == (40, 60, 3) and abs(toy.pictures[0].mean() - 100) < 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "sample 0, log-probability -1.50"
    assert lines[1].split() == ["terminate", "+1.0000", "level", "go", "on"]
    assert lines[2].split()[:2] == ["position_delta_x", "+0.0100"]
    assert lines[9] == "sample 1, log-probability -2.50"
    assert lines[10].split()[:4] == ["terminate", "+0.0000", "level", "terminate:"]


def test_a_certificate_for_an_address_without_tls_is_refused(picture, capsys):
    words = ["act", "ws://127.0.0.1:1", "--image", picture, "--instruction", "go"]
    assert main([*words, "--ca", picture]) not in (0, None)
    assert "ca: ws://127.0.0.1:1 has no TLS; connect to wss://" in capsys.readouterr().err


def test_what_is_missing_is_told_by_its_flag(picture, capsys):
    words = ["act", "ws://127.0.0.1:1", "--instruction", "go", "--image"]
    assert main([*words, "no.png"]) not in (0, None)
    assert "--image no.png: No such file" in capsys.readouterr().err
    assert main([*words, picture, "--token-file", "no.txt"]) not in (0, None)
    assert "--token-file no.txt: No such file" in capsys.readouterr().err
    assert main(["serve", "runs/mine", "--token-file", "no.txt"]) not in (0, None)
    assert "--token-file no.txt: No such file" in capsys.readouterr().err
    toy = Toy(views=["front"], state_fields=["x", "y"])
    with PolicyServer(toy, port=0, options=ServerOptions()).in_thread() as url:
        asked = main(["act", url, "--instruction", "go", "--image", picture, "--state", "0.5"])
    assert asked not in (0, None) and not toy.asked
    assert "--state: found 1 numbers, and the policy reads 2: x, y" in capsys.readouterr().err
