"""Pictures of MuJoCo scenes; the default renderer needs no GL library."""

from rt2_jax._lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "renderer": ["Renderer", "make_renderer"],
        "settings": ["RENDERERS", "RENDERER_VERSION", "RenderSettings"],
    },
)
