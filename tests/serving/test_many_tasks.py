"""Several robot tasks behind one server: what is asked for is served, and nothing is guessed."""

import json

import pytest
from websockets.sync.client import connect

from rt2_jax.client import RemotePolicy
from rt2_jax.client.frames import pack, unpack
from rt2_jax.data.request_log import RequestLog, find_logs
from rt2_jax.serving.request_logger import TaskLogs

from .conftest import Toy, seen, together
from .test_server import page, raw, request


def robots():
    """`pick` and `push` of one robot, `wave` of another, which has one camera."""
    pick, push, wave = Toy(seconds=0.05), Toy(), Toy()
    wave.metadata = {**wave.metadata, "embodiment": "other", "views": ["front"]}
    return {"pick": pick, "push": push, "wave": wave}


def test_the_request_chooses_the_task(serve):
    policies = robots()
    _, url = serve(policies)
    answers = raw(
        url,
        pack(request(task="push")),
        pack(request(embodiment="other")),
        pack(request(task="pick", embodiment="toy")),
    )
    assert all(isinstance(each, bytes) for each in answers)
    assert [len(each.batches) for each in policies.values()] == [1, 1, 1]


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({}, "several tasks are served: send 'task', or connect with ?task=NAME; one of 'pick' of"),
        ({"embodiment": "toy"}, "one of 'pick' of embodiment 'toy', 'push' of embodiment 'toy'"),
        ({"task": "fly"}, "found task 'fly' and embodiment None, which this server does not serve"),
        ({"task": "wave", "embodiment": "toy"}, "it serves 'pick' of embodiment 'toy', 'push' of"),
        ({"task": ["pick"]}, "does not serve"),
    ],
)
def test_an_unknown_task_or_an_open_choice_is_refused_with_what_there_is(serve, choice, message):
    _, url = serve(robots())
    (answer,) = raw(url, pack(request(**choice)))
    assert answer.startswith("REFUSED: ") and message in answer


def test_a_single_policy_refuses_another_robots_name_too(serve):
    _, url = serve()
    wrong, right = raw(url, pack(request(embodiment="arm")), pack(request(embodiment="toy")))
    assert "embodiment 'arm', which this server does not serve; it serves" in wrong
    assert isinstance(right, bytes)


def test_the_first_metadata_names_all_tasks_and_an_address_chooses_one(serve):
    policies = robots()
    _, url = serve(policies)
    tasks = json.loads(page(url, "/metadata")[1])["tasks"]
    assert {name: each["views"] for name, each in tasks.items()} == {
        "pick": ["front", "wrist"],
        "push": ["front", "wrist"],
        "wave": ["front"],
    }
    with RemotePolicy(f"{url}/?task=wave") as robot:
        assert robot.metadata["views"] == ["front"]
        robot.infer(seen())
    assert policies["wave"].batches and not policies["pick"].batches
    with connect(f"{url}/?task=fly") as socket:
        assert "found task 'fly'" in socket.recv(timeout=10)
    with connect(url) as socket:
        assert unpack(socket.recv(timeout=10))["tasks"] == tasks
    with pytest.raises(ValueError, match=r"serves the tasks pick, push, wave; .*/\?task=NAME"):
        RemotePolicy(url)


def test_requests_of_two_tasks_are_never_in_one_batch(serve):
    policies = robots()
    _, url = serve(policies)
    names = ["pick", "push"] * 4
    clients = [RemotePolicy(f"{url}/?task={name}") for name in names]
    together(8, lambda i: clients[i].infer(seen(session=f"{names[i]} {i}")))
    for name in ("pick", "push"):
        asked = [session for batch in policies[name].batches for session in batch]
        assert len(asked) == 4 and all(session.startswith(name) for session in asked)


def test_names_of_one_policy_need_no_choice(serve):
    policy = Toy()
    _, url = serve({"pick": policy, "pick_too": policy})
    answers = raw(url, pack(request()), pack(request(task="pick_too")))
    assert all(isinstance(each, bytes) for each in answers) and len(policy.batches) == 2


def test_all_names_of_a_task_are_keys_of_its_statistics(serve):
    toy = Toy(task="pick")
    server, _ = serve({"pick": toy, "pick_again": toy})
    keys = server.policy_app.service.tasks.metadata["statistics_keys"]
    assert keys == ["pick", "pick_again", "toy"]


def test_each_task_has_a_log_of_its_own(serve, tmp_path):
    policies = robots()
    logs = TaskLogs(tmp_path, {**policies, "wave_again": policies["wave"]})
    assert list(logs.logs) == ["pick", "push", "wave"]
    _, url = serve(policies, log=logs)
    chosen = (request(task="push"), request(task="wave", prompt="hello"), request(task="fly"))
    raw(url, *map(pack, chosen))
    logs.close()
    found = {}
    for name, log in logs.logs.items():
        (folder,) = find_logs(tmp_path / name)
        assert folder == log.folder
        kept = RequestLog(folder)
        assert kept.info.metadata["embodiment"] == policies[name].metadata["embodiment"]
        found[name] = [(kept[i].outcome, kept[i].instruction) for i in range(len(kept))]
    answers = {"pick": [], "push": [("answered", "go")], "wave": [("answered", "hello")]}
    of_none = [("refused", "go"), ("left", "")]
    assert found == {name: mine + of_none for name, mine in answers.items()}
    with pytest.raises(FileNotFoundError, match="tasks .'pick', 'push', 'wave'., expected"):
        find_logs(tmp_path)
