"""Photos of the web: COCO captions, questions of VQAv2, and places of things."""

from __future__ import annotations

from rt2_jax.data.coco_source import (
    caption_source,
    detection_source,
    pointing_source,
    vqa_source,
)
from rt2_jax.data.registration import web_task
from rt2_jax.data.task_info import CAPTION_PROMPT, DETECTION_PROMPT, POINTING_PROMPT, VQA_PROMPT

SAMPLE_SIDE = 256  # pixels; the sample is for models of 64 to 224

web_task(
    "coco_captions",
    caption_source(
        "coco",
        annotations="annotations/captions_train2017.json",
        images="train2017",
        lower_case=True,
    ),
    prompt=CAPTION_PROMPT,
    read_from="coco/annotations/captions_train2017.json",
)
web_task(
    "vqa_v2",
    vqa_source(
        "vqa_v2",
        questions="v2_OpenEnded_mscoco_train2014_questions.json",
        annotations="v2_mscoco_train2014_annotations.json",
        images="train2014",
        file_name="COCO_train2014_{image_id:012d}.jpg",
    ),
    prompt=VQA_PROMPT,
    read_from="vqa_v2/v2_mscoco_train2014_annotations.json",
)
web_task(
    "coco_sample_captions",
    caption_source("coco/ccby", longest_side=SAMPLE_SIDE, lower_case=True),
    prompt=CAPTION_PROMPT,
    read_from="coco/ccby/captions.json",
)
web_task(
    "coco_sample_vqa",
    vqa_source("coco/ccby", longest_side=SAMPLE_SIDE),
    prompt=VQA_PROMPT,
    read_from="coco/ccby/vqa_annotations.json",
)
web_task(
    "coco_sample_detection",
    detection_source("coco/ccby", longest_side=SAMPLE_SIDE),
    prompt=DETECTION_PROMPT,
    read_from="coco/ccby/instances.json",
)
web_task(
    "coco_sample_pointing",
    pointing_source("coco/ccby", longest_side=SAMPLE_SIDE),
    prompt=POINTING_PROMPT,
    read_from="coco/ccby/instances.json",
)
