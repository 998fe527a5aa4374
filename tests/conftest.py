"""Settings that must stand before JAX starts; pytest reads this file first."""

import os

# A test that passes or fails by the machine's accelerator is no test: CPU unless asked otherwise.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Nor should a test find what an earlier one compiled.
os.environ.setdefault("JAX_ENABLE_COMPILATION_CACHE", "false")
