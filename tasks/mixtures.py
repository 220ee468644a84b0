"""Mixtures of web and robot tasks; the robot's share is the rate of its part."""

from __future__ import annotations

import seqio

from rt2_jax.tasks import bridge, oxe_mixtures, photos, pictures, tabletop

# Importing these modules registers their tasks.
__all__ = ["bridge", "oxe_mixtures", "photos", "pictures", "tabletop"]

ROBOT_SHARE = 0.5
"""RT-2-PaLI-X: about half of every batch are robot steps (RT-2, appendix B)."""

add = seqio.MixtureRegistry.add
add("rt2_tabletop", ["rt2_tabletop_reach", "rt2_tabletop_push"], default_rate=1.0)
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
# Short answers only: with a robot's eight tokens beside them nothing is padded to long lists.
add("rt2_pictures_short", [("rt2_pictures_pointing", 0.7), ("rt2_pictures_vqa", 0.3)])
add("tabletop_mix", [("rt2_tabletop", ROBOT_SHARE), ("rt2_pictures_short", 1 - ROBOT_SHARE)])
add("bridge_sample_mix", [("bridge_sample", ROBOT_SHARE), ("coco_sample", 1 - ROBOT_SHARE)])
add("bridge_mix", [("bridge", ROBOT_SHARE), ("photos", 1 - ROBOT_SHARE)])
add("tabletop_photos_mix", [("rt2_tabletop", ROBOT_SHARE), ("photos", 1 - ROBOT_SHARE)])
