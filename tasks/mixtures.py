"""Mixtures of web and robot tasks; the robot's share is the rate of its part."""

from __future__ import annotations

import seqio

from rt2_jax.tasks import (
    bridge,
    oxe_mixtures,
    photos,
    pictures,
    plans,
    questions,
    tabletop,
    web,
)

# Importing these modules registers their tasks.
__all__ = [
    "bridge",
    "oxe_mixtures",
    "photos",
    "pictures",
    "plans",
    "questions",
    "tabletop",
    "web",
]

ROBOT_SHARE = 0.5
"""RT-2-PaLI-X: about half of every batch are robot steps (RT-2, appendix B)."""

add = seqio.MixtureRegistry.add
# A push holds a reach, to behind the object, and twice as many steps.
add("rt2_tabletop", [("rt2_tabletop_reach", 1.0), ("rt2_tabletop_push", 2.0)])
add("coco_sample", ["coco_sample_captions", "coco_sample_vqa"], default_rate=1.0)
add("photos", ["coco_captions", "vqa_v2"], default_rate=1.0)
add("coco_sample_places", ["coco_sample_detection", "coco_sample_pointing"], default_rate=1.0)
# Lists of everything and its place ground names best; see docs/pictures.md.
add(
    "rt2_pictures",
    [
        ("rt2_pictures_detection", 0.55),
        ("rt2_pictures_pointing", 0.25),
        ("rt2_pictures_captions", 0.1),
        ("rt2_pictures_vqa", 0.1),
    ],
)
# Lists that are about as long as a robot's plan and action, so that little is padded.
add(
    "rt2_pictures_fine",
    [
        ("rt2_pictures_fine_detection", 0.3),
        ("rt2_pictures_fine_pointing", 0.5),
        ("rt2_pictures_vqa", 0.2),
    ],
)
add("tabletop_mix", [("rt2_tabletop", ROBOT_SHARE), ("rt2_pictures_fine", 1 - ROBOT_SHARE)])
add("bridge_sample_mix", [("bridge_sample", ROBOT_SHARE), ("coco_sample", 1 - ROBOT_SHARE)])
add("bridge_mix", [("bridge", ROBOT_SHARE), ("photos", 1 - ROBOT_SHARE)])
add("tabletop_photos_mix", [("rt2_tabletop", ROBOT_SHARE), ("photos", 1 - ROBOT_SHARE)])
