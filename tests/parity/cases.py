"""What is compared: configurations in the words of transformers, inputs, and what is kept.

Plain data and numpy, read by `make_golden.py` (torch, transformers) and by
`tests/convert/test_golden.py` (jax).
"""

import dataclasses
import pathlib
import sys
from typing import Any

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parent))
try:
    from random_weights import picture, whole_numbers
finally:
    sys.path.pop(0)

VOCAB = 512
IMAGE_TOKEN = 500
COLUMNS, CHANNELS = 8, 64
"""Every so-manieth column of logits and channel of EfficientNet's features is kept."""


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """One model with random weights and its inputs.

    Attributes:
      name: of the case.
      family: t5, umt5, vit, siglip, gemma, llama, paligemma or efficientnet.
      config: of transformers' configuration class; PaliGemma has two in it.
      lengths: of the encoder's and the decoder's tokens, or of the prefix and what follows.
      rows: pictures, or rows of tokens.
      slow: left out by `make test`: a layer of full width takes seconds.
    """

    name: str
    family: str
    config: dict[str, Any]
    lengths: tuple[int, int] = (0, 0)
    rows: int = 2
    slow: bool = False

    def tokens(self, which: str, length: int) -> np.ndarray:
        """int64 [rows, length], none of them padding or a place for a picture."""
        return whole_numbers(f"{self.name} {which}", (self.rows, length), 2, IMAGE_TOKEN)

    def pictures(self) -> np.ndarray:
        """uint8 [rows, H, W, 3]."""
        config = self.config.get("vision_config", self.config)
        side = config["image_size"]
        return picture(self.name, (self.rows, side, side, 3))


def _t5(width, heads, head_dim, hidden, layers, **more):
    return {
        "vocab_size": VOCAB,
        "d_model": width,
        "d_kv": head_dim,
        "d_ff": hidden,
        "num_layers": layers[0],
        "num_decoder_layers": layers[1],
        "num_heads": heads,
        "feed_forward_proj": "gated-gelu",
        "tie_word_embeddings": False,
        **more,
    }


def _vit(width, heads, hidden, layers, image, patch):
    return {
        "hidden_size": width,
        "num_attention_heads": heads,
        "intermediate_size": hidden,
        "num_hidden_layers": layers,
        "image_size": image,
        "patch_size": patch,
        "hidden_act": "gelu_pytorch_tanh",
        "layer_norm_eps": 1e-6,
    }


def _decoder(width, heads, kv_heads, head_dim, hidden, layers, **more):
    return {
        "vocab_size": VOCAB,
        "hidden_size": width,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
        "intermediate_size": hidden,
        "num_hidden_layers": layers,
        "rms_norm_eps": 1e-6,
        "max_position_embeddings": 512,
        **more,
    }


def _paligemma(vision, language):
    return {
        "vision_config": {"model_type": "siglip_vision_model", "vision_use_head": False, **vision},
        "text_config": {"model_type": "gemma", **language},
        "projection_dim": language["hidden_size"],
        "hidden_size": language["hidden_size"],
        "image_token_index": IMAGE_TOKEN,
    }


def _b3(image_size, odd_blocks):
    """EfficientNet-B3; `odd_blocks` are those of stride 2 whose input has an odd side."""
    return {
        "image_size": image_size,
        "width_coefficient": 1.2,
        "depth_coefficient": 1.4,
        "hidden_dim": 1536,
        "depthwise_padding": odd_blocks,
        "batch_norm_eps": 1e-3,
    }


GEMMA = {"hidden_activation": "gelu_pytorch_tanh", "tie_word_embeddings": True}
LLAMA = {"tie_word_embeddings": False, "rope_theta": 500_000.0}
SMALL_SIGLIP = _vit(48, 4, 72, 2, 28, 7)
SO400M = _vit(1152, 16, 4304, 1, 56, 14)
SMALL_GEMMA = _decoder(64, 4, 1, 32, 96, 2, **GEMMA)
GEMMA_2B = _decoder(2048, 8, 1, 256, 16_384, 1, **GEMMA)

CASES = {
    case.name: case
    for case in (
        # Long enough for distances beyond the last bucket.
        Case("t5_1_1_small", "t5", _t5(48, 4, 16, 80, (2, 3)), (160, 12)),
        Case(
            "t5_1_0_small",
            "t5",
            _t5(48, 4, 16, 80, (2, 2), feed_forward_proj="relu", tie_word_embeddings=True),
            (12, 6),
        ),
        Case("t5_1_1_xl", "t5", _t5(2048, 32, 64, 5120, (1, 1)), (12, 6), slow=True),
        Case("umt5_small", "umt5", _t5(48, 4, 16, 80, (3, 2)), (160, 12)),
        Case("umt5_xl", "umt5", _t5(2048, 32, 64, 5120, (1, 1)), (12, 6), slow=True),
        Case("vit_small", "vit", _vit(48, 4, 72, 2, 28, 7)),
        Case("vit_l", "vit", _vit(1024, 16, 4096, 1, 64, 16)),
        Case("siglip_small", "siglip", {"vision_use_head": False, **SMALL_SIGLIP}),
        Case("siglip_so400m", "siglip", {"vision_use_head": False, **SO400M}),
        Case("gemma_small", "gemma", SMALL_GEMMA, (0, 20)),
        Case("gemma_2b", "gemma", GEMMA_2B, (0, 8), slow=True),
        Case("llama_small", "llama", _decoder(64, 4, 2, 16, 96, 2, **LLAMA), (0, 20)),
        Case("paligemma_small", "paligemma", _paligemma(SMALL_SIGLIP, SMALL_GEMMA), (5, 4)),
        Case("paligemma_3b", "paligemma", _paligemma(SO400M, GEMMA_2B), (5, 4), slow=True),
        Case("efficientnet_b3", "efficientnet", _b3(300, [5, 18]), rows=1),
        # Padded as if every side were even, as in RT-1's code.
        Case("efficientnet_b3_even", "efficientnet", _b3(108, []), rows=1, slow=True),
    )
}


def kept(case: Case, output: np.ndarray) -> np.ndarray:
    """The part of an output that the golden file holds; all positions of it in any case."""
    if case.family == "efficientnet":
        return output[..., ::CHANNELS]
    return output[..., ::COLUMNS]
