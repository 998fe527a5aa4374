"""Settings of JAX that change every random number are a part of what a run is."""

import jax
import pytest

from entropix.experiment import make_config, plan


def run(name="sgd"):
    config = make_config(
        dataset="digits",
        model={"name": "mlp", "widths": (4,)},
        optimizers={name: {}},
        algorithms=name,
        seeds=1,
    )
    (made,) = plan(config)
    return made


@pytest.mark.parametrize(
    ("setting", "value"),
    [("jax_enable_x64", True), ("jax_default_prng_impl", "rbg")],
)
def test_another_setting_is_another_run(setting, value):
    usual = run()
    assert "jax" not in usual.identity["problem"]
    before = getattr(jax.config, setting)
    jax.config.update(setting, value)
    try:
        assert run().identity["problem"]["jax"] == {setting: value}
        assert run().owner != usual.owner
    finally:
        jax.config.update(setting, before)
    assert run().identity == usual.identity
