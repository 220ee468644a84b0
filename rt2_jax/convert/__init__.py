"""Public weights: from the names of their publishers to the parameter trees of `models`."""

from rt2_jax._lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "hugging_face_efficientnet": ["efficientnet_map"],
        "hugging_face_text": ["decoder_only_map", "encoder_decoder_map"],
        "hugging_face_vision": ["siglip_map", "vit_map", "without_class_token"],
        "name_map": ["Entry", "first_rows", "read_parameters", "under", "write_parameters"],
        "paligemma": ["paligemma_map", "published_paligemma_names"],
        "safetensors_file": ["load_safetensors"],
    },
)
