"""Questions about photos: every public layout is read, and made into any kind of example."""

import json
import re

import pytest

from rt2_jax.data import vqa
from rt2_jax.data.coco_source import object_question_source
from rt2_jax.data.ocr_reader import Word, in_reading_order, ocr_source
from rt2_jax.data.registration import web_task
from rt2_jax.data.step_reader import read_steps
from rt2_jax.data.vqa_reader import vqa_source

from .conftest import encoded, picture


@pytest.fixture
def folder(registry, tmp_path, monkeypatch):
    """`folder(files)`: a data folder of these JSON files, and photos named 1, 2 and b1."""
    monkeypatch.setenv("RT2_DATA_DIR", str(tmp_path))
    (tmp_path / "images").mkdir()
    for i, name in enumerate(("000000000001", "000000000002", "b1")):
        (tmp_path / f"images/{name}.jpg").write_bytes(encoded(picture(i)))

    def make(**files):
        for name, data in files.items():
            (tmp_path / f"{name}.json").write_text(json.dumps(data))
        return tmp_path

    return make


def examples(source, name="questions", split="train", prompt="{text}"):
    return list(read_steps(web_task(name, source, prompt=prompt, read_from="here"), split))


def texts(steps):
    return [(step.episode_id, step.text, step.target) for step in steps]


def test_ok_vqa_has_no_chosen_answer_so_the_most_common_one_is(folder):
    answers = [{"answer": each} for each in ("pony tail", "braid", "braid", "bun")]
    folder(
        q={"questions": [{"question_id": 10, "image_id": 1, "question": "what hair?"}]},
        a={"annotations": [{"question_id": 10, "image_id": 1, "answers": answers}]},
    )
    source = vqa_source("", vqa.vqa_v2_questions("q.json", "a.json"))
    assert texts(examples(source)) == [("10", "what hair?", "braid")]


A_OK_VQA = {
    "question_id": "x",
    "image_id": 2,
    "question": "where?",
    "choices": ["bath", "hall"],
    "correct_choice_idx": 0,
    "direct_answers": ["tub", "bath", "bath"],
    "rationales": ["there is a sink.", "tiles."],
}


@pytest.mark.parametrize(
    ("templates", "expected"),
    [
        ({}, [("x", "where?", "bath")]),
        ({"text": "{answer}", "target": "{question}"}, [("x", "bath", "where?")]),
        ({"text": "{question} {choices}"}, [("x", "where? bath, hall", "bath")]),
        (
            {"target": "{rationale} So {answer}"},
            [("x-0", "where?", "there is a sink. So bath"), ("x-1", "where?", "tiles. So bath")],
        ),
    ],
)
def test_templates_ask_turn_round_choose_and_reason(folder, templates, expected):
    folder(val=[A_OK_VQA])
    source = vqa_source("", vqa.a_ok_vqa_questions("val.json"), **templates)
    assert texts(examples(source)) == expected


def test_text_vqa_and_ocr_vqa_are_read_and_a_split_may_be_a_number_in_the_file(folder):
    folder(
        text_train={
            "data": [
                {"question_id": 3, "image_id": "b1", "question": "brand?", "answers": ["a", "a"]}
            ]
        },
        books={
            "b1": {"split": 1, "questions": ["who?", "title?"], "answers": ["ann", "{x}"]},
            "b2": {"split": 3, "questions": ["who?"], "answers": ["bob"]},
        },
    )
    source = vqa_source("", vqa.text_vqa_questions("text_{split}.json"))
    assert texts(examples(source, "text")) == [("3", "brand?", "a")]
    source = vqa_source("", vqa.ocr_vqa_questions("books.json"), splits={"train": "1", "test": "3"})
    assert texts(examples(source, "books")) == [("b1-0", "who?", "ann"), ("b1-1", "title?", "{x}")]
    with pytest.raises(FileNotFoundError, match="1 photos are missing, the first is b2.jpg"):
        examples(source, "missing", split="test")


def test_questions_without_answers_or_reasons_are_refused_by_their_number(folder):
    folder(
        q={"questions": [{"question_id": 10, "image_id": 1, "question": "what hair?"}]},
        a={"annotations": [{"question_id": 10, "image_id": 1}]},
        bare=[{**A_OK_VQA, "rationales": []}],
        test=[{k: v for k, v in A_OK_VQA.items() if k != "direct_answers"}],
    )
    for i, (reader, template, message) in enumerate(
        (
            (
                vqa.vqa_v2_questions("q.json", "a.json"),
                "{answer}",
                "a.json: question 10 has no",
            ),
            (vqa.a_ok_vqa_questions("test.json"), "{answer}", "test.json: question x has no ans"),
            (vqa.a_ok_vqa_questions("bare.json"), "{rationale}", "question x has no rationale"),
        )
    ):
        with pytest.raises(ValueError, match=message):
            examples(vqa_source("", reader, target=template), f"refused_{i}")


def test_a_template_with_an_unknown_field_is_refused_at_registration():
    with pytest.raises(ValueError, match="template '{reason}' has a field 'reason', expected {que"):
        vqa_source("", target="{reason}")


