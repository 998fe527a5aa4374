"""Where compiled programs are kept; JAX's own settings come first."""

import types

import pytest

from entropix.training import compilation, keep_compiled


@pytest.fixture
def config(monkeypatch):
    """A stand-in for JAX's settings: the real ones would outlive the test."""
    values = {"jax_compilation_cache_dir": None}
    stand_in = types.SimpleNamespace(values=values, update=values.__setitem__)
    monkeypatch.setattr(compilation, "jax", types.SimpleNamespace(config=stand_in))
    monkeypatch.delenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", raising=False)
    return values


def test_programs_are_kept_in_the_users_cache(config, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    keep_compiled()
    assert config["jax_compilation_cache_dir"] == str(tmp_path / "entropix" / "compiled")
    assert 0 < config["jax_persistent_cache_min_compile_time_secs"] < 1


def test_the_users_own_settings_stay(config, monkeypatch):
    config["jax_compilation_cache_dir"] = "mine"
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "7")
    keep_compiled()
    assert config == {"jax_compilation_cache_dir": "mine"}
