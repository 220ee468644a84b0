"""Named mixtures: the shares that the papers and codebases state."""

import json

import pytest
import seqio

from rt2_jax.data.registration import step_format
from rt2_jax.data.resolve import find_tasks
from rt2_jax.tasks import mixtures, oxe, oxe_mixtures


def shares(name):
    return {task.name: share for task, share in find_tasks(name)}


@pytest.mark.parametrize(
    ("name", "robot"),
    [("rt2_palix", 0.5), ("rt2_palme", 0.66), ("rt2_palme_cot", 0.66), ("rt2_x", 0.5)],
)
def test_the_robots_share_is_the_papers(name, robot):
    found = sum(s for task, s in find_tasks(name) if step_format(task).info.robot)
    assert found == pytest.approx(robot)


@pytest.mark.parametrize(
    ("name", "web", "share"),
    [
        ("rt2_palix", "palix_web", 0.5),
        ("rt2_palme", "palme_web", 0.34),
        ("rt2_palme_cot", "palme_web", 0.34),
        ("rt2_x", "palix_web", 0.5),
    ],
)
def test_the_web_side_is_the_backbones(name, web, share):
    found = {
        task: each for task, each in shares(name).items() if not task.startswith(("rt1", "oxe_"))
    }
    expected = {task: share * each for task, each in shares(web).items()}
    assert found == pytest.approx(expected)


def test_rt2_x_is_made_of_the_papers_twelve_data_sets():
    found = [name for name in shares("rt2_x") if name.startswith("oxe_")]
    assert len(found) == 12
    assert {"oxe_kuka", "oxe_toto", "oxe_language_table"} <= set(found)


def test_the_published_lists_are_those_of_the_facts(shared_data):
    facts = json.loads((shared_data / "stats/oxe_facts.json").read_text())["mixtures"]
    assert sum(len(lists) for lists in facts.values()) == 23
    for who, lists in facts.items():
        for name, rows in lists.items():
            first = dict(reversed([(data_set, weight) for data_set, weight in rows]))
            found = shares(f"{who}_{name}")
            assert set(found) == {oxe.task_name(data_set, who) for data_set in first}, name
            rates = dict(oxe_mixtures.published_rates(first, who))
            total = sum(rates.values())
            for task, share in found.items():
                assert share == pytest.approx(rates[task] / total), (name, task)


def test_a_weight_counts_every_step_of_a_data_set():
    rates = dict(oxe_mixtures.published_rates({"toto": 1.0, "viola": 2.0}, "octo"))
    assert rates == {"oxe_toto": 325699, "oxe_viola": 2 * 76324}
    without = dict(oxe_mixtures.published_rates({"toto": 1.0, "rh20t": 0.5}, "octo"))
    assert without["oxe_rh20t"] == 0.5 * 325699


def test_a_published_mixture_takes_its_authors_convention():
    assert "oxe_bridge_dataset_octo" in shares("octo_bridge")
    assert "oxe_bridge_orig" in shares("openvla_bridge")
    assert "oxe_berkeley_rpt_converted_externally_to_rlds_octo" in shares("octo_rtx_franka")
    assert "oxe_cmu_play_fusion_published" in shares("openvla_rtx_franka")


def test_half_of_language_table_are_actions():
    found = shares("language_table")
    assert sum(s for name, s in found.items() if name.endswith("_action")) == pytest.approx(0.5)
    assert len(found) == 10


def test_all_tasks_are_registered_by_the_module_of_mixtures():
    assert mixtures.oxe_mixtures is oxe_mixtures
    assert len([name for name in seqio.TaskRegistry.names() if name.startswith("oxe_")]) >= 90
