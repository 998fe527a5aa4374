"""Where compiled programs are kept; JAX's own settings come first."""

import jax
import pytest

from entropix.training import keep_compiled


@pytest.fixture
def settings(monkeypatch):
    """What `keep_compiled` sets, without setting it."""
    made = {}
    monkeypatch.setattr(jax.config, "update", made.__setitem__)
    monkeypatch.delenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", raising=False)
    return made


def test_programs_are_kept_in_the_users_cache(settings, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setitem(jax.config.values, "jax_compilation_cache_dir", None)
    keep_compiled()
    assert settings["jax_compilation_cache_dir"] == str(tmp_path / "entropix" / "compiled")
    assert 0 < settings["jax_persistent_cache_min_compile_time_secs"] < 1


def test_the_users_own_settings_stay(settings, monkeypatch):
    monkeypatch.setitem(jax.config.values, "jax_compilation_cache_dir", "/mine")
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "7")
    keep_compiled()
    assert settings == {}
