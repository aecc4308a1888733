"""Sphinx settings: MyST pages, the API from docstrings, warnings are errors (noxfile)."""

from deploykit import __version__

project = "deploykit"
author = "The deploykit authors"
project_copyright = "The deploykit authors"
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.doctest"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "description"
exclude_patterns = ["_build"]
# Docstrings are tried by pytest (noxfile), which knows their module; here only the pages' own examples.
doctest_test_doctest_blocks = ""
html_theme = "furo"
html_title = "deploykit"
