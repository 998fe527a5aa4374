"""Continuing from the newest checkpoint: in all processes, with more or fewer replicas."""

import json
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.experimental import multihost_utils

from entropix.experiment.method import Method
from entropix.replicas import resize
from entropix.runs.arrays import from_host, to_host
from entropix.runs.checkpoint import Checkpoint, Checkpoints
from entropix.runs.record import Record
from entropix.training.programs import Starter


def is_lead() -> bool:
    """Whether this is the process that reads and writes the run's folder."""
    return jax.process_index() == 0


def restore(checkpoints: Checkpoints, starter: Starter) -> Checkpoint | None:
    """Returns the newest whole checkpoint, with as many replicas as `starter` has.

    Process 0 reads it, for all of them.

    Raises:
      ValueError: if it is the checkpoint of another model or algorithm.
    """
    template = jax.eval_shape(starter.init)
    found = _read(checkpoints, starter, template) if is_lead() else None
    return found if jax.process_count() == 1 else _broadcast(found, template)


def _read(checkpoints: Checkpoints, starter: Starter, template: Any) -> Checkpoint | None:
    found = checkpoints.restore()
    if found is None:
        return None
    record = Record.from_dict(found.record)
    resized = _with_replicas(found.state, record.replicas, starter, template)
    return found._replace(state=_on_schedule(resized, found.step, record, starter.method))


def _with_replicas(saved: Any, there: int, starter: Starter, template: Any) -> Any:
    """The arrays that were saved of `there` replicas, for as many as `starter` has."""
    replicas = starter.layout.replicas
    if starter.method.replicas is None or there == replicas:
        return from_host(template, saved)

    def as_saved(leaf: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((leaf.shape[0], there, *leaf.shape[2:]), leaf.dtype)

    arrays = from_host(template._replace(state=jax.tree.map(as_saved, template.state)), saved)
    of_seeds = jax.vmap(lambda state: resize(state, replicas))
    return arrays._replace(state=of_seeds(arrays.state))


def _on_schedule(arrays: Any, step: int, record: Record, method: Method) -> Any:
    """Puts the learning rate where its schedule has it after so many gradients.

    A schedule is one of fractions of the run, read at a count of outer steps (or of gradients of
    one replica). A fork with another L, or another number of replicas, has spent its gradients in
    another number of these.
    """
    if not method.per_count or step == record.gradients // method.cycle:
        return arrays
    # Halves go up always: a run that is restored again has then made whole steps more.
    count = math.floor(record.gradients / ((method.replicas or 1) * method.per_count) + 0.5)

    def is_schedule(node: Any) -> bool:
        return isinstance(node, optax.ScaleByScheduleState)

    def counted(node: Any) -> Any:
        return node._replace(count=jnp.full_like(node.count, count)) if is_schedule(node) else node

    return arrays._replace(state=jax.tree.map(counted, arrays.state, is_leaf=is_schedule))


def _broadcast(found: Checkpoint | None, template: Any) -> Checkpoint | None:
    """What process 0 found, in all processes."""
    record = b"" if found is None else json.dumps([found.step, found.record]).encode()
    (size,) = multihost_utils.broadcast_one_to_all(np.asarray([len(record)]))
    if size == 0:
        return None
    padded = np.frombuffer(record.ljust(int(size)), np.uint8)
    step, record = json.loads(multihost_utils.broadcast_one_to_all(padded).tobytes())
    shapes = jax.eval_shape(optax.tree.unwrap_random_key_data, template)
    zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
    state = zeros if found is None else to_host(found.state)
    state = multihost_utils.broadcast_one_to_all(state)
    return Checkpoint(step, from_host(template, jax.tree.map(np.asarray, state)), record)
