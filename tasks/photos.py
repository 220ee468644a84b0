"""COCO's photos: captions, places of things, questions about them; a sample of all for tests."""

from __future__ import annotations

from rt2_jax.data.coco_source import (
    caption_source,
    detection_source,
    object_question_source,
    pointing_source,
)
from rt2_jax.data.prompts import prompt_of
from rt2_jax.data.registration import web_task
from rt2_jax.data.text_objectives import split_targets
from rt2_jax.data.vqa import a_ok_vqa_questions
from rt2_jax.data.vqa_reader import vqa_source

SPLITS = {"train": "train", "validation": "val"}
SAMPLE = "coco/ccby"
SAMPLE_SIDE = 256  # pixels; the sample is for models of 64 to 224

CAPTIONS = caption_source(
    "coco",
    annotations="annotations/captions_{split}2017.json",
    images="{split}2017",
    lower_case=True,
    splits=SPLITS,
)
web_task(
    "coco_captions",
    CAPTIONS,
    prompt=prompt_of("caption"),
    read_from="coco/annotations/captions_train2017.json",
)
web_task(
    "coco_split_captions",
    CAPTIONS,
    prompt=prompt_of("split_caption"),
    read_from="coco/annotations/captions_train2017.json",
    preprocessors=[split_targets()],
)
for _name, _prompt, _source in (
    ("detection", "detection", detection_source),
    ("pointing", "pointing", pointing_source),
    ("object_questions", "vqa", object_question_source),
):
    web_task(
        f"coco_{_name}",
        _source(
            "coco",
            annotations="annotations/instances_{split}2017.json",
            images="{split}2017",
            splits=SPLITS,
        ),
        prompt=prompt_of(_prompt),
        read_from="coco/annotations/instances_train2017.json",
    )
    web_task(
        f"coco_sample_{_name}",
        _source(SAMPLE, longest_side=SAMPLE_SIDE),
        prompt=prompt_of(_prompt),
        read_from=f"{SAMPLE}/instances.json",
    )

SAMPLE_CAPTIONS = caption_source(SAMPLE, longest_side=SAMPLE_SIDE, lower_case=True)
web_task(
    "coco_sample_captions",
    SAMPLE_CAPTIONS,
    prompt=prompt_of("caption"),
    read_from=f"{SAMPLE}/captions.json",
)
web_task(
    "coco_sample_split_captions",
    SAMPLE_CAPTIONS,
    prompt=prompt_of("split_caption"),
    read_from=f"{SAMPLE}/captions.json",
    preprocessors=[split_targets()],
)
web_task(
    "coco_sample_vqa",
    vqa_source(SAMPLE, longest_side=SAMPLE_SIDE),
    prompt=prompt_of("vqa"),
    read_from=f"{SAMPLE}/vqa_annotations.json",
)
for _name, _prompt, _text, _target in (
    ("vqg", "vqg", "{answer}", "{question}"),
    ("choices", "vqa", "{question} Choose from: {choices}.", "{answer}"),
    ("reasons", "vqa_with_reason", "{question}", "{rationale} So the answer is {answer}."),
):
    web_task(
        f"coco_sample_{_name}",
        vqa_source(
            SAMPLE,
            a_ok_vqa_questions("aokvqa_val.json"),
            text=_text,
            target=_target,
            longest_side=SAMPLE_SIDE,
        ),
        prompt=prompt_of(_prompt),
        read_from=f"{SAMPLE}/aokvqa_val.json",
    )
