"""Pages that the library writes, read strictly."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from xml.etree import ElementTree

VOID = {"meta", "br"}
OUTSIDE = ("link", "img", "iframe", "image", "use", "a", "object")


class Reader(HTMLParser):
    """Elements of a page, refusing those that are not closed where they should be."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def checked(page: str, *, scripts: int = 0) -> Reader:
    """A page that is well formed, names nothing outside itself and has no more scripts than that."""
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert reader.open == []
    assert sum(tag == "script" for tag, _ in reader.elements) == scripts
    for tag, attributes in reader.elements:
        assert tag not in OUTSIDE
        assert not [
            name for name in attributes if name.startswith("on") or name in ("src", "href", "xlink:href")
        ]
    assert "url(" not in page
    assert "@import" not in page
    for svg in re.findall(r"<svg.*?</svg>", page, re.DOTALL):
        ElementTree.fromstring(svg)
    return reader
