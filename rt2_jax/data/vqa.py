"""Questions about photos, read without TensorFlow from the files of the public data sets."""

from __future__ import annotations

import pathlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rt2_jax.data.coco import load_json, look_up


@dataclass(frozen=True)
class Question:
    """A question about a photo.

    Attributes:
      id: the data set's own.
      file: of the photo, in the folder of photos.
      question: as people wrote it.
      answer: the one that most people gave, the first of these where several are.
      choices: of a multiple choice; () where there are none.
      rationales: why the answer is right, in words; () where there are none.
      answers: of all people, where several were asked; see `rt2_jax.evaluation.vqa_accuracy`.
    """

    id: str
    file: str
    question: str
    answer: str
    choices: tuple[str, ...] = ()
    rationales: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()


QuestionReader = Callable[[pathlib.Path, str], Iterator[Question]]
"""From a folder, and what `{split}` in the names of files stands for, to its questions."""

COCO_FILE = "{image_id:012d}.jpg"


def vqa_v2_questions(
    questions: str = "vqa_questions.json",
    annotations: str = "vqa_annotations.json",
    file_name: str = COCO_FILE,
) -> QuestionReader:
    """VQAv2 and OK-VQA: questions in one file, ten answers to each in another.

    Args:
      questions: the file with `questions`; it may hold `{split}`, as all names here.
      annotations: the file with `annotations`. OK-VQA's lack `multiple_choice_answer`.
      file_name: of a photo, from its `image_id`.
    """

    def read(root: pathlib.Path, split: str) -> Iterator[Question]:
        asked_in = root / questions.format(split=split)
        answered_in = root / annotations.format(split=split)
        asked = {
            question["question_id"]: question["question"]
            for question in load_json(asked_in, "questions")["questions"]
        }
        for entry in load_json(answered_in, "annotations")["annotations"]:
            number = entry["question_id"]
            answers = tuple(each["answer"] for each in entry.get("answers", ()))
            answer = entry.get("multiple_choice_answer")
            if answer is None:
                answer = _most_common(answers, answered_in, number)
            yield Question(
                str(number),
                file_name.format(image_id=entry["image_id"], split=split),
                look_up(asked, number, answered_in, "question_id"),
                answer,
                answers=answers,
            )

    return read


def a_ok_vqa_questions(
    file: str = "aokvqa_v1p0_{split}.json", file_name: str = COCO_FILE
) -> QuestionReader:
    """A-OKVQA (Schwenk et al. 2022): a list of questions with choices, answers and rationales."""

    def read(root: pathlib.Path, split: str) -> Iterator[Question]:
        path = root / file.format(split=split)
        for entry in load_json(path):
            number = entry["question_id"]
            yield Question(
                str(number),
                file_name.format(image_id=entry["image_id"], split=split),
                entry["question"],
                _most_common(entry.get("direct_answers", ()), path, number),
                tuple(entry["choices"]),
                tuple(entry.get("rationales", ())),
                tuple(entry.get("direct_answers", ())),
            )

    return read


def text_vqa_questions(
    file: str = "TextVQA_0.5.1_{split}.json", file_name: str = "{image_id}.jpg"
) -> QuestionReader:
    """TextVQA (Singh et al. 2019): `data`, a list of questions with ten answers each."""

    def read(root: pathlib.Path, split: str) -> Iterator[Question]:
        path = root / file.format(split=split)
        for entry in load_json(path, "data")["data"]:
            number = entry["question_id"]
            yield Question(
                str(number),
                file_name.format(image_id=entry["image_id"], split=split),
                entry["question"],
                _most_common(entry.get("answers", ()), path, number),
                answers=tuple(entry.get("answers", ())),
            )

    return read


def ocr_vqa_questions(
    file: str = "dataset.json", file_name: str = "{image_id}.jpg"
) -> QuestionReader:
    """OCR-VQA (Mishra et al. 2019): covers of books by number, each with lists of questions.

    All splits are in one file; its entries have `split` 1 (train), 2 (validation) or 3 (test),
    which is what `{split}` stands for.
    """

    def read(root: pathlib.Path, split: str) -> Iterator[Question]:
        books: Mapping[str, Any] = load_json(root / file)
        for number, book in books.items():
            if str(book["split"]) != split:
                continue
            for i, (question, answer) in enumerate(
                zip(book["questions"], book["answers"], strict=True)
            ):
                name = file_name.format(image_id=number, split=split)
                yield Question(f"{number}-{i}", name, question, answer)

    return read


def _most_common(answers: Sequence[str], path: pathlib.Path, number: Any) -> str:
    if not answers:
        raise ValueError(
            f"{path}: question {number} has no answer; a split that was published without answers "
            "cannot be trained on"
        )
    # Counter keeps the order of what is equally common.
    return Counter(answers).most_common(1)[0][0]
