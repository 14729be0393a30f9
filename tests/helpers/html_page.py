"""An HTML page as tests read it."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

NOT_CLOSED = {"meta", "link", "img", "input", "br", "hr"}


class Page(HTMLParser):
    """The elements, text and script data of an HTML file; fails on tags that do not match.

    Attributes:
        elements: Tags with their attributes, in order.
        words: The text outside of scripts and styles.
        scripts: The text of scripts by element id.
        data: The parsed data of the viewers.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.scripts: dict[str, str] = {}
        self.data: list[dict] = []
        self._open: list[tuple[str, dict[str, str | None]]] = []
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        assert not self._open, "every element is closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in NOT_CLOSED:
            self._open.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        tag, attributes = self._open[-1] if self._open else ("", {})
        if attributes.get("class") == "viewer-data":
            self.data.append(json.loads(data))
        elif tag == "script" and "id" in attributes:
            self.scripts[attributes["id"] or ""] = data
        elif tag not in {"script", "style"}:
            self.words += data

    @property
    def text(self) -> str:
        """The words with single spaces."""
        return " ".join(self.words.split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]
