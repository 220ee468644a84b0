"""The status page: what robots ask right now and what they get, in a browser."""

from rt2_jax._lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "live": ["LiveSessions"],
        "routes": ["status_routes"],
    },
)
