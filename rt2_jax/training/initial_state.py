"""Where a new run's weights come from when names differ, some are missing, or T5X wrote them."""

from __future__ import annotations

import dataclasses
import logging
import pathlib
from typing import Any

from flax.traverse_util import flatten_dict, unflatten_dict

from rt2_jax.actions.identity import differences, without
from rt2_jax.models.config import FREE_FIELDS
from rt2_jax.models.config_json import config_to_json
from rt2_jax.training.assignment import Assignment, assign
from rt2_jax.training.checkpoints import find_checkpoint, read_description
from rt2_jax.training.description import RunDescription
from rt2_jax.training.resampling import stored_model
from rt2_jax.training.run_config import RunConfig
from rt2_jax.training.t5x_checkpoint import StoredWeights, find_t5x_checkpoint, open_weights
from rt2_jax.training.train_state import TrainState

_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class InitialState:
    """What a new run takes from a checkpoint, known before anything is read.

    Attributes:
      stored: the checkpoint.
      assignment: which weight becomes which.
    """

    stored: StoredWeights
    assignment: Assignment

    def restore(self, state: TrainState, abstract: TrainState) -> TrainState:
        """A new state with the weights of the checkpoint in it; the step stays 0.

        Raises:
          ValueError: the checkpoint is damaged.
        """
        _LOG.warning("%s: %s", self.stored.path, self.assignment.report())
        wanted, flat = (_names(each) for each in (abstract, state))
        # Several weights of the run may come from one of the checkpoint.
        sources = {source: wanted[name] for name, source in self.assignment.sources.items()}
        read = self.stored.read(sources)
        flat.update({name: read[source] for name, source in self.assignment.sources.items()})
        return abstract.restore_state(unflatten_dict(flat, sep="/"))


def plan_initial_state(config: RunConfig, path: pathlib.Path, abstract: TrainState) -> InitialState:
    """Finds every weight of a new run in a checkpoint; reads none.

    Args:
      config: its `assignment_map`, `strict_restore` and `restore_optimizer`.
      path: of a checkpoint, T5X's or this project's.
      abstract: the run's state.

    Raises:
      ValueError: the checkpoint is damaged; or weights are missing, extra or of another shape and
        `strict_restore` is on. All of them are named.
    """
    stored = open_weights(path)
    kinds = ("target/", "state/param_states/") if config.restore_optimizer else ("target/",)
    wanted = {
        name: leaf
        for name, leaf in _names(abstract).items()
        if name.startswith(kinds) and hasattr(leaf, "shape")  # not an empty part of a state
    }
    found = {name: leaf for name, leaf in stored.weights.items() if name.startswith(kinds)}
    assignment = assign(wanted, found, config.assignment_map)
    if config.strict_restore and not assignment.whole:
        raise ValueError(
            f"{path}: not every weight has its place: {assignment.report()}\nmap names with "
            "RunConfig.assignment_map, or begin with what fits: RunConfig.strict_restore=False"
        )
    return InitialState(stored, assignment)


def find_initial(config: RunConfig) -> pathlib.Path | None:
    """The checkpoint that `plan_initial_state` is for; None if another way reads it, or none does.

    T5X's checkpoints, and this project's where names are mapped, weights may be missing or the
    optimizer's state is wanted.
    """
    if config.initial_checkpoint is None:
        return None
    if config.assignment_map or not config.strict_restore or config.restore_optimizer:
        found = find_t5x_checkpoint(config.initial_checkpoint)
        return found or find_checkpoint(config.initial_checkpoint)
    return find_t5x_checkpoint(config.initial_checkpoint)


def check_same_vocabulary(path: pathlib.Path, description: RunDescription) -> None:
    """Refuses a checkpoint of another vocabulary.

    Raises:
      ValueError: it is another.
    """
    theirs = read_description(path)
    found = theirs.get("vocabulary", {}).get("hash")
    if found != description.tokenizer.hash:
        raise ValueError(
            f"{path}: was trained with vocabulary {str(found)[:12]}, this run has "
            f"{description.tokenizer.hash[:12]}: its embeddings would mean other pieces"
        )


# What a run may change of the model that it begins with: shapes are checked parameter by parameter,
# and positions of pictures of another size are resampled.
_CHANGEABLE = (
    "dropout_rate",
    "drop_connect_rate",
    "dtype",
    "image_size",
    "image_slots",
    "scan_layers",
    *FREE_FIELDS,
)


def check_same_model(path: pathlib.Path, description: RunDescription) -> None:
    """Refuses what no shape tells, as another number of heads: weights would mean other things.

    Raises:
      ValueError: the model is another.
    """
    theirs, ours = config_to_json(stored_model(path)), config_to_json(description.model)
    lines = differences(without(theirs, _CHANGEABLE), without(ours, _CHANGEABLE))
    if lines:
        raise ValueError(
            f"{path}: was trained with another model than this run's, though its parameters have "
            f"the same shapes: {'; '.join(lines)}"
        )


def _names(state: TrainState) -> dict[str, Any]:
    return flatten_dict(state.state_dict(), sep="/", keep_empty_nodes=True)
