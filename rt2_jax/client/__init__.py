"""What runs on the robot: numpy only, Python 3.8 and later.

Today: the types that a robot's program shares with every policy. The network client comes with the
server.
"""

from rt2_jax._lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    "rt2_jax.actions", {"policy": ["Observation", "Policy"], "space": ["ActionSpace"]}
)
