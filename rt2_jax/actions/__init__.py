"""What an action is, how it is written, and what its numbers look like (numpy only)."""

from rt2_jax._lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "bounds": ["Bounds", "FixedBounds", "QuantileBounds"],
        "binning": [
            "IntegerGrid",
            "OpenVLACentres",
            "RT1Truncating",
            "UniformBins",
            "codec_from_json",
        ],
        "codec": ["ActionCodec", "BoundCodec", "Encoded"],
        "named_space": ["named_action_space"],
        "policy": ["Observation", "Policy", "check_policy_output"],
        "space": [
            "ActionField",
            "ActionSpace",
            "check_actions",
            "language_table_action_space",
            "rt2_action_space",
        ],
        "statistics": [
            "ActionStatistics",
            "StatisticsTable",
            "compute_statistics",
            "resolve_bounds",
        ],
        "tokens": ["ActionTokens"],
        "vocabulary": ["ActionVocabulary", "Tokenizer"],
    },
)
