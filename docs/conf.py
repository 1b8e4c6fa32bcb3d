"""Sphinx configuration: ``python -m sphinx -W -b html docs BUILD``."""

from importlib.util import find_spec

from lqo_mor import __version__

project = "lqo-mor"
author = "the lqo-mor authors"
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "numpydoc"]
source_suffix = {".md": "markdown"}
root_doc = "index"
exclude_patterns = ["_build"]

myst_heading_anchors = 3

autosummary_generate = False
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings name the types
autodoc_mock_imports = [] if find_spec("torch") else ["torch"]
numpydoc_show_class_members = False
trim_doctest_flags = True

html_theme = "alabaster"
html_theme_options = {
    "description": "Model order reduction of linear-quadratic-output systems and of the deep models made of them",
    "page_width": "1280px",
    "sidebar_width": "240px",
    "body_max_width": "1000px",
    "code_font_size": "0.8em",
    "fixed_sidebar": True,
}
html_show_sourcelink = False
html_copy_source = False
html_show_copyright = False


def setup(app):
    """Drop the blank line that ends the output in the examples; doctest needs it, readers do not."""

    def tidy(app, docname, source):
        source[0] = source[0].replace("\n\n```\n", "\n```\n")

    app.connect("source-read", tidy)
