"""The page of a mixture: what it shows is what the data hold, in one file without scripts."""

import base64
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from rt2_jax.data.cache_writer import cache_task
from rt2_jax.data.image import decode_image
from rt2_jax.data.inspection import inspect_mixture
from rt2_jax.data.inspection_page import inspection_page
from rt2_jax.data.inspection_svg import planes
from rt2_jax.data.places import place_text
from rt2_jax.data.vocabulary.tokenizer import load_vocabulary

from .conftest import ARM, robot_steps, web_steps

TOKENIZER = load_vocabulary()


def inspect(name, **options):
    return inspect_mixture(name, "train", TOKENIZER, **options)


def page_of(name, **options):
    return inspection_page(name, "train", inspect(name, **options), TOKENIZER)


class Tags(HTMLParser):
    def __init__(self, page):
        super().__init__()
        self.tags, self.text = [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text.append(data)


def test_the_page_is_one_file_without_scripts_and_without_links_outwards(mixture, tmp_path):
    page = page_of("half", cache_dir=tmp_path)
    tags = Tags(page).tags
    assert "script" not in {tag for tag, _ in tags}
    assert not re.search(r"https?://|url\(|@import|\bon\w+=", re.sub('base64,[^"]+', "", page))
    sources = [attributes["src"] for tag, attributes in tags if tag == "img"]
    assert len(sources) > 10
    for source in sources:
        kind, _, data = source.partition(";base64,")
        assert kind in ("data:image/png", "data:image/jpeg")
        assert decode_image(base64.b64decode(data)).ndim == 3


def test_steps_are_shown_with_prompt_target_and_every_token(mixture, tmp_path):
    robot, web = inspect("half", cache_dir=tmp_path, steps=3)
    text = " ".join(Tags(page_of("half", cache_dir=tmp_path, steps=3)).text)
    assert len(robot.shown) == len(web.shown) == 3
    for shown in (*robot.shown, *web.shown):
        assert shown.prompt in text and shown.target in text
        assert shown.target_ids == tuple(TOKENIZER.encode(shown.target))
        assert str(shown.target_ids[0]) in text
    assert "Arrows: grey is recorded" in text and "where the camera stands is not known" in text


def test_decoded_actions_are_within_half_a_bin_and_histograms_count_all(robot, tmp_path):
    steps = robot_steps(lengths=(20, 30))
    steps[7]["action"][1] = 5  # far outside of q01..q99
    (task,) = inspect(robot(steps=steps).name, steps=50)
    for shown in task.shown:
        for i, field in enumerate(task.fields):
            if not shown.clipped[i]:
                error = abs(shown.decoded[i] - shown.step.action[i])
                assert error <= (field.high - field.low) / 2 / field.bins + 1e-6
    assert [field.counts.sum() for field in task.fields] == [50] * 8
    position = task.fields[1]
    assert position.clipped == np.mean([s.clipped[1] for s in task.shown]) == 2 / 50
    assert position.edges[-1] > 5 > position.high
    assert task.fields[7].bins_used == 2 and not task.fields[7].alarming


def test_a_field_that_uses_one_bin_is_marked(robot):
    steps = robot_steps()
    for step in steps:
        step["action"][4] = 0
    (task,) = inspect(robot(steps=steps).name)
    assert [f.name for f in task.fields if f.alarming and f.bins_used == 1] == ["rotation_delta_x"]
    page = inspection_page("x", "train", [task], TOKENIZER)
    assert "<p class=alarm>1 of 256 bins in use" in page


def test_films_are_whole_episodes(robot):
    (task,) = inspect(robot(steps=robot_steps(lengths=(3, 20, 2, 4))).name, films=2)
    assert [len(film.actions) for film in task.films] == [3, 20]
    assert [step.step for step in task.films[0].steps] == [0, 1, 2]
    long = [step.step for step in task.films[1].steps]
    assert len(long) == 12 and long[0] == 0 and long[-1] == 19


def test_a_cached_task_shows_what_an_uncached_one_does(robot, tmp_path):
    task = robot()
    (before,) = inspect(task.name, cache_dir=tmp_path)
    cache_task(task, tmp_path)
    (after,) = inspect(task.name, cache_dir=tmp_path)
    assert "not cached" in before.origin and after.origin == "cache"
    np.testing.assert_equal([s.target for s in before.shown], [s.target for s in after.shown])
    assert before.statistics == after.statistics


def test_places_in_answers_are_marked_on_the_picture(web):
    answer = f"cup{place_text(0.25, 0.75)} red lid{place_text(0.5, 0.125)}"
    steps = [{**step, "target": answer} for step in web_steps(2)]
    page = page_of(web(steps=steps).name)
    marks = re.findall(r'left:([\d.]+)%;top:([\d.]+)%"><u>([^<]+)<', page)
    assert [(float(x), float(y), name) for x, y, name in marks[:2]] == [
        (pytest.approx(75, abs=0.1), pytest.approx(25, abs=0.1), "cup"),
        (pytest.approx(12.5, abs=0.1), pytest.approx(50, abs=0.1), "red lid"),
    ]


def test_text_of_the_data_is_never_markup(web):
    steps = [{**s, "text": "<script>alert(1)</script>", "target": "<b>&"} for s in web_steps(1)]
    page = page_of(web(steps=steps).name)
    assert "<script>" not in page and "&lt;script&gt;alert(1)" in page


def test_arrows_are_drawn_for_one_arm_alone():
    import dataclasses

    assert [title for title, _, _ in planes(ARM)] == ["x, y: from above", "x, z: from the side"]
    two = [dataclasses.replace(field, name=f"left_{field.name}") for field in ARM.fields]
    assert planes(dataclasses.replace(ARM, fields=(*ARM.fields, *two))) == []
