"""How the site is built: `make docs`, which treats every warning as an error.

Nothing is taken from the network, neither when the site is built nor when it is read: formulas are
MathML, and links into other projects' documentation are ordinary ones. What the pages quote from
the repository (benchmark results, claims, the options of the commands) is written anew for each
build by `extensions/quoted.py`.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "docs" / "extensions"), str(ROOT / "benchmarks")]

from flattest import __version__  # noqa: E402

project = "flattest"
author = "The flattest developers"
copyright = author
release = version = __version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "myst_parser",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
    "mathml",
    "quoted",
    "names",
    "code_blocks",
]
exclude_patterns = ["quoted"]
templates_path = ["templates"]
nitpicky = True
default_role = "name"

myst_enable_extensions = ["attrs_block", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

# `make docs` shows the examples without running them, `make docs-full` with their output.
sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "gallery",
    "filename_pattern": r"/plot_",
    "within_subsection_order": "ExampleTitleSortKey",
    "download_all_examples": False,
    "abort_on_example_error": True,
    "write_computation_times": False,
    "show_signature": False,
    "show_memory": False,
    "min_reported_time": 1,
    "matplotlib_animations": False,
    "image_srcset": ["2x"],
}

autosummary_generate = True
autodoc_mock_imports = ["laplace", "lightning", "transformers"]  # hosts of the integrations
autodoc_typehints = "none"  # the docstrings say what types mean
autodoc_member_order = "groupwise"
numpydoc_show_class_members = False  # the template lists them, each with its own docstring
numpydoc_xref_param_type = False

html_theme = "pydata_sphinx_theme"
html_title = "flattest"
html_math_renderer = "mathml"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_context = {"default_mode": "auto"}
html_theme_options = {
    "logo": {"text": "flattest"},
    "header_links_before_dropdown": 6,
    "navigation_with_keys": False,
    "show_prev_next": True,
    "footer_start": ["copyright"],
    "footer_end": [],
}
html_sidebars = {"index": [], "install": [], "choose": [], "faq": [], "changelog": []}
