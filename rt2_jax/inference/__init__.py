"""Inference: checkpoints as policies, in compiled programs for batches of fixed sizes."""

from rt2_jax._lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "answers": ["Question", "WrittenText"],
        "engine": ["EnginePolicy", "PolicyEngine"],
        "history": ["FrameHistory"],
        "programs": ["DecodePrograms"],
    },
)
