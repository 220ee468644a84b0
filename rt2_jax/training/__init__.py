"""The trainer: mesh and shardings, optimizers, the step, checkpoints, logs, the loop."""

from rt2_jax._lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "adafactor": ["Adafactor"],
        "checkpoints": [
            "Checkpoints",
            "find_checkpoint",
            "latest_checkpoint",
            "read_description",
            "restore_params",
        ],
        "adapters": ["Adapters", "restore_merged"],
        "description": ["RunDescription"],
        "ema": ["EMA"],
        "export": ["export_adapters", "export_params"],
        "execution": ["execute"],
        "flops": ["model_flops"],
        "goodput": ["Ledger", "goodput_table", "read_ledger", "wall_seconds"],
        "logs": ["JsonlLog", "Log", "TensorBoardLog", "TerminalLog"],
        "loop": ["Batches", "LoopConfig", "NotFiniteError", "Outcome", "restore_or_init", "train"],
        "lora": ["LoRA"],
        "mesh": ["MeshShape", "make_mesh"],
        "metrics": ["SourceRules", "SourceSums", "StepMetrics", "summarize"],
        "meter": ["MEASURED"],
        "optax_schedules": ["OptaxSchedule"],
        "optimizers": ["SGD", "AdamW", "Lion", "Optimizer"],
        "partitioning": ["LOGICAL_AXIS_RULES", "Partitioner"],
        "profiling": ["Profiler"],
        "run": ["Run", "prepare"],
        "run_config": ["RunConfig"],
        "run_page": ["write_run_page"],
        "schedules": ["LearningRate"],
        "step": ["StepConfig", "make_train_step"],
        "train_state": ["TrainState", "TrainStateInitializer", "train_state_initializer"],
        "watchdog": ["Watchdog"],
        "watching": ["Watch"],
    },
)
