"""Action tokens that begin in order: neighbouring levels have neighbouring embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

_WAVES = (4.0, 512.0)  # levels to the shortest and the longest wave
_EMBEDDING = ("token_embedder", "embedding")
_LOGITS = ("logits_dense", "kernel")


def order_action_tokens(params: Any, ids: Sequence[int], stddev: float = 1.0) -> Any:
    """Gives action tokens sines and cosines of their level for embeddings, and for logits.

    A pretrained vocabulary knows nothing of the order of its number pieces, or of rare pieces that
    were made action tokens. From random embeddings a small model takes many thousand examples to
    find out that level 12 lies between 11 and 13, and until then it cannot tell how far one place
    is from another: the same was seen of a vision transformer's positions.

    Args:
      params: of a vision-language model, replaced where action tokens are concerned.
      ids: of the action tokens, by rising level.
      stddev: of the model's new embeddings.
    """
    flat = dict(flatten_dict(params))
    where = np.array(ids)
    for path, leaf in flat.items():
        if path[-2:] == _EMBEDDING:
            flat[path] = leaf.at[where].set(stddev * level_waves(len(ids), leaf.shape[1]))
        elif path[-2:] == _LOGITS:  # of untied embeddings
            width = leaf.shape[0]
            flat[path] = leaf.at[:, where].set(level_waves(len(ids), width).T / np.sqrt(width))
    return unflatten_dict(flat)


def level_waves(count: int, width: int) -> np.ndarray:
    """Sines and cosines of levels 0 to `count - 1`, float32 [count, width], of variance 1.

    The waves' lengths grow geometrically, as those of positions (Vaswani et al. 2017, section 3.5).
    """
    lengths = np.geomspace(*_WAVES, (width + 1) // 2)
    angles = 2 * np.pi * np.arange(count)[:, None] / lengths
    waves = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)[:, :width]
    return (np.sqrt(2) * waves).astype(np.float32)
