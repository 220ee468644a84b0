"""Lazy public names for packages (PEP 562), so that importing one costs nothing.

Runs on Python 3.8: the robot's client uses it.
"""

from __future__ import annotations

import importlib
from typing import Any, Callable, Dict, List, Sequence, Tuple


def lazy_exports(
    package: str, modules: Dict[str, Sequence[str]]
) -> Tuple[Callable[[str], Any], Callable[[], List[str]], List[str]]:
    """Returns `(__getattr__, __dir__, __all__)` for a package's `__init__`.

    Args:
      package: the package's `__name__`.
      modules: submodule -> the public names that it defines, e.g. `{"space": ["ActionSpace"]}`.
    """
    origin = {name: module for module, names in modules.items() for name in names}

    def load(name: str) -> Any:
        if name not in origin:
            raise AttributeError(
                f"{package} has no public name {name!r}; it has {', '.join(sorted(origin))}"
            )
        return getattr(importlib.import_module(f"{package}.{origin[name]}"), name)

    return load, lambda: sorted(origin), sorted(origin)
