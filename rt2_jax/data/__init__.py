"""Data: robot episodes, web examples, and the vocabulary of their text."""

from rt2_jax._lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "recording": ["Recording", "RecordingInfo", "read_recording"],
        "vocabulary.tokenizer": ["Tokenizer", "load_vocabulary"],
    },
)
