"""The public sets of questions about photos, each answered and turned round; words in photos."""

from __future__ import annotations

from rt2_jax.data.ocr_reader import ocr_source
from rt2_jax.data.prompts import prompt_of
from rt2_jax.data.registration import web_task
from rt2_jax.data.vqa import (
    a_ok_vqa_questions,
    ocr_vqa_questions,
    text_vqa_questions,
    vqa_v2_questions,
)
from rt2_jax.data.vqa_reader import vqa_source

_COCO = {"train": "train", "validation": "val"}

SETS = {
    "vqa_v2": (
        vqa_v2_questions(
            "v2_OpenEnded_mscoco_{split}2014_questions.json",
            "v2_mscoco_{split}2014_annotations.json",
            "COCO_{split}2014_{image_id:012d}.jpg",
        ),
        "{split}2014",
        _COCO,
        "v2_mscoco_train2014_annotations.json",
    ),
    "ok_vqa": (
        vqa_v2_questions(
            "OpenEnded_mscoco_{split}2014_questions.json",
            "mscoco_{split}2014_annotations.json",
            "COCO_{split}2014_{image_id:012d}.jpg",
        ),
        "{split}2014",
        _COCO,
        "mscoco_train2014_annotations.json",
    ),
    "a_ok_vqa": (a_ok_vqa_questions(), "{split}2017", _COCO, "aokvqa_v1p0_train.json"),
    "text_vqa": (text_vqa_questions(), "train_images", _COCO, "TextVQA_0.5.1_train.json"),
    "ocr_vqa": (
        ocr_vqa_questions(),
        "images",
        {"train": "1", "validation": "2", "test": "3"},
        "dataset.json",
    ),
}
"""Name, which is its folder's too -> layout, folder of photos, splits, file."""

TEMPLATES = {
    "": ("vqa", "{question}", "{answer}"),
    "_vqg": ("vqg", "{answer}", "{question}"),
    "_choices": ("vqa", "{question} Choose from: {choices}.", "{answer}"),
    "_reasons": ("vqa_with_reason", "{question}", "{rationale} So the answer is {answer}."),
}
"""End of a task's name -> kind of its prompt, text, target."""

for _name, (_read, _images, _splits, _file) in SETS.items():
    for _end, (_kind, _text, _target) in TEMPLATES.items():
        # Only A-OKVQA has choices and reasons.
        if _end in ("", "_vqg") or _name == "a_ok_vqa":
            web_task(
                f"{_name}{_end}",
                vqa_source(
                    _name, _read, images=_images, text=_text, target=_target, splits=_splits
                ),
                prompt=prompt_of(_kind),
                read_from=f"{_name}/{_file}",
            )

web_task(
    "text_ocr",
    ocr_source("text_ocr", images="train_images", splits=_COCO),
    prompt=prompt_of("ocr"),
    read_from="text_ocr/TextOCR_0.1_train.json",
)
