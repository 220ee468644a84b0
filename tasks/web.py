"""Image-text shards, TFDS's captions and text of the web, and the mixtures of PaLI-X and PaLM-E.

Neither paper's data are public; the public sets here are the nearest that there are. A task named
`NAME_palme` is NAME in PaLM-E's words.
"""

from __future__ import annotations

import seqio

from rt2_jax.data.prompts import prompt_of
from rt2_jax.data.registration import derive_task, web_task
from rt2_jax.data.tar_reader import tar_source
from rt2_jax.data.text_objectives import corrupt_spans, split_targets
from rt2_jax.data.text_reader import text_source
from rt2_jax.data.tfds_reader import steps_of_examples, tfds_source
from rt2_jax.tasks import photos, questions

# Importing these modules registers their tasks.
__all__ = ["photos", "questions"]

SHARDS = {"cc3m": "*.tar", "cc12m": "*.tar", "laion": "*.tar"}
"""Folders that img2dataset wrote, and their shards; links die, so no number of them is expected."""

for _name, _pattern in SHARDS.items():
    _shards = tar_source(_name, {"train": _pattern}, longest_side=448, skip_damaged=True)
    web_task(f"{_name}_captions", _shards, prompt=prompt_of("caption"), read_from=_name)
    web_task(
        f"{_name}_split_captions",
        _shards,
        prompt=prompt_of("split_caption"),
        read_from=_name,
        preprocessors=[split_targets()],
    )

web_task(
    "tfds_coco_captions",
    tfds_source("coco_captions/2014/1.1.0", {"train": "train", "validation": "val"}),
    prompt=prompt_of("caption"),
    read_from="coco_captions/2014/1.1.0",
    preprocessors=[
        steps_of_examples(
            lambda example: {
                "image": example["image"],
                "target": example["captions"]["text"],
                "episode_id": example["image/filename"],
            }
        )
    ],
)

for _name, _folder, _files in (
    ("wikipedia", "wikipedia", "*.jsonl.gz"),
    ("c4", "c4", "c4-train.*.json.gz"),
    ("novel_sample", "text", "botchan.txt"),
):
    web_task(
        f"{_name}_spans",
        text_source(_folder, {"train": _files}),
        prompt=prompt_of("text"),
        read_from=_folder,
        with_image=False,
        preprocessors=[corrupt_spans()],
    )

KINDS = {
    "coco_captions": "caption",
    "coco_object_questions": "vqa",
    "coco_sample_captions": "caption",
    "coco_sample_vqa": "vqa",
    "vqa_v2": "vqa",
    "vqa_v2_vqg": "vqg",
    "ok_vqa": "vqa",
    "a_ok_vqa": "vqa",
    "cc3m_captions": "caption",
    "laion_captions": "caption",
}
for _name, _kind in KINDS.items():
    derive_task(_name, f"{_name}_palme", prompt=prompt_of(_kind, "palme"))

# PaLI's eight tasks by their numbers of examples in millions (Chen et al. 2022, table of the
# pre-training mixture), with public sets in the place of WebLI and of the questions made from CC3M.
seqio.MixtureRegistry.add(
    "palix_web",
    [
        ("laion_split_captions", 1000),
        ("cc3m_captions", 100),
        ("text_ocr", 100),
        ("vqa_v2", 100),
        ("vqa_v2_vqg", 100),
        ("c4_spans", 100),
        ("coco_object_questions", 50),
        ("coco_detection", 16),
    ],
)
# The weights of PaLM-E's full mixture without its robot data (Driess et al. 2023, table 6); VQ2A
# and VQG are questions made from CC3M there.
seqio.MixtureRegistry.add(
    "palme_web",
    [
        ("laion_captions_palme", 100),
        ("a_ok_vqa_palme", 25),
        ("cc3m_captions_palme", 25),
        ("vqa_v2_vqg_palme", 10),
        ("coco_object_questions_palme", 10),
        ("ok_vqa_palme", 1),
        ("vqa_v2_palme", 1),
        ("coco_captions_palme", 1),
        ("wikipedia_spans", 1),
    ],
)
