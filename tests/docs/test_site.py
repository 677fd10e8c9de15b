"""The site as `nox -s docs` built it: every page in its navigation, nothing from elsewhere."""

from __future__ import annotations

import os
from html.parser import HTMLParser
from pathlib import Path

import pytest
from support.docs.pages import DOCS, PAGES

if "LOSS_BALANCE_SITE" not in os.environ:
    pytest.skip("the session docs builds the site", allow_module_level=True)
SITE = Path(os.environ["LOSS_BALANCE_SITE"]).resolve()
MADE = sorted(SITE.rglob("*.html"))
OWN = {"search.html"}  # Sphinx's
LOADING = {"script": "src", "img": "src", "source": "srcset", "link": "href", "iframe": "src"}


class Found(HTMLParser):
    """What a page loads, the links of its navigation, and its ids."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.navigation: list[str] = []
        self.ids: set[str] = set()
        self.feed(path.read_text())

    def handle_starttag(self, tag, attrs):
        given = {name: value or "" for name, value in attrs}
        self.ids.add(given.get("id", ""))
        if tag in LOADING and LOADING[tag] in given:
            self.loads.append(given[LOADING[tag]])
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
            if "reference internal" in given.get("class", ""):
                self.navigation.append(given["href"])


FOUND = {path: Found(path) for path in MADE}


def elsewhere(address):
    return address.startswith(("http:", "https:", "//"))


def test_every_page_is_built_and_in_the_navigation_of_the_first():
    pages = {path.relative_to(DOCS).with_suffix(".html").as_posix() for path in PAGES}
    built = {path.relative_to(SITE).as_posix() for path in MADE}
    assert built == pages | OWN
    assert pages - {"index.html"} <= set(FOUND[SITE / "index.html"].navigation)


@pytest.mark.parametrize("path", MADE, ids=lambda path: path.relative_to(SITE).as_posix())
def test_a_page_loads_nothing_from_elsewhere_and_what_it_loads_is_there(path):
    loads = FOUND[path].loads
    assert not [address for address in loads if elsewhere(address)]
    local = [address.partition("?")[0] for address in loads if not address.startswith("data:")]
    missing = [address for address in local if not (path.parent / address).exists()]
    assert set(missing) <= {"#"}


def test_no_style_or_script_fetches_from_elsewhere():
    for path in [*SITE.rglob("*.css"), *SITE.rglob("*.svg")]:
        text = path.read_text()
        assert "url(http" not in text
        assert "url(//" not in text
        assert "@import" not in text


@pytest.mark.parametrize("path", MADE, ids=lambda path: path.relative_to(SITE).as_posix())
def test_links_lead_to_pages_and_places_on_them(path):
    for link in FOUND[path].links:
        if elsewhere(link) or link.startswith("mailto:"):
            continue
        target, _, place = link.partition("#")
        there = (path.parent / target).resolve() if target else path
        assert there.exists(), link
        if place and there in FOUND:
            assert place in FOUND[there].ids, link
