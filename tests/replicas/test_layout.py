"""What a layout refuses on one device; `four_devices.py` has the rest."""

import jax
import pytest

from entropix import replicas
from entropix.replicas.layout import _advise_more_devices


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"replicas": 0}, "replicas must be .*>= 1.*; got replicas=0"),
        ({"replicas": 2, "kind": "threads"}, "kind must be one of auto, vmap.*'threads'"),
        (
            {"replicas": 2, "kind": "map"},
            "kind='map' was removed.* Use kind='auto' or 'v",
        ),
        ({"replicas": 2, "each": "map"}, "each must be 'vmap'.* got each='map'. Leave the arg"),
        (
            {"replicas": 2, "axis_name": ("a", "b")},
            "axis_name must be one name; got",
        ),
        (
            {"replicas": 2, "devices": [*jax.devices()[:1], *jax.devices()[:1]]},
            "devices must be a number >= 1, or .* each once; got",
        ),
        (
            {"replicas": 2, "devices": 1, "mesh": jax.make_mesh((1,), ("replica",))},
            "devices must be None with a mesh, which has devices; got devices=1",
        ),
        ({"replicas": 2, "devices": 0}, "devices must be .*>= 1.*; got devices=0"),
        ({"replicas": 8, "kind": "shard_map"}, "replicas=8 .*JAX sees 1 cpu device. Two ways out"),
        ({"replicas": 8, "kind": "pmap"}, "layout='auto'.*JAX_NUM_CPU_DEVICES=2"),
        ({"replicas": 8, "devices": 8}, "devices=8 were asked for.*JAX_NUM_CPU_DEVICES=8"),
        ({"replicas": 8, "kind": "vmap", "devices": 8}, "devices=8 were asked for.*without a num"),
        (
            {"replicas": 2, "kind": "vmap", "mesh": jax.make_mesh((1,), ("replica",))},
            "mesh must be None with kind='vmap'; got .*All replicas live on the default device",
        ),
    ],
)
def test_what_cannot_be_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        replicas.layout(**arguments)


def test_one_device_is_the_default_device():
    layout = replicas.layout(8)
    assert (layout.kind, layout.axis_name, layout.mesh) == ("vmap", "replica", None)
    assert layout.per_device == 8
    assert layout.place(3.0) == layout.share(3.0) == 3.0


def test_replicas_on_one_cpu_device_say_once_how_to_get_more(caplog):
    _advise_more_devices.cache_clear()
    for _ in range(2):
        replicas.layout(1)
        replicas.layout(8, "vmap")
        replicas.layout(8, devices=1)  # as asked
    assert caplog.messages == []
    for p in (8, 4, 8):
        replicas.layout(p)
    (message,) = caplog.messages
    assert "set JAX_NUM_CPU_DEVICES to the number of replicas" in message


def test_one_replica_needs_no_second_device():
    layout = replicas.layout(1, "shard_map")
    assert layout.per_device == 1
    state, out = replicas.runner(lambda s, b: (s + b, s), layout)(
        jax.numpy.ones(1), 2 * jax.numpy.ones(1)
    )
    assert (float(state[0]), float(out[0])) == (3.0, 1.0)
