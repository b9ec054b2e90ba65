"""How the site is built: ``python -m sphinx -W -n -b html docs SITE``.

The parts of the reference that the code itself says are put in while a page is read, by
``from_code.py``; the site also has each page as Markdown, beside the HTML, for readers that are
programs (``llms.txt`` leads to them).
"""

from __future__ import annotations

import re
import sys
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

from sphinx.pycode import ModuleAnalyzer

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from from_code import MARK, fill_in  # noqa: E402 (it lies beside this file)

import perdure  # noqa: E402

project = "perdure"
author = "The perdure authors"
project_copyright = author
release = version = version_of("perdure")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = f"perdure {release}"
html_extra_path = ["llms.txt"]
html_show_copyright = False
exclude_patterns = ["_build"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 88
napoleon_numpy_docstring = False
napoleon_use_ivar = True

# Nothing outside is fetched while the site is built, and inner names are not promised: such names
# of signatures lead nowhere. A public one must lead somewhere.
nitpick_ignore_regex = [(r"py:.*", r"(?!perdure\.\w+$).*")]

OUTSIDE = re.compile(r"(?<!!)\[(?P<text>[^\]]+)\]\((?P<path>\.\./[^)#]*)(?:#[^)]*)?\)")
"""A link to a file of the repository; it may lead out of the folder of the documents."""


def lead_inside(docname: str, text: str) -> str:
    """Return a page without links that lead out of the site: its text stays.

    The pages are read in the repository too, where these links lead to the source.
    """
    folder = (HERE / docname).parent

    def plain(match: re.Match[str]) -> str:
        target = (folder / match["path"]).resolve()
        return match[0] if target.is_relative_to(HERE) and target.is_file() else match["text"]

    return OUTSIDE.sub(plain, text)


def read_page(app: Any, docname: str, source: list[str]) -> None:
    """Put in what the code says, and keep the page as Markdown for the site."""
    source[0] = lead_inside(docname, fill_in(source[0]))
    kept = Path(app.outdir, f"{docname}.md")
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(source[0])


def outdated_pages(app: Any, env: Any, *changes: Any) -> list[str]:
    """Name the pages that the code has a part in: no file says when it changes."""
    return [name for name in env.found_docs if MARK.search(Path(env.doc2path(name)).read_text())]


def forget_overloads(*modules: str) -> None:
    """Show functions with all their options, not with what type checkers are told of them."""
    for name in modules:
        analyzer = ModuleAnalyzer.for_module(name)
        analyzer.analyze()
        analyzer.overloads.clear()


def hide_constructor(
    app: Any, what: str, name: str, obj: Any, options: Any, signature: str | None, returns: Any
) -> tuple[str, str] | None:
    """Show no arguments of classes whose objects perdure makes."""
    is_ours = what in ("class", "exception") and name != "perdure.Backoff"
    return ("", "") if is_ours and signature else None


def find_public(app: Any, env: Any, node: Any, contnode: Any) -> Any:
    """Lead a name of an inner module to the public one: ``perdure.runs.Run`` is ``perdure.Run``."""
    target = node.get("reftarget", "")
    name = target.rpartition(".")[2]
    if node.get("refdomain") != "py" or name not in perdure.__all__:
        return None
    if target not in (name, f"{getattr(perdure, name).__module__}.{name}"):
        return None  # another one of the same name
    domain = env.get_domain("py")
    return domain.resolve_xref(
        env, node["refdoc"], app.builder, "obj", f"perdure.{name}", node, contnode
    )


def setup(app: Any) -> None:
    """Connect the functions above."""
    forget_overloads("perdure.task", "perdure.workflow", "perdure.verbs")
    app.connect("env-get-outdated", outdated_pages)
    app.connect("source-read", read_page)
    app.connect("autodoc-process-signature", hide_constructor)
    app.connect("missing-reference", find_public)
