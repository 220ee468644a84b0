"""The main job in small: record, cache, co-fine-tune, serve, drive, report."""

from rt2_jax._lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "plan": ["DemoPlan", "Stage", "long_plan", "short_plan", "stages"],
        "program": ["run_demo"],
        "report": ["write_report"],
    },
)
