"""What a gin file of an export says: `runs/export.gin`."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class ExportConfig:
    """A checkpoint's parameters alone: the arguments of `export_params`.

    Attributes:
      checkpoint: a checkpoint, a run's folder for its latest, or `pretrained:NAME`.
      output_dir: gets `checkpoint_<step>`; made if need be.
      dtype: of the parameters, `float32` or `bfloat16`; None keeps them as they are.

    Raises:
      ValueError: another dtype.
    """

    checkpoint: str
    output_dir: str
    dtype: str | None = None

    def __post_init__(self) -> None:
        if self.dtype not in (None, "float32", "bfloat16"):
            raise ValueError(
                f"ExportConfig.dtype: found {self.dtype!r}, expected None, 'float32' or 'bfloat16'"
            )
