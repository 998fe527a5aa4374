"""Which devices a run gets; on a CPU also how many there are, decided before JAX has any."""

import contextlib
import os

import jax
from ml_collections import ConfigDict

from entropix.replicas import Layout, host_devices, layout
from entropix.training.algorithm import REPLICA_AXIS
from entropix.training.config import runs


def spread_replicas(config: ConfigDict) -> None:
    """Gives JAX as many CPU devices as make the config's replicas fastest, if it may choose.

    With `config.layout="auto"`, that is, and nothing said in the environment. Replicas on devices
    of their own take less time than side by side on one that has all cores: vmapped convolutions
    are grouped, and a network's small operations leave cores idle. It must be called before
    anything asks JAX for a device.
    """
    said = "JAX_NUM_CPU_DEVICES" in os.environ or "device_count" in os.environ.get("XLA_FLAGS", "")
    if said or config.layout != "auto" or config.devices:
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    counts = [run.optimizer.get("replicas", 1) for run in runs(config).values()]
    wanted = max(host_devices(p, cores or 1) for p in counts)
    if wanted > 1:
        with contextlib.suppress(RuntimeError):  # JAX has its devices already
            jax.config.update("jax_num_cpu_devices", wanted)


def layout_of(config: ConfigDict) -> Layout:
    """Where the replicas of `config.optimizer` live; one device for an algorithm without replicas.

    Raises:
      ValueError: for more devices than there are, or a number of replicas they do not divide.
    """
    if "replicas" not in config.optimizer:
        return layout(1, devices=1)
    p, devices = config.optimizer.replicas, config.devices or None
    return layout(p, config.layout, axis_name=REPLICA_AXIS, devices=devices)
