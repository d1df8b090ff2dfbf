"""The documentation site, built by Sphinx: ``sphinx-build -W docs build/docs``, or ``make docs`` (extra ``docs``).

The pages are the Markdown files of this folder, as they are read on a code-hosting page too. Beside them stand a page
for each environment, made from the registry (:mod:`environment_pages`), and the reference, from docstrings. A build
ends by following every link of what it wrote (:mod:`check_links`); a broken one is a warning, and with ``-W`` an
error.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS))
os.environ.setdefault("OMP_NUM_THREADS", "1")  # agents are only made here: threads would cost more than they do

import check_links  # noqa: E402
import environment_pages  # noqa: E402
from sphinx.application import Sphinx  # noqa: E402
from sphinx.util import logging  # noqa: E402

import mlbits  # noqa: E402

project, author, copyright = "mlbits", "The mlbits authors", "The mlbits authors"
version = release = mlbits.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "index"
exclude_patterns = ["examples", "pictures", "site"]
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]
suppress_warnings = ["myst.xref_missing"]  # links are checked in what was built: those to headings of the reference too

html_theme = "furo"
html_title = f"mlbits {release}"
html_copy_source = False
html_show_sphinx = False
html_extra_path = ["site"] if (DOCS / "site").is_dir() else []  # replays of environments, where they were made

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_google_docstring, napoleon_numpy_docstring = True, False
napoleon_use_ivar = True  # attributes that a docstring names are no second definition of the fields
add_module_names = False

# Pages whose text is a file of the folder above.
ABOVE = {"contributing": "CONTRIBUTING.md", "security": "SECURITY.md", "changelog": "CHANGELOG.md"}


def as_page(app: Sphinx, page: str, text: list[str]) -> None:
    """Take the text of a file of the folder above, and let links lead to pages of the site."""
    own = Path(app.env.doc2path(page))
    source = DOCS.parent / ABOVE[page] if page in ABOVE else own
    if page in ABOVE:
        app.env.note_dependency(str(source))
        text[0] = source.read_text(encoding="utf-8")
    parts = re.split(r"(^```.*?^```$)", text[0], flags=re.M | re.S)  # code stays as it is
    parts[::2] = [LINK.sub(lambda link: linked(link, source, own), part) for part in parts[::2]]
    text[0] = "".join(parts)
    if page == root_doc and (more := unlisted(text[0])):
        text[0] += "\n".join(["", "```{toctree}", ":caption: More", ":maxdepth: 1", "", *more, "```", ""])


def unlisted(index: str) -> list[str]:
    """The pages of this folder that the index does not list yet, as those that are new."""
    listed = {root_doc, *re.findall(r"^[\w/]+$", index, re.M)}
    return sorted({page.stem for page in DOCS.glob("*.md")} - listed)


LINK = re.compile(r"(?<!!)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")


def linked(link: re.Match[str], source: Path, page: Path) -> str:
    """A link of a file as one of its page; to what is not on the site, such as code, its text alone."""
    path, sign, place = link[2].partition("#")
    if not path or re.match(r"[a-z]+:", path):
        return link[0]
    target = (source.parent / path).resolve()
    for name, above in ABOVE.items():
        if target == DOCS.parent / above:
            target = DOCS / f"{name}.md"
    if not target.is_file() or not target.is_relative_to(DOCS):
        return link[1]
    return f"[{link[1]}]({os.path.relpath(target, page.parent)}{sign}{place})"


def follow_links(app: Sphinx, error: Exception | None) -> None:
    """Check the links of the pages that were built."""
    if error is None and app.builder.name == "html":
        for broken in check_links.broken_links(Path(app.outdir)):
            logging.getLogger("mlbits.docs").warning(broken)


def setup(app: Sphinx) -> dict[str, Any]:
    """Write the environments' pages before Sphinx looks for pages; check links after the build."""
    environment_pages.write(DOCS / "environments")
    app.connect("source-read", as_page)
    app.connect("build-finished", follow_links)
    return {"parallel_read_safe": False}
