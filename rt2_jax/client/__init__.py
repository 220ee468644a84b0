"""What runs on the robot, on Python 3.8 and later: connect, send what is seen, keep the rate.

Importing it loads nothing but numpy; connecting needs `msgpack` and `websockets`.
"""

from typing import Any, List

from rt2_jax._lazy import lazy_exports

_of_actions, _, _shared = lazy_exports(
    "rt2_jax.actions",
    {
        "policy": ["Observation", "Policy"],
        "sampling": ["Sampling"],
        "space": ["ActionSpace"],
    },
)
_own, _, _names = lazy_exports(
    __name__,
    {
        "chunks": ["ActionChunks"],
        "episode": ["run_episode"],
        "episode_summary": ["EpisodeSummary", "Robot"],
        "errors": [
            "DeadlineExceeded",
            "PolicyServerError",
            "RequestSuperseded",
            "ServerBusy",
            "StaleAnswer",
            "UnsafeAction",
        ],
        "rate": ["ControlRate"],
        "remote": ["RemotePolicy"],
        "remote_async": ["AsyncRemotePolicy"],
    },
)
__all__ = sorted(_shared + _names)


def __dir__() -> List[str]:
    return __all__


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"{__name__} has no public name {name!r}; it has {', '.join(__all__)}")
    return _own(name) if name in _names else _of_actions(name)
