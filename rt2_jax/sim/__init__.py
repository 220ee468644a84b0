"""The built-in table-top world: scenes, physics, pictures, judges, scripted experts, recording."""

from rt2_jax._lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "env": ["MAX_STEPS", "TabletopEnv", "to_observation"],
        "experts": ["ScriptedExpert"],
        "film": ["Film"],
        "pictures": ["PictureSettings", "draw_pictures"],
        "policies": ["POLICIES", "make_policy"],
        "render": ["RenderSettings", "Renderer", "make_renderer"],
        "rollout": ["Outcome", "Step", "outcome", "play"],
        "scene": ["Scene", "SceneObject", "sample_scene", "sample_still"],
        "simulation": ["EMBODIMENT", "STATE_FIELDS", "TABLETOP_ACTIONS", "Simulation"],
        "skills": ["TableState", "Verdict", "judge"],
        "world": ["World", "load_world"],
    },
)
