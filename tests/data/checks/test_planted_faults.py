"""Faults planted at random fields and rates are found; their clean twins give no finding."""

import dataclasses
import functools
import io

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from PIL import Image

from rt2_jax.actions.bounds import QuantileBounds
from rt2_jax.actions.space import rt2_action_space
from rt2_jax.data.checks.survey import survey_steps
from rt2_jax.data.checks.task import check_survey
from rt2_jax.data.step import TaskStep
from rt2_jax.data.task_info import ROBOT_PROMPT, RobotInfo, TaskInfo

SPACE = rt2_action_space(
    "arm",
    translation_bound_m=QuantileBounds(),
    rotation_bound_rad=QuantileBounds(),
    gripper_polarity="high_is_open",
    control_rate_hz=5.0,
    rotation="euler_xyz",
)
ABSOLUTE = dataclasses.replace(
    SPACE,
    fields=tuple(
        dataclasses.replace(field, reference="absolute", name=field.name.replace("_delta", ""))
        for field in SPACE.fields
    ),
)
STATES = ("x", "y", "z", "roll", "pitch", "yaw", "gripper")
MOVING = st.integers(0, 5)  # of the fields of a pose
RATES = st.floats(0.02, 1.0)
# Data of one seed are no simpler than those of another, so there is nothing to shrink.
PHASES = (Phase.explicit, Phase.generate)
SETTINGS = settings(max_examples=12, phases=PHASES)


def info(space=SPACE):
    robot = RobotInfo("arm", space, STATES)
    return TaskInfo("arm", ROBOT_PROMPT, ("front", "wrist"), (6, 8), robot)


@functools.cache
def png(seed):
    pixels = np.zeros((6, 8, 3), np.uint8)
    if seed is not None:
        pixels = np.random.default_rng(seed).integers(0, 256, pixels.shape).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def demonstrations(seed, absolute=False, episodes=20):
    """A robot that follows smooth commands to 80 % with noise; per episode actions and states."""
    random = np.random.default_rng(seed)
    numbers = []
    for _ in range(episodes):
        length = int(random.integers(12, 30))
        noise = random.normal(size=(length + 4, 6))
        smooth = sum(noise[i : i + length] for i in range(5)) / 2
        deltas = smooth * [0.02, 0.02, 0.02, 0.1, 0.1, 0.1]
        moved = deltas * 0.8 + random.normal(size=deltas.shape) * deltas.std() * 0.05
        start = random.uniform(-0.3, 0.3, 6)
        poses = start + np.concatenate([np.zeros((1, 6)), np.cumsum(moved, axis=0)[:-1]])
        opens = (np.sin(np.arange(length) / 3 + random.uniform(0, 6)) > 0).astype(float)
        after = np.concatenate([opens[:1], opens[:-1]])
        commands = poses + deltas if absolute else deltas
        terminate = np.ones((length, 1))
        terminate[-1] = 0
        numbers.append(
            (
                np.concatenate([terminate, commands, opens[:, None]], axis=1),
                np.concatenate([poses, after[:, None]], axis=1),
            )
        )
    return numbers


def steps_of(numbers):
    """The steps, to be changed, of these actions and states; all their pictures differ."""
    return [
        TaskStep(
            images=(png(97 * episode + step), png(97 * episode + step + 50)),
            text=f"pick up object {episode % 7}",
            target="",
            action=action.astype(np.float32),
            state=state.astype(np.float32),
            episode=episode,
            step=step,
            episode_id=f"demo-{episode}",
        )
        for episode, (actions, states) in enumerate(numbers)
        for step, (action, state) in enumerate(zip(actions, states, strict=True))
    ]


def findings(numbers_or_steps, space=SPACE, **options):
    steps = numbers_or_steps
    if not isinstance(steps[0], TaskStep):
        steps = steps_of(steps)
    return check_survey(survey_steps(info(space), "train", steps, **options))


def found(numbers_or_steps, space=SPACE):
    """(check, field) of all findings."""
    return {(each.check, each.field) for each in findings(numbers_or_steps, space)}


