"""Follow every link of a built site: ``python docs/check_links.py build/docs``, with ``--external`` other hosts' too.

A link has to lead to a file that was built and, with ``#name``, to an element of that id there. What a page loads
(scripts, styles, pictures, fonts) has to come from the site itself. Without ``--external`` nothing is asked of the
network.
"""

from __future__ import annotations

import re
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOADED = dict.fromkeys(("script", "img", "iframe", "source", "video", "audio"), "src") | {"link": "href"}
NOT_LOADED = {"canonical", "next", "prev", "index", "search", "author", "license", "help"}  # kinds of <link>
SECONDS = 20
AGENT = "Mozilla/5.0 (mlbits' check of links)"  # some hosts refuse a request without one


@dataclass
class Page(HTMLParser):
    """What a page has: ids, links, and what it loads."""

    ids: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)
    loads: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        """Take note of an element."""
        found = {name: value or "" for name, value in attributes}
        self.ids |= {found[name] for name in ("id", "name") if name in found}
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        elif tag in LOADED and found.get(LOADED[tag]) and not NOT_LOADED & set(found.get("rel", "").split()):
            self.loads.append(found[LOADED[tag]])


def read(path: Path) -> Page:
    """A page."""
    page = Page()
    page.feed(path.read_text(encoding="utf-8"))
    return page


def broken_links(site: Path, external: bool = False) -> Iterator[str]:
    """A line for each link that leads nowhere, and each thing loaded from another host.

    Args:
        site: the folder of the built site.
        external: whether to ask other hosts for their pages.
    """
    site = site.resolve()
    pages = {path: read(path) for path in sorted(site.rglob("*.html"))}
    elsewhere: dict[str, str] = {}
    for path, page in pages.items():
        here = path.relative_to(site).as_posix()
        for target in dict.fromkeys([*page.links, *page.loads]):
            parts = urlsplit(target)
            if parts.scheme in ("data", "mailto", "javascript"):
                continue
            if parts.scheme or parts.netloc:
                elsewhere.setdefault(target, here)
                if target in page.loads:
                    yield f"{here} loads {target}; wanted nothing from other hosts"
                continue
            to = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            to = to / "index.html" if to.is_dir() else to
            if not to.is_file() or not to.is_relative_to(site):
                yield f"{here} links to {target}: there is no such file"
            elif parts.fragment and to.suffix == ".html" and to in pages and not _has(pages[to], parts.fragment):
                yield f"{here} links to {target}: the page has no such place"
    for style in sorted(site.rglob("*.css")):
        for target in re.findall(r"""(?:url\(\s*|@import\s+)["']?((?:https?:)?//[^"')\s]+)""", style.read_text()):
            yield f"{style.relative_to(site).as_posix()} loads {target}; wanted nothing from other hosts"
    if external:
        for target, here in elsewhere.items():
            if why := unreachable(target):
                yield f"{here} links to {target}: {why}"


def _has(page: Page, fragment: str) -> bool:
    return fragment in page.ids or unquote(fragment) in page.ids


def unreachable(address: str) -> str:
    """Why a page of another host cannot be had; the empty string if it can."""
    try:
        request = urllib.request.Request(address, headers={"User-Agent": AGENT})
        with urllib.request.urlopen(request, timeout=SECONDS):
            return ""
    except urllib.error.HTTPError as error:
        return "" if error.code in (403, 429) else f"status {error.code}"  # there, but not for programs
    except OSError as error:
        return str(getattr(error, "reason", error))


def main() -> None:
    """Print what is broken; exit status 1 if anything is."""
    words = sys.argv[1:]
    folders = [word for word in words if word != "--external"]
    if len(folders) != 1 or not Path(folders[0]).is_dir():
        sys.exit(
            f"got {' '.join(words) or 'nothing'}; wanted the folder of a built site, as build/docs, and --external"
        )
    found = list(broken_links(Path(folders[0]), "--external" in words))
    print("\n".join([*found, f"{len(found)} broken links"]))
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