def test_real_a_ok_vqa_questions_have_reasons_and_choices(shared_data):
    read = vqa.a_ok_vqa_questions("aokvqa_v1p0_val.json")
    questions = list(read(shared_data / "text", "val"))
    assert len(questions) == 1145
    assert all(len(q.choices) == 4 and len(q.rationales) == 3 for q in questions)
    first = questions[0]
    assert (first.answer, first.file) == ("cigarette", "000000461751.jpg")


def test_real_ok_vqa_questions_are_read_with_answers_in_its_layout(shared_data, tmp_path):
    name = "okvqa_OpenEnded_mscoco_val2014_questions.json"
    asked = json.loads((shared_data / "text" / name).read_text())["questions"]
    annotations = [
        {**question, "answers": [{"answer": "yes", "raw_answer": "Yes"}], "confidence": 3}
        for question in asked
    ]
    (tmp_path / name).symlink_to(shared_data / "text" / name)
    (tmp_path / "mscoco_val2014_annotations.json").write_text(
        json.dumps({"annotations": annotations})
    )
    read = vqa.vqa_v2_questions(
        "okvqa_OpenEnded_mscoco_{split}2014_questions.json",
        "mscoco_{split}2014_annotations.json",
        "COCO_{split}2014_{image_id:012d}.jpg",
    )
    questions = list(read(tmp_path, "val"))
    assert len(questions) == 5046
    assert questions[0].question == "What sport can you use this for?"
    assert questions[0].file == "COCO_val2014_000000297147.jpg"


@pytest.fixture
def boxes(folder):
    """Photos 1 (a cat, and a crowd of people) and 2 (a dog and a cup), of 16 x 12 pixels."""
    names = {1: "cat", 2: "dog", 3: "cup", 4: "person"}
    things = [(1, 1, 0), (1, 4, 1), (2, 2, 0), (2, 3, 0)]
    folder(
        instances={
            "images": [
                {"id": i, "file_name": f"{i:012d}.jpg", "width": 16, "height": 12} for i in (1, 2)
            ],
            "categories": [{"id": i, "name": name} for i, name in names.items()],
            "annotations": [
                {"id": i, "image_id": p, "category_id": c, "iscrowd": crowd, "bbox": [0, 0, 4, 4]}
                for i, (p, c, crowd) in enumerate(things)
            ],
        }
    )


def test_object_questions_are_answered_by_the_boxes(boxes):
    steps = examples(object_question_source(""))
    there = {"1": {"cat", "person"}, "2": {"dog", "cup"}}
    assert [step.episode_id for step in steps] == ["1-0", "1-1", "1-2", "2-0", "2-1", "2-2"]
    for lists, one, which in (steps[:3], steps[3:]):
        present = there[lists.episode_id[0]]
        assert lists.text == "List the objects present"
        assert lists.target.split(", ") == sorted(present)
        asked = re.fullmatch(r"Is (\w+) in the image\?", one.text)[1]
        assert one.target == ("yes" if asked in present else "no")
        asked = re.fullmatch(r"Which of (.+) are in the image\?", which.text)[1].split(", ")
        assert len(set(asked)) == len(asked) and which.target
        assert which.target.split(", ") == [name for name in asked if name in present]


def test_real_photos_are_asked_for_what_is_there_as_often_as_for_what_is_not(
    registry, shared_data, monkeypatch
):
    monkeypatch.setenv("RT2_DATA_DIR", str(shared_data))
    steps = examples(object_question_source("coco/ccby"))
    answers = [step.target for step in steps if step.text.startswith("Is ")]
    assert len(answers) == len(steps) / 3 > 40
    assert 0.3 < answers.count("yes") / len(answers) < 0.7


def test_written_words_are_read_in_lines(folder):
    words = [("b", [9, 1, 3, 4]), ("c", [0, 7, 3, 4]), ("a", [0, 0, 5, 5]), (".", [0, 0, 1, 1])]
    folder(
        ocr={
            "imgs": {
                "1": {"file_name": "train/000000000001.jpg"},
                "2": {"file_name": "000000000002.jpg"},
            },
            "anns": {
                str(i): {"image_id": 1, "utf8_string": text, "bbox": box}
                for i, (text, box) in enumerate(words)
            },
        }
    )
    source = ocr_source("", annotations="ocr.json", images="images")
    assert texts(examples(source, "all")) == [("1", "", "a b c")]
    source = ocr_source("", annotations="ocr.json", images="images", most=2)
    assert texts(examples(source, "two")) == [("1", "", "a b")]


def test_reading_order_is_that_of_a_page():
    page = [["the", "quick", "fox"], ["jumps", "over"], ["it"]]
    boxes = [
        Word(word, 10 * column, 10 * row + column, 8, 8)
        for row, line in enumerate(page)
        for column, word in enumerate(line)
    ]
    assert [word.text for word in in_reading_order(boxes[::-1])] == sum(page, [])


def test_all_peoples_answers_are_kept_where_the_answer_is_the_target(folder):
    answers = [{"answer": each} for each in ("braid", "bun", "braid")]
    folder(
        q={"questions": [{"question_id": 10, "image_id": 1, "question": "what hair?"}]},
        a={"annotations": [{"question_id": 10, "image_id": 1, "answers": answers}]},
    )
    read = vqa.vqa_v2_questions("q.json", "a.json")
    [asked] = examples(vqa_source("", read))
    assert asked.references == ("braid", "bun", "braid")
    [turned] = examples(vqa_source("", read, text="{answer}", target="{question}"), "turned")
    assert turned.references == ()
