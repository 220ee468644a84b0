"""A server's log as a data set: its steps are what was asked and answered, bit for bit."""

import json

import numpy as np
import pytest
import tensorflow_datasets as tfds

from rt2_jax.cli.main import main
from rt2_jax.data.cache import StepCache
from rt2_jax.data.image import decode_image
from rt2_jax.data.log_import import describe_import, import_log
from rt2_jax.data.request_log import RequestLog, encode_picture

from .request_logs import METADATA, SPACE, numbered, picture, request, write_log


def episodes(directory):
    data = tfds.builder_from_directory(directory).as_dataset(split="train")
    return [(e["episode_metadata"], list(e["steps"])) for e in tfds.as_numpy(data)]


def two_episodes():
    return numbered(
        request(0),
        request(1),
        request(2, "late"),
        request(3, terminate=True),
        request(4, "reset"),
        request(5, instruction="come"),
        request(6, instruction="come"),
        request(7, "left", session="connection-1"),
    )


def test_a_record_comes_back_as_it_was_written(tmp_path):
    tokens = np.arange(8, dtype=np.int32)
    wanted = request(
        3, step=2, tokens=tokens, levels=tokens[None], plan="up", score=-1.5, warnings=("w",)
    )
    for sealed in (True, False):
        log = RequestLog(write_log(tmp_path, [wanted], sealed=sealed))
        assert len(log) == 1 and log.info.metadata == METADATA
        for name, value in wanted.__dict__.items():
            np.testing.assert_array_equal(getattr(log[0], name), value)


@pytest.mark.parametrize("sealed", [True, False])
def test_steps_are_what_was_asked_and_answered(tmp_path, sealed):
    requests = two_episodes()
    folder = write_log(tmp_path / "logs", requests, sealed=sealed)
    result = import_log(tmp_path / "logs", tmp_path)
    assert (result.episodes, result.steps) == (2, 5) and result.left_out == {"late": 1}
    assert result.directory == tmp_path / "request_log/1.0.0"
    (first, one), (second, two) = episodes(result.directory)
    for step, number in zip([*one, *two], (0, 1, 3, 5, 6), strict=True):
        asked = requests[number]
        seen = step["observation"]
        np.testing.assert_array_equal(seen["image"], picture(number))
        np.testing.assert_array_equal(seen["wrist_image"], picture(number + 500))
        np.testing.assert_array_equal(seen["state"], asked.state)
        np.testing.assert_array_equal(step["action"], asked.actions[0])
        assert step["language_instruction"].decode() == asked.instruction
        assert step["time_us"] == round(1e6 * asked.time)
    assert [bool(step["is_first"]) for step in one] == [True, False, False]
    assert [bool(step["is_last"]) for step in one] == [False, False, True]
    assert [bool(step["is_terminal"]) for step in one] == [False, False, True]
    assert two[-1]["is_last"] and not two[-1]["is_terminal"], "nobody said that it was over"
    assert first["ended"] == b"terminate" and second["ended"] == b"left"
    assert first["session"] == b"a" and first["checkpoint"] == b"checkpoint_7"
    assert first["log"].decode() == f"{folder.name}/requests-00000"
    origin = json.loads((result.directory / "metadata.json").read_text())["rt2_request_log"]
    assert origin["ended"] == {"terminate": 1, "left": 1} and origin["logs"][0]["records"] == 8


