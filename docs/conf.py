"""Sphinx's settings: `nox -s docs` builds docs/_build/html, with warnings as errors."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from docutils.nodes import SkipNode
from latex2mathml.converter import convert

if TYPE_CHECKING:
    from docutils import nodes
    from sphinx.application import Sphinx

project = "loss-balance"
copyright = "the loss-balance authors"  # noqa: A001  Sphinx's name for it
PROJECT = tomllib.loads(Path(__file__).parents[1].joinpath("pyproject.toml").read_text())["project"]
release = PROJECT["version"]

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
]
exclude_patterns = ["_build"]
default_role = "code"  # in docstrings, as in Markdown
myst_enable_extensions = ["attrs_block", "colon_fence", "dollarmath"]
myst_heading_anchors = 3  # links to a heading are GitHub's
suppress_warnings = ["myst.header"]  # pages that others write begin as they like

autodoc_mock_imports = ["lightning", "pytorch_lightning", "transformers"]  # slow, for a name each
autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False  # Keras' own are no reStructuredText
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
autodoc_class_signature = "mixed"
autodoc_default_options = {"members": True}
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88

html_theme = "furo"
html_title = "loss-balance"
pygments_dark_style = "github-dark"  # furo's underlines modules, as if they were links
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_use_index = html_domain_indices = False  # there is a search
html_show_sphinx = False
html_math_renderer = "mathml"  # MathJax would be fetched from elsewhere

FOREIGN = "numpy|np|torch|jax|keras|tensorflow|tf|flax|optax|onnxruntime"
PYTHON = "collections|concurrent|abc|os|pathlib|threading|typing"
INTERNAL = "T|Part|Head|Layer|OwnSpec|OwnSegment|Schedule|WindowState|UncertaintyState"
nitpick_ignore_regex: list[tuple[str, str]] = [
    # Other projects, and Python itself: their inventories would have to be fetched.
    ("py:.*", rf"({FOREIGN}|{PYTHON})(\..*)?"),
    # Names of types: arrays of any library, and what is not part of what users write.
    ("py:.*", r"Array|Schedule|Floats|Integers"),
    ("py:.*", rf"loss_balance\..*\.({INTERNAL})"),
]


def in_text(self: Any, node: nodes.math) -> None:
    """A formula within a line, as MathML."""
    self.body.append(convert(node.astext()))
    raise SkipNode


def on_its_own(self: Any, node: nodes.math_block) -> None:
    """A formula on lines of its own, aligned where it has an ampersand."""
    formula = node.astext()
    if "&" in formula or r"\\" in formula:
        formula = rf"\begin{{align*}}{formula}\end{{align*}}"
    self.body.append(f'<div class="math">{convert(formula, display="block")}</div>\n')
    raise SkipNode


def of_others(_app: Sphinx, _what: str, _name: str, member: Any, *_: Any) -> bool | None:
    """Leaves out what a class has from another project, whose pages tell of it."""
    where = getattr(getattr(member, "fget", member), "__module__", None) or "loss_balance"
    return None if str(where).startswith("loss_balance") else True


def setup(app: Sphinx) -> dict[str, bool]:
    """Formulas are MathML in the page, which browsers show without a script."""
    app.add_html_math_renderer("mathml", (in_text, None), (on_its_own, None))
    app.connect("autodoc-skip-member", of_others)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
