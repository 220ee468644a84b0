"""What is wrong with a registered task's data: one pass over its steps, then small numpy checks."""

from rt2_jax._lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "finding": ["Finding", "Place", "findings_table"],
        "survey": ["Episode", "Survey", "survey_steps"],
        "task": ["TaskReport", "check_task"],
    },
)
