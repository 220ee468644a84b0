"""Flax modules of vision-language models and RT-1, and T5X's model contract on top of them."""

from rt2_jax._lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "config": [
            "DecoderOnlyConfig",
            "DecoderVisionLanguageConfig",
            "TextConfig",
            "VisionConfig",
            "VisionLanguageConfig",
            "tiny_config",
        ],
        "config_json": ["ModelConfig", "config_from_json", "config_to_json"],
        "decoder_model": ["DecoderVisionLanguageModel"],
        "decoder_only": ["DecoderOnly", "DecoderOnlyCache"],
        "decoding": ["Decoded", "Draw", "decode"],
        "encoder_decoder": ["DecoderCache"],
        "layer_stack": ["stack_layers", "unstack_layers"],
        "losses": ["ExampleSums", "MetricSum", "token_cross_entropy"],
        "make_model": ["make_model"],
        "model": ["TransformerModel", "VisionLanguageModel"],
        "position": ["resample_positions"],
        "published": ["GEMMA_2B", "PALM_8B", "UL2_20B"],
        "published_counts": ["PUBLISHED_COUNTS", "PublishedCount"],
        "published_vision": [
            "SIGLIP_SO400M_14",
            "VIT_22B",
            "VIT_B_16",
            "VIT_E_14",
            "VIT_G_14",
            "VIT_L_16",
        ],
        "rt1.config": ["RT1_35M", "EfficientNetConfig", "RT1Config"],
        "rt1.model": ["RT1Model"],
        "vision_language": ["VisionLanguageModule"],
    },
)
