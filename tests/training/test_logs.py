"""Logs: what was written can be read, by a person and by TensorBoard, also after a restart."""

import json
import re

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from rt2_jax.data.tfrecord import read_records
from rt2_jax.training.logs import JsonlLog, TensorBoardLog, TerminalLog
from rt2_jax.training.t5x_names import t5x_names


def steps(path):
    return [json.loads(line)["step"] for line in path.read_text().splitlines()]


def test_a_restart_drops_the_lines_of_steps_it_takes_again(tmp_path):
    path = tmp_path / "run" / "metrics.jsonl"
    log = JsonlLog(path)
    for step in (1, 2, 3, 4):
        log.write(step, {"loss": 1 / step})
    log = JsonlLog(path, start_step=2)
    assert steps(path) == [1, 2]
    log.write(3, {"loss": 0.25})
    assert json.loads(path.read_text().splitlines()[-1]) == {"step": 3, "loss": 0.25}


def test_a_line_cut_short_is_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    JsonlLog(path).write(1, {"loss": 1.0})
    with path.open("a") as file:
        file.write('{"step": 2, "lo')
    JsonlLog(path, start_step=5).write(2, {"loss": 0.5})
    assert steps(path) == [1, 2]


@pytest.fixture(scope="module")
def event():
    """The message `tensorflow.Event`, with the fields of `tensorflow/core/util/event.proto`."""
    kinds = {"double": 1, "float": 2, "int64": 3, "string": 9, "message": 11}
    fields = {
        "Event": [
            ("wall_time", 1, "double", ""),
            ("step", 2, "int64", ""),
            ("file_version", 3, "string", ""),
            ("summary", 5, "message", "Summary"),
            ("session_log", 7, "message", "SessionLog"),
        ],
        "Summary": [("value", 1, "message", "Value")],
        "Value": [("tag", 1, "string", ""), ("simple_value", 2, "float", "")],
        "SessionLog": [("status", 1, "int64", "")],
    }
    file = descriptor_pb2.FileDescriptorProto(name="event.proto", syntax="proto3")
    for message, its_fields in fields.items():
        added = file.message_type.add(name=message)
        for name, number, kind, of in its_fields:
            label = 3 if name == "value" else 1
            field = added.field.add(name=name, number=number, type=kinds[kind], label=label)
            if of:
                field.type_name = of
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("Event"))


def test_an_event_file_has_the_numbers_and_says_where_it_starts(event, tmp_path):
    TensorBoardLog(tmp_path, start_step=300).write(301, {"loss": 0.5, "robot/accuracy": -1.25})
    (path,) = tmp_path.iterdir()
    assert path.name.startswith("events.out.tfevents.")
    version, start, written = map(event.FromString, read_records(path))
    assert version.file_version == "brain.Event:2"
    assert (start.step, start.session_log.status) == (301, 1)
    assert written.step == 301 and written.wall_time >= version.wall_time > 1.7e9
    values = {value.tag: value.simple_value for value in written.summary.value}
    assert values == {"loss": 0.5, "robot/accuracy": -1.25}


def test_what_t5x_logs_too_stands_in_the_event_file_by_its_names(event, tmp_path):
    numbers = {**NUMBERS, "target_positions_per_second": 80.0, "target_tokens": 0.75}
    TensorBoardLog(tmp_path, num_devices=4).write(1, numbers)
    (path,) = tmp_path.iterdir()
    written = event.FromString(list(read_records(path))[-1])
    values = {value.tag: value.simple_value for value in written.summary.value}
    assert values == pytest.approx(
        {
            **numbers,
            "timing/steps_per_second": 1 / 0.0123,
            "timing/seqs_per_second": 2600.4,
            "timing/seqs_per_second_per_core": 650.1,
            "timing/target_tokens_per_second": 80,
            "timing/target_tokens_per_second_per_core": 20,
            "non_padding_fraction/loss_weights": 0.75,
        },
        rel=1e-6,
    )
    assert t5x_names({"loss": 1.0}, 4) == {}


def test_every_start_has_an_event_file_of_its_own(tmp_path):
    for _ in range(2):
        TensorBoardLog(tmp_path).write(1, {"a name that is longer than 127 bytes " * 4: 1.0})
    files = list(tmp_path.iterdir())
    assert [len(list(read_records(file))) for file in files] == [3, 3]


NUMBERS = {"seconds_per_step": 0.0123, "examples_per_second": 2600.4, "data_wait": 0.031}


def test_a_log_file_gets_one_line_for_people(capsys):
    log = TerminalLog(100_000, 10)
    sources = {"arm/loss": 0.5, "arm/accuracy": 0.25, "web/loss": 2.0, "web/accuracy": 1.0}
    loss = {"loss": 1.23456, "accuracy": 0.912, "skipped_steps": 0.0}
    log.write(20, {**loss, **sources, **NUMBERS})
    line = capsys.readouterr().out
    assert re.sub(r"\d\d:\d\d:\d\d", "TIME", line, count=1) == (
        "step 20/100000  TIME  loss 1.2346  accuracy 91.2 %  arm 0.5000 25.0 %  "
        "web 2.0000 100.0 %  12.3 ms/step  2600 examples/s  data wait 3 %  left 0:20:29\n"
    )


def test_a_device_whose_peak_is_not_known_is_said_once_and_shows_flops(capsys):
    log = TerminalLog(100)
    for step in (1, 2):
        log.write(step, {**NUMBERS, "seconds_per_step": 2.5, "model_flops_per_second": 12.34e9})
    output = capsys.readouterr().out
    assert output.count("peak is not known") == 1
    assert output.count("2.50 s/step") == output.count("12.3 GFLOP/s") == 2
    log.write(3, {**NUMBERS, "model_flops_per_second": 1e14, "mfu": 0.513})
    assert "MFU 51.3 %" in capsys.readouterr().out


def test_skipped_steps_are_told_loudly(capsys):
    TerminalLog(100).write(20, {"skipped_steps": 3.0, **NUMBERS})
    assert "SKIPPED 3 steps that were not finite" in capsys.readouterr().out
