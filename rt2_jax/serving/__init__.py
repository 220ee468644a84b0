"""The server: robots' observations in over openpi's websocket wire, checked actions out."""

from rt2_jax._lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "app": ["make_app"],
        "batching": ["BatchingQueue", "DeadlineError"],
        "options": ["ServerOptions"],
        "request_logger": ["RequestLogger"],
        "requests": ["BatchPolicy", "Schema"],
        "server": ["PolicyServer", "serve"],
        "service": ["PolicyService"],
    },
)
