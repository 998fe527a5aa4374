"""The site: Sphinx's book theme, MyST pages, and an API page for every public name.

    sphinx-build -W -b html docs build/site

Nothing is executed: the blocks of the pages run in `tests/test_readme.py`, the notebooks in
`tests/test_notebooks.py`. Links into the documentation of JAX, Optax and Flax need inventories from
the network, and are made only where `ENTROPIX_DOCS_INTERSPHINX=1` asks for them.
"""

import os
import pathlib
import re
import sys

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))

project = "Entropix"
author = "the Entropix developers"
project_copyright = author
version = release = re.search(
    r'__version__ = "(.*)"', (HERE.parent / "entropix" / "__init__.py").read_text()
).group(1)

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "docstrings",
    "gathering",
]
exclude_patterns = ["_build", "_ext", "conf.py"]
nb_execution_mode = "off"
nb_custom_formats = {".py": ["jupytext.reads", {"fmt": "py:percent"}]}
myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 4

autosummary_generate = True
autodoc_default_options = {"members": True, "undoc-members": False}
autodoc_typehints = "none"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
default_role = "py:obj"
suppress_warnings = ["ref.python"]  # `ndim` in a docstring is an attribute of several classes

intersphinx_mapping = (
    {
        "python": ("https://docs.python.org/3", None),
        "jax": ("https://docs.jax.dev/en/latest", None),
        "optax": ("https://optax.readthedocs.io/en/latest", None),
        "flax": ("https://flax.readthedocs.io/en/stable", None),
    }
    if os.environ.get("ENTROPIX_DOCS_INTERSPHINX") == "1"
    else {}
)

html_theme = "sphinx_book_theme"
html_title = "Entropix"
html_theme_options = {"show_toc_level": 2, "use_download_button": False}
