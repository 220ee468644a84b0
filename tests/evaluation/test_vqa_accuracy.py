"""VQA accuracy is what the published script of VQA v2.0 computes.

Golden numbers: `vqaEval.py` of github.com/GT-Vision-Lab/VQA at a013f00.
"""

import pytest

from rt2_jax.evaluation.text_scores import Judged, vqa_scores
from rt2_jax.evaluation.vqa_accuracy import normalised_answer, vqa_accuracy


@pytest.mark.parametrize(
    ("answer", "people", "accuracy"),
    [
        ("yes", ["yes"] * 4 + ["no"] * 6, 1.0),
        ("yes", ["yes"] * 3 + ["no"] * 7, 0.9),
        ("A dog.", ["dog"] * 2 + ["cat"] * 8, 0.6),
        ("two", ["2"] + ["3"] * 9, 0.3),
        ("red/blue", ["red blue"] * 3 + ["red"] * 7, 0.9),
        ("dont know", ["don't know"] * 5 + ["no"] * 5, 1.0),
        # Where all people agree the script compares texts as they are.
        ("The 1,000", ["1000"] * 10, 0.0),
        ("x", ["y"] * 10, 0.0),
    ],
)
def test_accuracy_is_that_of_the_published_script(answer, people, accuracy):
    assert vqa_accuracy(answer, people) == pytest.approx(accuracy)


@pytest.mark.parametrize(
    ("answer", "normal"),
    [
        (" The\tTwo dogs ", "2 dogs"),
        ("1,000 - no", "1000 no"),
        ("black/white", "black white"),
        ("x-ray, (red)", "x ray red"),
        ("wouldnt've", "wouldn't've"),
        ("3.5 U.S.", "3.5 us"),
        ("none", "0"),
        ("hello_world", "hello world"),
    ],
)
def test_answers_are_normalised_as_the_published_script_does(answer, normal):
    assert normalised_answer(answer) == normal


def test_other_numbers_of_people_are_refused_and_called_otherwise():
    with pytest.raises(ValueError, match="found 3 people's answers, expected 10"):
        vqa_accuracy("yes", ["yes"] * 3)
    ten = Judged("yes", "yes", ("yes",) * 2 + ("no",) * 8)
    scores = vqa_scores([ten, Judged("A cup", "cup"), Judged("cup", "mug", ("mug", "cup"))])
    assert [(each.name, each.value, each.count) for each in scores] == [
        ("vqa_accuracy", pytest.approx(0.6), 1),
        ("vqa_exact_match", 0.5, 2),
    ]
