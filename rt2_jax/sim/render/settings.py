"""What decides a picture besides the scene: part of a data set's identity."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from rt2_jax.actions.identity import check_keys, content_hash

RENDERERS = ("ray", "osmesa", "egl")
RENDERER_VERSION = 1  # raise it by one whenever the same scene gives other pixels
MAX_SIDE = 2048  # pixels


@dataclass(frozen=True)
class RenderSettings:
    """The renderer and everything that it is told.

    Attributes:
      renderer: `ray` (needs no GL library), `osmesa` or `egl`.
      height: of the picture, in pixels.
      width: of the picture, in pixels.
      antialias: smooth the outlines of objects and shadows (GL: 4 samples a pixel).
      shadows: draw the shadows of lights with `castshadow` (`ray`: of the first such light).

    Raises:
      ValueError: the renderer isn't known, or a side isn't in 1..2048.
      TypeError: a value has the wrong type.
    """

    renderer: str = "ray"
    height: int = 64
    width: int = 64
    antialias: bool = True
    shadows: bool = True

    def __post_init__(self) -> None:
        if self.renderer not in RENDERERS:
            known = ", ".join(RENDERERS)
            raise ValueError(f"renderer: found {self.renderer!r}, expected one of {known}")
        for name, kind in (("height", int), ("width", int), ("antialias", bool), ("shadows", bool)):
            value = getattr(self, name)
            if type(value) is not kind:
                raise TypeError(f"{name}: found {value!r}, expected {kind.__name__}")
        for name in ("height", "width"):
            if not 1 <= getattr(self, name) <= MAX_SIDE:
                raise ValueError(
                    f"{name}: found {getattr(self, name)} pixels, expected 1 to {MAX_SIDE}"
                )

    def to_json(self) -> dict[str, Any]:
        """Plain JSON, with the version of the renderers' pixels."""
        return {**asdict(self), "version": RENDERER_VERSION}

    @classmethod
    def from_json(cls, data: Any) -> RenderSettings:
        """Reads what `to_json` wrote.

        Raises:
          KeyError: a key is missing or unknown.
          ValueError: the pictures were made by another version of the renderers.
        """
        names = tuple(field.name for field in fields(cls))
        check_keys("render settings", data, (*names, "version"))
        if data["version"] != RENDERER_VERSION:
            raise ValueError(
                f"render settings: found pictures of renderer version {data['version']!r}, this "
                f"package draws version {RENDERER_VERSION}; record them again, or use the package "
                "that made them"
            )
        return cls(**{name: data[name] for name in names})

    @property
    def hash(self) -> str:
        """SHA-256 of the canonical JSON: equal hashes mean equal pictures of equal scenes."""
        return content_hash(self.to_json())
