"""Data: robot episodes and web examples, from their registration to training batches."""

from rt2_jax._lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "batches": ["MixtureBatches", "train_batches"],
        "cache": ["CacheInfo", "StepCache"],
        "cache_writer": ["cache_task"],
        "coco": ["BoxedPhoto", "BoxedThing", "read_boxes"],
        "coco_source": [
            "caption_source",
            "detection_source",
            "object_question_source",
            "pointing_source",
        ],
        "examples": ["TaskExamples", "mixture_examples"],
        "manifest": ["Manifest", "MixtureTask", "load_manifest", "open_caches"],
        "model_inputs": ["InputSpec", "ModelInputs"],
        "ocr_reader": ["ocr_source"],
        "places": ["parse_places", "place_text"],
        "plans": ["PlanFile", "plan_column", "with_plans"],
        "prompt_template": ["with_slots"],
        "prompts": ["PROMPTS", "prompt_of"],
        "recording": ["Recording", "RecordingInfo", "read_recording"],
        "registration": ["STEP_FEATURES", "data_path", "derive_task", "robot_task", "web_task"],
        "resolve": ["find_tasks", "resolve_mixture"],
        "rlds_reader": ["rlds_source", "steps_of_episodes"],
        "step": ["TaskStep"],
        "tar_reader": ["tar_source"],
        "task_info": [
            "CAPTION_PROMPT",
            "DETECTION_PROMPT",
            "POINTING_PROMPT",
            "ROBOT_PROMPT",
            "RobotInfo",
            "TaskInfo",
            "VQA_PROMPT",
        ],
        "text_objectives": ["corrupt_spans", "split_targets"],
        "text_reader": ["text_source"],
        "tfds_reader": ["steps_of_examples", "tfds_source"],
        "vocabulary.tokenizer": ["Tokenizer", "load_vocabulary"],
        "vqa": [
            "a_ok_vqa_questions",
            "ocr_vqa_questions",
            "text_vqa_questions",
            "vqa_v2_questions",
        ],
        "vqa_reader": ["vqa_source"],
    },
)
