"""`POST /v1/generate`: text for questions, behind the robots."""

import base64
import io
import json
import threading
import time

import numpy as np
import pytest
from PIL import Image

from ..conftest import Toy
from .test_openvla import ASK, post

PATH = "/v1/generate"


def picture(value, kind="PNG"):
    file = io.BytesIO()
    Image.fromarray(np.full((4, 6, 3), value, np.uint8)).save(file, kind)
    return base64.b64encode(file.getvalue()).decode()


def ask(url, **body):
    status, _, data = post(url, json.dumps(body), PATH)
    return status, json.loads(data)


def test_a_question_about_a_picture_is_answered(serve):
    _, url = serve()
    status, data = ask(url, prompt="what is it?", image=picture(7), num_samples=2, mood="gay")
    assert status == 200 and data["text"] == "what is it?: 7" and len(data["samples"]) == 2
    assert data["warnings"] == ["nobody reads 'mood' of the request"]
    assert (
        ask(url, prompt="p", image=f"data:image/jpeg;base64,{picture(9, 'JPEG')}")[1]["text"]
        == "p: 9"
    )


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "no 'prompt'"),
        ({"prompt": " "}, "prompt: it is empty"),
        ({"prompt": 1}, "prompt: found int, expected text"),
        ({"prompt": "p", "image": "*"}, "image: no base64"),
        ({"prompt": "p", "image": "AAAA"}, "expected a whole JPEG or PNG"),
        ({"prompt": "p", "image": 3}, "image: found int"),
        ({"prompt": "p", "max_tokens": 0}, "max_tokens: found 0, expected 1 to"),
        ({"prompt": "p", "temperature": "hot"}, "temperature: found 'hot', expected a number"),
        ({"prompt": "p", "num_samples": 1.5}, "num_samples: found '1.5', expected a number"),
    ],
)
def test_a_question_that_cannot_be_read_is_refused(serve, body, message):
    status, data = ask(serve()[1], **body)
    assert status == 422 and data["error"].startswith("REFUSED: ") and message in data["error"]


def test_a_policy_that_writes_no_text_says_so(serve):
    assert ask(serve(Toy(writes_text=False))[1], prompt="p")[0] == 501
    assert ask(serve(questions=False)[1], prompt="p")[0] == 501


def test_a_question_waits_for_every_robot_and_no_longer_than_its_budget(serve):
    policy = Toy(seconds=0.2, views=("front",))
    _, url = serve(policy, largest_batch=1)
    order = []

    def robot(name):
        assert post(url, {**ASK, "session": name})[0] == 200
        order.append(name)

    def question():
        assert ask(url, prompt="p")[0] == 200
        order.append("question")

    threads = [threading.Thread(target=robot, args=(f"r{i}",)) for i in range(3)]
    for thread in threads:
        thread.start()
    while not policy.batches:
        time.sleep(0.005)
    time.sleep(0.05)  # the two others wait in line
    threads.append(threading.Thread(target=question))
    threads[-1].start()
    assert ask(url, prompt="p", budget_ms=20)[0] == 504
    for thread in threads:
        thread.join()
    assert order[-1] == "question" and len(order) == 4
