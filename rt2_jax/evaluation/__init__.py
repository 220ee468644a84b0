"""Evaluation: closed-loop rollouts, offline errors, intervals and comparisons."""

from rt2_jax._lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "closed_loop": ["Evaluation", "evaluate", "read_evaluation"],
        "checkpoint_scores": ["CheckpointScores"],
        "films": ["choose", "film"],
        "models": ["local_engine", "remote"],
        "offline": ["RobotReport", "evaluate_offline"],
        "pointing": ["PointingReport", "evaluate_pointing"],
        "policy_sources": ["LocalPolicy", "NamedPolicy", "RemotePolicySource"],
        "results": ["EpisodeResult", "read_results"],
        "success": ["PairedComparison", "SuccessRate", "clopper_pearson", "compare"],
        "suite": ["Suite"],
        "tables": ["offline_table", "pointing_table"],
        "watch": ["WatchConfig", "watch"],
        "watch_results": ["WatchResults"],
        "web_report": ["WebReport"],
    },
)
