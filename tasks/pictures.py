"""Pictures of the table-top world's things, drawn with `rt2 sim pictures --out DATA_DIR`."""

from __future__ import annotations

from typing import Any

from rt2_jax.data.coco_source import caption_source, detection_source, pointing_source
from rt2_jax.data.registration import web_task
from rt2_jax.data.task_info import CAPTION_PROMPT, DETECTION_PROMPT, POINTING_PROMPT, VQA_PROMPT
from rt2_jax.data.vqa_reader import vqa_source
from rt2_jax.sim.pictures import FOLDER

SPLITS = ("train", "validation")
FINE_LEVELS = 64  # pixels of the tiny model's pictures

# The `fine` ones name places to the pixel, for a model that knows roughly where things are already.
_SOURCES: tuple[tuple[str, Any, str, str, dict[str, int]], ...] = (
    ("captions", caption_source, CAPTION_PROMPT, "captions.json", {}),
    ("vqa", vqa_source, VQA_PROMPT, "vqa_annotations.json", {}),
    ("detection", detection_source, DETECTION_PROMPT, "instances.json", {}),
    ("pointing", pointing_source, POINTING_PROMPT, "instances.json", {}),
    (
        "fine_detection",
        detection_source,
        DETECTION_PROMPT,
        "instances.json",
        {"place_levels": FINE_LEVELS, "most": 5},
    ),
    (
        "fine_pointing",
        pointing_source,
        POINTING_PROMPT,
        "instances.json",
        {"place_levels": FINE_LEVELS},
    ),
)
for _name, _source, _prompt, _file, _options in _SOURCES:
    web_task(
        f"rt2_pictures_{_name}",
        _source(FOLDER + "/{split}", splits={split: split for split in SPLITS}, **_options),
        prompt=_prompt,
        read_from=f"{FOLDER}/train/{_file}",
    )
