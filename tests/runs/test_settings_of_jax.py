"""Settings of JAX that change every random number are a part of what a run is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import bowl, one_run

from entropix.experiment import load, make_config, plan
from entropix.runs.train import train_run


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


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_in_double_precision_a_run_trains_with_the_parameters_dtype(dtype, tmp_path):
    """Gradient descent on a quadratic: x_n = c + (1 - rate a)^n (x_0 - c)."""
    with jax.enable_x64(True):
        problem = bowl(jnp.asarray((1.0, 3.0), dtype), jnp.asarray((2.0, -1.0), dtype),
                       jnp.asarray((0.0, 0.0), dtype))  # fmt: skip
        run = one_run("sgd", problem, budget=(10, 2), seeds=1, learning_rate=0.1, momentum=0.0,
                      schedule="constant")  # fmt: skip
        rows = train_run(run, tmp_path / "sgd", progress=False)
        x = load(tmp_path / "sgd", seed=0, run=run).params
        assert x.dtype == dtype
        rate = float(np.float32(0.1))  # schedules are in single precision
        expected = np.array([2.0, -1.0]) * (1 - (1 - rate * np.array([1.0, 3.0])) ** 10)
        np.testing.assert_allclose(x, expected, rtol=1e-6 if dtype == jnp.float32 else 1e-12)
        assert len(rows) == 2
        for name in ("hj", "elastic_sgd", "sam"):
            other = one_run(name, problem, budget=(40, 1), seeds=1, ema=0.5)
            assert np.isfinite(train_run(other, tmp_path / name, progress=False)[-1]["train_loss"])
