"""Questions about photos as a SeqIO source: answered, turned round, with choices or reasons."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator, Mapping

import seqio

from rt2_jax.data.photo_source import TRAIN, PhotoExample, photo_source
from rt2_jax.data.vqa import Question, QuestionReader, vqa_v2_questions

_FIELDS = ("question", "answer", "choices", "rationale")
_ANSWER = "{answer}"


def vqa_source(
    folder: str,
    read: QuestionReader | None = None,
    *,
    images: str = "images",
    text: str = "{question}",
    target: str = _ANSWER,
    longest_side: int | None = None,
    splits: Mapping[str, str] = TRAIN,
) -> seqio.DataSource:
    """Each question about a photo, with text and target made of it by templates.

    The defaults ask and answer; where the target is the answer alone, the references are all
    people's answers. `text="{answer}", target="{question}"` is question generation; `{choices}` are
    those of a multiple choice, with commas between; with `{rationale}` each rationale of a question
    is an example.

    Args:
      folder: relative to `data_path`.
      read: the files' layout, from `rt2_jax.data.vqa`; VQAv2's by default.
      images: the folder of the photos, in the folder.
      text: of an example.
      target: of an example.
      longest_side: as in `photo_source`.
      splits: name -> what `{split}` in the names of files and folders stands for.

    Raises:
      ValueError: a template has other fields.
    """
    for template in (text, target):
        try:
            template.format_map(dict.fromkeys(_FIELDS, ""))
        except (KeyError, IndexError, ValueError) as error:
            raise ValueError(
                f"vqa_source: template {template!r} has a field {error}, expected "
                f"{', '.join(f'{{{field}}}' for field in _FIELDS)}"
            ) from None
    reasons = any("{rationale}" in template for template in (text, target))

    def examples(root: pathlib.Path, split: str) -> Iterator[PhotoExample]:
        for question in (read or vqa_v2_questions())(root, split):
            for number, rationale in enumerate(_rationales(question, root) if reasons else ("",)):
                fields = {
                    "question": question.question,
                    "answer": question.answer,
                    "choices": ", ".join(question.choices),
                    "rationale": rationale,
                }
                yield PhotoExample(
                    question.file,
                    text.format_map(fields),
                    target.format_map(fields),
                    f"{question.id}-{number}" if reasons else question.id,
                    question.answers if target == _ANSWER else (),
                )

    return photo_source(folder, examples, images=images, longest_side=longest_side, splits=splits)


def _rationales(question: Question, root: pathlib.Path) -> tuple[str, ...]:
    if not question.rationales:
        raise ValueError(
            f"{root}: question {question.id} has no rationale, which the task's template needs; "
            "A-OKVQA has them"
        )
    return question.rationales
