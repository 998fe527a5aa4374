"""Which devices a run gets; on a CPU also how many there are, decided before JAX has any."""

import contextlib
import os
from collections.abc import Iterable

import jax

from entropix.experiment.method import REPLICA_AXIS
from entropix.experiment.run import Run
from entropix.replicas import Layout, host_devices, layout


def spread_replicas(counts: Iterable[int], kind: str = "auto", devices: int = 0) -> None:
    """Gives JAX as many CPU devices as make the replicas fastest, if it may choose.

    With `kind="auto"`, that is, and nothing said in the environment. Replicas on devices
    of their own take less time than side by side on one that has all cores: vmapped convolutions
    are grouped, and a network's small operations leave cores idle. It must be called before
    anything asks JAX for a device.

    Args:
      counts: numbers of replicas, of all runs.
      kind: of the layout.
      devices: that were asked for; 0 for none.
    """
    said = "JAX_NUM_CPU_DEVICES" in os.environ or "device_count" in os.environ.get("XLA_FLAGS", "")
    if said or kind != "auto" or devices:
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    wanted = max((host_devices(p, cores or 1) for p in counts), default=1)
    if wanted > 1:
        with contextlib.suppress(RuntimeError):  # JAX has its devices already
            jax.config.update("jax_num_cpu_devices", wanted)


def layout_of(run: Run) -> Layout:
    """Where the replicas of a run live; one device for an algorithm without replicas.

    Raises:
      ValueError: for more devices than there are, or a number of replicas they do not divide.
    """
    if run.replicas is None:
        return layout(1, devices=1)
    settings = run.settings
    devices = settings.devices or None
    return layout(run.replicas, settings.layout, axis_name=REPLICA_AXIS, devices=devices)
