"""Configurations of models as plain JSON, over a closed registry of classes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from rt2_jax.actions.identity import check_keys
from rt2_jax.models.config import (
    DecoderOnlyConfig,
    DecoderVisionLanguageConfig,
    TextConfig,
    VisionConfig,
    VisionLanguageConfig,
)
from rt2_jax.models.rt1.config import EfficientNetConfig, RT1Config

ModelConfig = VisionLanguageConfig | DecoderVisionLanguageConfig | RT1Config
"""What a whole model is made of."""

Config = VisionConfig | TextConfig | DecoderOnlyConfig | EfficientNetConfig | ModelConfig

REGISTRY: Mapping[str, type[Config]] = {
    cls.__name__: cls
    for cls in (
        VisionConfig,
        TextConfig,
        DecoderOnlyConfig,
        EfficientNetConfig,
        VisionLanguageConfig,
        DecoderVisionLanguageConfig,
        RT1Config,
    )
}
_LATER: Mapping[str, tuple[str, ...]] = {
    "TextConfig": ("relative_bias_per_layer",),
    "VisionConfig": ("parallel_block", "qk_norm", "qkv_bias", "norm_bias", "norm_centering"),
    "VisionLanguageConfig": ("remat", "attention"),
}
"""Fields that older checkpoints lack: they have their defaults there."""


def config_to_json(config: Config) -> dict[str, Any]:
    """Plain JSON: `{"class": ..., field: value, ...}`, nested."""
    if type(config).__name__ not in REGISTRY:
        raise TypeError(
            f"found a {type(config).__name__}, expected one of {', '.join(sorted(REGISTRY))}"
        )
    return {
        "class": type(config).__name__,
        **{
            field.name: _value_to_json(getattr(config, field.name))
            for field in dataclasses.fields(config)
        },
    }


def config_from_json(data: Any, where: str = "model") -> Config:
    """Reads what `config_to_json` wrote; nothing outside the registry is ever made.

    Raises:
      TypeError: not a JSON object, or a value has the wrong type.
      KeyError: a field is missing or unknown.
      ValueError: an unknown class, or a value that the class refuses.
    """
    if not isinstance(data, Mapping):
        raise TypeError(f"{where}: expected a JSON object, found {type(data).__name__}")
    name = data.get("class")
    if not isinstance(name, str) or name not in REGISTRY:
        raise ValueError(
            f"{where}.class: found {name!r}, expected one of {', '.join(sorted(REGISTRY))}"
        )
    cls = REGISTRY[name]
    fields = dataclasses.fields(cls)
    data = _with_later_defaults(cls, data)
    check_keys(where, data, ("class", *(field.name for field in fields)))
    values = {}
    for field in fields:
        value = _value_from_json(data[field.name], f"{where}.{field.name}")
        if not _has_type(value, str(field.type)):
            raise TypeError(f"{where}.{field.name}: found {value!r}, expected {field.type}")
        values[field.name] = value
    return cls(**values)


def _with_later_defaults(cls: type[Config], data: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON of a configuration with the fields that did not exist when it was written."""
    later = _LATER.get(cls.__name__, ())
    defaults = {field.name: field.default for field in dataclasses.fields(cls)}
    return {**{name: _value_to_json(defaults[name]) for name in later}, **data}


def _value_to_json(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return config_to_json(value)  # type: ignore[arg-type]
    if isinstance(value, tuple):
        return [_value_to_json(item) for item in value]
    return value


def _value_from_json(value: Any, where: str) -> Any:
    if isinstance(value, Mapping):
        return config_from_json(value, where)
    if isinstance(value, list):
        return tuple(_value_from_json(item, where) for item in value)
    return value


def _has_type(value: Any, annotation: str) -> bool:
    """Whether a value read from JSON is what the field's annotation says."""
    if annotation in REGISTRY:
        return type(value) is REGISTRY[annotation]
    if annotation == "float":
        return type(value) in (int, float)
    return {
        "int": lambda: type(value) is int,
        "bool": lambda: type(value) is bool,
        "str": lambda: type(value) is str,
        "tuple[int, int]": lambda: _is_tuple(value, int) and len(value) == 2,
        "tuple[str, ...]": lambda: _is_tuple(value, str),
        "tuple[tuple[str, int], ...]": lambda: (
            _is_tuple(value, tuple) and all([type(x) for x in item] == [str, int] for item in value)
        ),
    }[annotation]()


def _is_tuple(value: Any, kind: type) -> bool:
    return type(value) is tuple and all(type(item) is kind for item in value)
