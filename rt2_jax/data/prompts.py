"""The prompts of each backbone by kind of task: the same source is asked for in either's words.

`palix`: `Generate caption in` and `Answer in` are PaLI-X's (RT-2, appendix D); split captions,
question generation and OCR are worded as PaLI's (Chen et al. 2022, section 3.2), without the
`<extra_id_0>` at its end, which PaLI-X's do not have. `palme`: PaLM-E's `Given <img>. Q: ... A:`
(Driess et al. 2023, appendix B) without its `Given <img>.`: pictures stand before a text that does
not say where, in every model here. The robot's are RT-2's for both (sections 3.2 and 4.4).
Detection, pointing, reasons, and what PaLM-E's questions say where they are not people's, are this
project's.
"""

from __future__ import annotations

from collections.abc import Mapping

from rt2_jax.data.task_info import (
    CAPTION_PROMPT,
    DETECTION_PROMPT,
    POINTING_PROMPT,
    ROBOT_PROMPT,
    VQA_PROMPT,
    TaskInfo,
)

PLAN_PROMPT = "Instruction: {text}. Plan:"
"""RT-2, section 4.4."""

_PALIX = {
    "robot": ROBOT_PROMPT,
    "plan": PLAN_PROMPT,
    "caption": CAPTION_PROMPT,
    "split_caption": "Generate the alt_text in en at {text}",
    "vqa": VQA_PROMPT,
    "vqa_with_reason": "Answer in en with a reason: {text}",
    "vqg": "Generate a question in en for {text}",
    "ocr": "Generate the ocr_text in en",
    "detection": DETECTION_PROMPT,
    "pointing": POINTING_PROMPT,
    "text": "{text}",
}
_PALME = {
    **_PALIX,
    "caption": "Q: what does the image show? A:",
    "split_caption": "Q: how does the caption go on at {text}? A:",
    "vqa": "Q: {text} A:",
    "vqa_with_reason": "Q: {text} Why? A:",
    "vqg": "Q: what question has the answer {text}? A:",
    "ocr": "Q: what is written in the image? A:",
    "detection": "Q: where are the objects? A:",
    "pointing": "Q: where is the {text}? A:",
}
PROMPTS: Mapping[str, Mapping[str, str]] = {"palix": _PALIX, "palme": _PALME}
"""Backbone -> kind of task -> prompt."""

METRICS: Mapping[str, tuple[str, ...]] = {"caption": ("cider_d",), "vqa": ("vqa_accuracy",)}
"""Kind of task -> what its answers are judged by."""


def prompt_of(kind: str, backbone: str = "palix") -> str:
    """The prompt of a kind of task.

    Raises:
      KeyError: no such backbone or kind; the message names those that there are.
    """
    if backbone not in PROMPTS:
        raise KeyError(f"no prompts of backbone {backbone!r}; there are {', '.join(PROMPTS)}")
    if kind not in PROMPTS[backbone]:
        raise KeyError(f"no prompt of kind {kind!r}; there are {', '.join(PROMPTS[backbone])}")
    return PROMPTS[backbone][kind]


def text_metrics(task: TaskInfo) -> tuple[str, ...]:
    """What a task's answers in words are judged by: as it declares, or as its prompt's kind is."""
    if task.metrics is not None or task.robot is not None:
        return task.metrics or ()
    return next(
        (
            metrics
            for kind, metrics in METRICS.items()
            if task.prompt in {prompts[kind] for prompts in PROMPTS.values()}
        ),
        (),
    )
