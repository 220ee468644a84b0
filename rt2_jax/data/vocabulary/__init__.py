"""Text to token ids: the project's own SentencePiece vocabulary, and everybody else's."""

from rt2_jax._lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__, {"tokenizer": ["Tokenizer", "load_vocabulary"]}
)
