"""Data: robot episodes and web examples, from their registration to training batches."""

from rt2_jax._lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "batches": ["MixtureBatches", "train_batches"],
        "cache": ["CacheInfo", "StepCache"],
        "cache_writer": ["cache_task"],
        "coco": ["BoxedPhoto", "BoxedThing", "read_boxes"],
        "coco_source": ["caption_source", "detection_source", "pointing_source", "vqa_source"],
        "examples": ["TaskExamples", "mixture_examples"],
        "manifest": ["Manifest", "MixtureTask", "load_manifest", "open_caches"],
        "model_inputs": ["InputSpec", "ModelInputs"],
        "places": ["parse_places", "place_text"],
        "published_statistics": ["load_published_statistics"],
        "recording": ["Recording", "RecordingInfo", "read_recording"],
        "registration": ["STEP_FEATURES", "data_path", "robot_task", "web_task"],
        "resolve": ["find_tasks", "resolve_mixture"],
        "rlds_columns": ["RldsColumns", "rlds_task"],
        "rlds_reader": ["rlds_source", "steps_of_episodes"],
        "step": ["TaskStep"],
        "task_info": [
            "CAPTION_PROMPT",
            "DETECTION_PROMPT",
            "POINTING_PROMPT",
            "ROBOT_PROMPT",
            "RobotInfo",
            "TaskInfo",
            "VQA_PROMPT",
        ],
        "vocabulary.tokenizer": ["Tokenizer", "load_vocabulary"],
    },
)