def test_the_printed_lines_register_it_and_rt2_data_caches_it(
    built_in_tasks, registry, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RT2_DATA_DIR", "data")  # put back after the test
    requests = two_episodes()
    write_log(tmp_path / "logs", requests)
    assert main(["data", "import-log", "logs", "data", "--name", "driven"]) == 0
    printed = capsys.readouterr()
    assert 'FOLDER = "driven/1.0.0"' in printed.out
    assert "5 steps of 2 episodes" in printed.err and "no steps: late 1" in printed.err
    (tmp_path / "my_driven_log.py").write_text(printed.out)
    assert main(["data", "cache", "driven", "--module", "my_driven_log"]) == 0
    cache = StepCache("cache", "driven", "train")
    assert cache.info.task.robot.action_space == SPACE
    assert cache.info.task.prompt == METADATA["prompt"] and cache.info.episodes == 2
    for step, number in zip((cache[i] for i in range(5)), (0, 1, 3, 5, 6), strict=True):
        np.testing.assert_array_equal(step.action, requests[number].actions[0])
        np.testing.assert_array_equal(decode_image(step.images[1]), picture(number + 500))
        assert step.text == requests[number].instruction
        assert step.episode_id.endswith("/a")


def test_starts_of_one_server_are_one_data_set(tmp_path):
    for _ in range(2):
        write_log(tmp_path / "logs", [request(0), request(1)])
    result = import_log(tmp_path / "logs", tmp_path)
    assert result.episodes == 2 and len({e["log"] for e, _ in episodes(result.directory)}) == 2


def test_values_of_slots_become_columns_that_fill_the_prompt(
    built_in_tasks, registry, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RT2_DATA_DIR", "data")
    prompt = "Q: {text}?[ Speed: {speed}.] A:"
    metadata = {**METADATA, "prompt": prompt, "state_fields": [], "views": ["front"]}
    asked = ["go\nspeed: slow", "go\nspeed: slow", "go"]
    requests = [
        request(number, instruction=text, state=None, plan="up")
        for number, text in enumerate(asked)
    ]
    write_log(tmp_path / "logs", requests, metadata)
    assert main(["data", "import-log", "logs", "data", "--min-steps", "1"]) == 0
    (tmp_path / "my_slots.py").write_text(capsys.readouterr().out)
    assert main(["data", "cache", "request_log", "--module", "my_slots"]) == 0
    cache = StepCache("cache", "request_log", "train")
    filled = [cache.info.task.fill_prompt(cache[i].text) for i in range(3)]
    assert filled == [*["Q: go? Speed: slow. A:"] * 2, "Q: go? A:"]
    assert cache[0].target == "up" and cache[0].state.shape == (0,)


def test_a_state_without_names_is_kept_by_place_and_one_that_is_missing_is_told(tmp_path):
    metadata = {**METADATA, "state_fields": []}
    write_log(tmp_path / "logs", [request(0), request(1)], metadata)
    result = import_log(tmp_path / "logs", tmp_path)
    assert result.info.robot.state_fields == ("state_0", "state_1")
    write_log(tmp_path / "some", [request(0), request(1, state=None)], metadata)
    result = import_log(tmp_path / "some", tmp_path, name="some")
    assert result.info.robot.state_fields == ()
    assert any("states are left out" in line for line in describe_import(result))


def test_pictures_of_several_sizes_are_kept_as_they_are(tmp_path):
    large = {view: encode_picture(picture(9, (20, 30))) for view in ("front", "wrist")}
    write_log(tmp_path / "logs", [request(0), request(1, pictures=large)])
    result = import_log(tmp_path / "logs", tmp_path)
    ((_, steps),) = episodes(result.directory)
    assert result.info.image_size is None
    assert [s["observation"]["image"].shape for s in steps] == [(12, 16, 3), (20, 30, 3)]


def test_chunks_are_told(tmp_path):
    chunk = np.ones((4, 8), np.float32)
    write_log(tmp_path / "logs", [request(0, actions=chunk), request(1, actions=chunk)])
    lines = list(describe_import(import_log(tmp_path / "logs", tmp_path)))
    assert any("answers held up to 4 actions, of which the first is kept" in x for x in lines)


def test_a_record_that_was_cut_off_is_left_out_and_told(tmp_path):
    folder = write_log(tmp_path / "logs", [request(i) for i in range(4)], sealed=False, ended=False)
    journal = folder / "requests-00000.journal"
    journal.write_bytes(journal.read_bytes()[:-7])
    result = import_log(tmp_path / "logs", tmp_path)
    assert result.steps == 3
    assert any("bytes of records that were cut off" in line for line in describe_import(result))


def test_what_cannot_be_imported_is_refused_and_nothing_is_written(tmp_path):
    logs = tmp_path / "logs"
    with pytest.raises(FileNotFoundError, match="no log of a server in it"):
        import_log(tmp_path, tmp_path)
    folder = write_log(logs, [request(0), request(1)])
    with pytest.raises(ValueError, match="no episode of 3 steps .*left out: {'short': 2}"):
        import_log(logs, tmp_path, min_steps=3)
    with pytest.raises(ValueError, match="left out: {'other': 2}"):
        import_log(logs, tmp_path, sessions=["b*"])
    with pytest.raises(ValueError, match="tensorflow-datasets takes names"):
        import_log(logs, tmp_path, name="My log")
    other = write_log(logs, [request(0), request(1)], {**METADATA, "views": ["front"]})
    with pytest.raises(ValueError, match="logs of different robots or tasks: views"):
        import_log(logs, tmp_path)
    assert not (tmp_path / "request_log").exists()
    import_log(folder, tmp_path)
    with pytest.raises(FileExistsError, match="is there already; delete it"):
        import_log(other, tmp_path)
    (folder / "server.json").write_text('{"views": []}')
    with pytest.raises(ValueError, match="no log of a server; there is no 'rt2_request_log'"):
        import_log(folder, tmp_path, name="again")
    (folder / "server.json").write_text('{"rt2_request_log": 99}')
    with pytest.raises(ValueError, match="a log of version 99, this package reads 1"):
        import_log(folder, tmp_path, name="again")