def some(count, rate, seed):
    """Numbers below `count`, at least one, about this share of them."""
    chosen = np.flatnonzero(np.random.default_rng(seed).random(count) < rate)
    return chosen if len(chosen) else np.array([count // 2])


@settings(max_examples=40, phases=PHASES)
@given(seed=st.integers(0, 10_000), absolute=st.booleans())
def test_clean_data_give_no_finding(seed, absolute):
    assert not findings(demonstrations(seed, absolute), ABSOLUTE if absolute else SPACE)


@SETTINGS
@given(seed=st.integers(0, 1000), field=MOVING, absolute=st.booleans())
def test_a_flipped_sign_is_found_at_its_field(seed, field, absolute):
    space = ABSOLUTE if absolute else SPACE
    numbers = demonstrations(seed, absolute)
    for actions, _ in numbers:
        actions[:, 1 + field] *= -1
    assert found(numbers, space) == {("sign-flip", f"action {space.names[1 + field]}")}


@SETTINGS
@given(seed=st.integers(0, 1000), group=st.sampled_from([0, 3]), shift=st.integers(1, 2))
def test_swapped_axes_are_found_at_their_fields(seed, group, shift):
    numbers = demonstrations(seed)
    order = [group, group + shift]
    for actions, _ in numbers:
        actions[:, [1 + i for i in order]] = actions[:, [1 + i for i in reversed(order)]]
    assert found(numbers) == {("swapped-axes", f"action {SPACE.names[1 + i]}") for i in order}


@SETTINGS
@given(
    seed=st.integers(0, 1000),
    field=MOVING,
    factor=st.sampled_from([1000, 57.3, 1 / 57.3, 1 / 1000]),
    of_state=st.booleans(),
)
def test_another_unit_is_found_at_its_field(seed, field, factor, of_state):
    numbers = demonstrations(seed)
    for actions, states in numbers:
        if of_state:
            states[:, field] *= factor
        else:
            actions[:, 1 + field] *= factor
    all_found = found(numbers)
    name = f"action {SPACE.names[1 + field]}"
    assert ("scale", name) in all_found
    # What a thousandth leaves is below the floor of the range, and told as well.
    assert all_found <= {("scale", name), ("near-zero-range", name)}


@pytest.mark.parametrize(("factor", "unit"), [(1000, "millimetres"), (57.3, "degrees")])
def test_the_likely_unit_is_named(factor, unit):
    numbers = demonstrations(3)
    for actions, _ in numbers:
        actions[:, 5] *= factor
    (finding,) = findings(numbers)
    assert unit in finding.found and "in rad" in finding.advice


def test_velocities_are_held_against_changes_times_the_control_rate():
    fields = [
        field if field.frame == "none" else dataclasses.replace(field, unit=f"{field.unit}/s")
        for field in SPACE.fields
    ]
    space, per_second = dataclasses.replace(SPACE, fields=tuple(fields)), [1, *[5] * 6, 1]
    numbers = demonstrations(4)
    assert findings([(a * per_second, s) for a, s in numbers], space) == []
    for actions, _ in numbers:
        actions[:, 2:7] *= 5
        actions[:, 1] /= 5
    (finding,) = findings(numbers, space)
    assert finding.check == "scale" and finding.field == "action position_delta_x"


def test_another_unit_is_found_without_a_state_to_compare_with():
    numbers = [(actions * [1, 1000, 1, 1, 1, 1, 1, 1], s) for actions, s in demonstrations(3)]
    task = info()
    task = dataclasses.replace(task, robot=dataclasses.replace(task.robot, state_fields=()))
    steps = [dataclasses.replace(s, state=np.zeros(0, np.float32)) for s in steps_of(numbers)]
    (finding,) = check_survey(survey_steps(task, "train", steps))
    assert (finding.check, finding.field) == ("scale", "action position_delta_x")


@SETTINGS
@given(seed=st.integers(0, 1000), early=st.booleans(), absolute=st.booleans())
def test_actions_a_step_too_early_or_late_are_found(seed, early, absolute):
    space = ABSOLUTE if absolute else SPACE
    numbers = [
        (np.concatenate([np.roll(a[:, :7], -1 if early else 1, axis=0)[:, 1:], a[:, 7:]], 1), a, s)
        for a, s in demonstrations(seed, absolute)
    ]
    numbers = [(np.concatenate([a[:, :1], moved], axis=1), s) for moved, a, s in numbers]
    every = findings(numbers, space)
    assert {each.check for each in every} == {"time-shift"}
    assert {each.severity for each in every} == {"warning" if early else "error"}
    fields = ", ".join(each.field for each in every)
    assert sum(name in fields for name in space.names) >= 5


@SETTINGS
@given(seed=st.integers(0, 1000), of_state=st.booleans())
def test_a_gripper_that_closes_when_told_to_open_is_found(seed, of_state):
    numbers = demonstrations(seed)
    for actions, states in numbers:
        values = states if of_state else actions
        values[:, -1] = 1 - values[:, -1]
    assert found(numbers) == {("gripper-polarity", "action gripper_extension")}


@SETTINGS
@given(seed=st.integers(0, 1000), declared=st.booleans(), field=MOVING)
def test_an_absolute_value_declared_as_a_delta_is_found_and_the_other_way_round(
    seed, declared, field
):
    numbers, other = demonstrations(seed, absolute=declared), demonstrations(seed, not declared)
    for (actions, _), (wrong, _) in zip(numbers, other, strict=True):
        actions[:, 1 + field] = wrong[:, 1 + field]
    space = ABSOLUTE if declared else SPACE
    assert ("reference", f"action {space.names[1 + field]}") in found(numbers, space)


@SETTINGS
@given(seed=st.integers(0, 1000), field=st.integers(0, 6), of_state=st.booleans())
def test_dead_fields_are_found(seed, field, of_state):
    numbers = demonstrations(seed)
    for actions, states in numbers:
        (states if of_state else actions)[:, field + (not of_state)] = 0.25
    name = f"state {STATES[field]}" if of_state else f"action {SPACE.names[1 + field]}"
    assert found(numbers) == {("dead-field", name)}


@SETTINGS
@given(seed=st.integers(0, 1000), field=MOVING)
def test_near_zero_ranges_are_found(seed, field):
    numbers = demonstrations(seed)
    for actions, states in numbers:
        actions[:, 1 + field] *= 0.01
        states[:, field] *= 0.01
    assert found(numbers) == {("near-zero-range", f"action {SPACE.names[1 + field]}")}


@SETTINGS
@given(seed=st.integers(0, 1000), field=st.integers(0, 6), rate=RATES, bad=st.sampled_from("ni"))
def test_nan_and_infinity_are_found_with_their_first_place(seed, field, rate, bad):
    steps = steps_of(demonstrations(seed))
    places = some(len(steps), rate, seed)
    for i in places:
        steps[i].state[field] = np.nan if bad == "n" else np.inf
    finding = next(f for f in findings(steps) if f.check == "not-finite")
    first = steps[places[0]]
    assert finding.field == f"state {STATES[field]}"
    assert finding.place == (first.episode, first.episode_id, first.step)
    assert f"{len(places)} of {len(steps)}" in finding.found


@SETTINGS
@given(seed=st.integers(0, 1000), field=MOVING, of_state=st.booleans(), rate=st.floats(0, 0.004))
def test_spikes_are_found(seed, field, of_state, rate):
    numbers = demonstrations(seed)
    hit = some(len(numbers), rate * 20, seed)  # one spike to an episode
    for i in hit:
        values = numbers[i][int(of_state)]
        values[len(values) // 2, field + (not of_state)] += 100
    name = f"state {STATES[field]}" if of_state else f"action {SPACE.names[1 + field]}"
    finding = next(f for f in findings(numbers) if f.check == "spike")
    assert finding.field == name
    assert finding.place[0] == hit[0] and finding.place[2] == len(numbers[hit[0]][0]) // 2


@SETTINGS
@given(seed=st.integers(0, 1000), view=st.integers(0, 1), rate=RATES, whole=st.booleans())
def test_black_pictures_are_found_at_their_view(seed, view, rate, whole):
    steps = steps_of(demonstrations(seed))
    places = range(len(steps)) if whole else some(len(steps), rate * 0.9, seed)
    for i in places:
        images = list(steps[i].images)
        images[view] = png(None)
        steps[i] = dataclasses.replace(steps[i], images=tuple(images))
    finding = next(f for f in findings(steps) if f.check == "black-picture")
    assert finding.field == f"view {('front', 'wrist')[view]}"
    assert finding.severity == ("error" if len(places) == len(steps) else "warning")


@pytest.mark.parametrize(
    ("check", "change"),
    [
        ("damaged-picture", lambda images: (images[0][:60], images[1])),
        ("missing-picture", lambda images: images[:1]),
        ("equal-views", lambda images: (images[0], images[0])),
        ("frozen-view", lambda images: (images[0], png(1))),
    ],
)
def test_other_faults_of_pictures_are_found(check, change):
    clean = steps_of(demonstrations(5))
    steps = [
        dataclasses.replace(s, images=change(s.images)) if s.episode == 4 else s for s in clean
    ]
    (finding,) = findings(steps)
    assert finding.check == check and finding.place[:2] == (4, "demo-4")


@SETTINGS
@given(seed=st.integers(0, 1000), rate=RATES)
def test_episodes_without_an_end_are_found(seed, rate):
    numbers = demonstrations(seed)
    open_ended = some(len(numbers), rate, seed)
    for i in open_ended:
        numbers[i][0][-1, 0] = 1
    finding = next(f for f in findings(numbers) if f.check == "no-end")
    assert f"{len(open_ended)} of 20" in finding.found and finding.place[0] == open_ended[0]


def test_steps_behind_the_end_are_found():
    numbers = demonstrations(8)
    numbers[3][0][5, 0] = 0
    (finding,) = findings(numbers)
    assert finding.check == "goes-on-after-end" and finding.place == (3, "demo-3", 5)


def test_episodes_cut_at_one_length_are_found():
    numbers = [(a[:12], s[:12]) for a, s in demonstrations(8)]
    for actions, _ in numbers:
        actions[-1, 0] = 0
    (finding,) = findings(numbers)
    assert finding.check == "one-length" and "20 of 20" in finding.found


@SETTINGS
@given(seed=st.integers(0, 1000), rate=st.floats(0.02, 0.9))
def test_copies_of_episodes_are_found(seed, rate):
    steps, copied = steps_of(demonstrations(seed)), some(20, rate, seed)
    for new, old in enumerate(copied):
        steps += [
            dataclasses.replace(s, episode=20 + new, episode_id="copy")
            for s in steps
            if s.episode == old
        ]
    finding = next(f for f in findings(steps) if f.check == "duplicate-episodes")
    assert finding.found.startswith(f"{len(copied)} of {20 + len(copied)} episodes")
    assert finding.place == (20, "copy", 0)


@SETTINGS
@given(seed=st.integers(0, 1000), rate=RATES, text=st.sampled_from(["", "  ", "b'pick it up'"]))
def test_empty_and_broken_instructions_are_found(seed, rate, text):
    steps = steps_of(demonstrations(seed))
    places = some(len(steps), rate * 0.9, seed)
    for i in places:
        steps[i] = dataclasses.replace(steps[i], text=text)
    check = "bytes-as-text" if text.strip() else "empty-text"
    assert (check, "text") in found(steps)


def test_one_instruction_for_all_is_found():
    steps = [dataclasses.replace(s, text="pick it up") for s in steps_of(demonstrations(1))]
    assert found(steps) == {("one-instruction", "text")}


def test_a_gripper_of_another_range_and_bounds_that_are_too_wide_are_found():
    fields = list(SPACE.fields)
    fields[1] = dataclasses.replace(fields[1], bounds=dataclasses.replace(fields[7].bounds, low=-1))
    space = dataclasses.replace(SPACE, fields=tuple(fields))
    numbers = demonstrations(1)
    for actions, _ in numbers:
        actions[:, 7] = 2 * actions[:, 7] - 1
    expected = {("clipped", "action gripper_extension"), ("few-bins", "action position_delta_x")}
    assert found(numbers, space) == expected


def test_numbers_of_another_length_are_found():
    steps = steps_of(demonstrations(1))
    steps[7] = dataclasses.replace(steps[7], action=steps[7].action[:7])
    (finding,) = findings(steps)
    assert finding.check == "wrong-shape" and finding.place == (0, "demo-0", 7)


def test_only_so_many_steps_are_kept_and_faults_are_still_found():
    numbers = demonstrations(2, episodes=60)
    for actions, _ in numbers:
        actions[:, 2] *= -1
    survey = survey_steps(info(), "train", steps_of(numbers), kept_steps=400)
    assert sum(len(episode.actions) for episode in survey.kept) <= 400
    assert survey.steps == sum(len(actions) for actions, _ in numbers) > 1000
    assert [each.check for each in check_survey(survey)] == ["sign-flip"]
