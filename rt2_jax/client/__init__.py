"""What runs on the robot: numpy only, Python 3.8 and later.

Today: the types that a robot's program shares with every policy. The network client comes with the
server.
"""

from rt2_jax._lazy import lazy_exports

_load, __dir__, __all__ = lazy_exports(
    "rt2_jax.actions", {"policy": ["Observation", "Policy"], "space": ["ActionSpace"]}
)


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"{__name__} has no public name {name!r}; it has {', '.join(__all__)}")
    return _load(name)
