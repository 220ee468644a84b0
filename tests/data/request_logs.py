"""Logs as a server writes them, of requests that a test makes up."""

import dataclasses

import numpy as np

from rt2_jax.actions.space import rt2_action_space
from rt2_jax.data.journal import JournalWriter, seal_journal
from rt2_jax.data.request_log import (
    LoggedRequest,
    encode_picture,
    journal_file,
    new_log,
    write_info,
)

SPACE = rt2_action_space(
    "logged_arm",
    translation_bound_m=0.05,
    rotation_bound_rad=0.25,
    gripper_polarity="high_is_open",
    control_rate_hz=5,
)
METADATA = {
    "action_space": SPACE.to_json(),
    "embodiment": "logged",
    "views": ["front", "wrist"],
    "state_fields": ["x", "y"],
    "prompt": "Q: {text} A:",
    "checkpoint": "checkpoint_7",
    "weights": "abc",
}


def picture(seed, size=(12, 16)):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3)).astype(np.uint8)


def request(number, outcome="answered", terminate=False, **changes):
    """A request as the server logs it; its numbers are all different."""
    fields = {
        "connection": "connection-1",
        "session": "a",
        "time": 1e9 + 0.2 * number,
        "clock": 0.2 * number,
        "seq": number,
        "instruction": "go",
    }
    if outcome == "answered":
        action = np.random.default_rng(number).uniform(-0.05, 0.05, (1, 8)).astype(np.float32)
        action[0, 0] = not terminate
        fields |= {
            "actions": action,
            "pictures": {
                "front": encode_picture(picture(number)),
                "wrist": encode_picture(picture(number + 500)),
            },
            "state": np.array([number, 0.5], np.float32),
        }
    return LoggedRequest(number, outcome, **{**fields, **changes})


def numbered(*requests):
    """The same, numbered one after the other."""
    return [dataclasses.replace(each, number=number) for number, each in enumerate(requests)]


def write_log(root, requests, metadata=METADATA, sealed=True, ended=True):
    """A log of these requests; its folder."""
    folder, info = new_log(root, metadata)
    writer = JournalWriter(journal_file(folder, 0))
    for each in requests:
        writer.append(each.pack())
    writer.close()
    if sealed:
        seal_journal(writer.path)
    if ended:
        end = {"time": 1e9, "requests": requests[-1].number + 1, "dropped": 0}
        write_info(folder, dataclasses.replace(info, ended=end))
    return folder
