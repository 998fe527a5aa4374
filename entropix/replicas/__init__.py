"""Running p replicas of one step: on a device, over devices, over processes."""

from entropix.replicas.company import leave
from entropix.replicas.layout import Layout, host_devices, layout, on_one_device
from entropix.replicas.processes import agree, agree_on, connected, farewell
from entropix.replicas.runner import runner
from entropix.replicas.trees import centre, replicate, resize, unreplicate

__all__ = [
    "Layout",
    "agree",
    "agree_on",
    "centre",
    "connected",
    "farewell",
    "host_devices",
    "layout",
    "leave",
    "on_one_device",
    "replicate",
    "resize",
    "runner",
    "unreplicate",
]
