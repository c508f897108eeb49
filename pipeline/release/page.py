"""What a release's report may consist of: the elements, attributes and values that our template writes, in its notation, and no others.

The page is read by one strict pattern, not by a parser of HTML: browsers mend what is malformed in ways of their own, and a page that is
not in this notation is refused whatever they would make of it. There is no script, style, link or address but those named here. Texts must
be language, so that no picture is written in them; of other sentences in a report, only a signature tells.
"""

from __future__ import annotations

import base64
import html
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.release.bounded import Damage
from pipeline.release.cards import template
from pipeline.release.contents import DIGEST, no_language

_TOKEN = re.compile(r'([^<>&]+|&(?:lt|gt|amp|#39|#34);)|<(/?)([a-z0-9]+)((?: [a-zA-Z0-9:-]+="[^"<>]*")*)(/?)>')
_ATTRIBUTE = re.compile(r' ([a-zA-Z0-9:-]+)="([^"<>]*)"')
_NUMBER = r"-?[0-9.]{1,24}"
_COLOUR = r"#[0-9a-f]{3,6}"
_TEXT = "text"
"""Marks attributes whose value is a text, held to the same rule as the texts of the page."""
# Words between single spaces: with the space among the alternatives there are as many ways to split a word as it has letters, to a power.
_CLASS_WORD = (
    r"(?:pass|fail|inconclusive|not judged|banner|badge|top|facts|tiles?|name|value|note|lead|scroll|checks|label|n|dense|heat|h[0-7]"
    r"|plot|tick|bar|whisker|legend|tone-[a-z]{1,20}|class|columns|sign|boxes|lines)"
)
_CLASS = rf"(?:{_CLASS_WORD}(?: {{1,3}}{_CLASS_WORD}){{0,5}})? {{0,3}}"
_PICTURE = "picture"
"""Marks the one attribute that holds a picture."""
_NONE: Mapping[str, str] = {}
ELEMENTS: Mapping[str, Mapping[str, str]] = {
    **dict.fromkeys(("head", "title", "body", "main", "header", "h1", "h2", "h3", "b", "i", "code", "small", "footer"), _NONE),
    **dict.fromkeys(("li", "dl", "dt", "dd", "thead", "tr"), _NONE),
    **{name: {"class": _CLASS} for name in ("section", "p", "ul", "span", "table", "td", "th", "g")},
    "div": {"class": _CLASS, "tabindex": "0", "role": "region", "aria-label": _TEXT},
    "html": {"lang": "en"},
    "meta": {"charset": "utf-8", "name": "viewport", "content": "width=device-width, initial-scale=1"},
    "img": {"alt": _TEXT, "src": _PICTURE},
    "svg": {
        "class": "plot",
        "viewBox": rf"0 0 {_NUMBER} {_NUMBER}",
        "xmlns": r"http://www\.w3\.org/2000/svg",
        "aria-hidden": "true",
        "role": "img",
        "aria-label": _TEXT,
    },
    "path": {
        "d": r"M13 24l7 7 13-15|M15 15l16 16M31 15l-16 16|M14 23h18",
        "fill": "none",
        "stroke": "#fff",
        "stroke-width": "4",
        "stroke-linecap": "round",
        "stroke-linejoin": "round",
    },
    "circle": dict.fromkeys(("cx", "cy", "r"), _NUMBER) | {"fill": r"#(?:1b7a4b|b3261e|9a6200)"},
    "line": dict.fromkeys(("x1", "x2", "y1", "y2"), _NUMBER) | {"stroke": _COLOUR, "stroke-dasharray": "4 3", "class": "whisker"},
    "rect": dict.fromkeys(("x", "y", "width", "height", "rx"), _NUMBER) | {"class": "bar"},
    "text": dict.fromkeys(("x", "y"), _NUMBER) | {"class": "tick", "text-anchor": "middle|end"},
}
VOID = {"meta", "img", "path", "circle", "line", "rect"}
MOST = {"img": 1 << 16, "rect": 200, "circle": 2000, "line": 8000, "td": 20_000, "h": 400}
"""How often an element, or a cell of the heat table, may occur: shapes and tinted cells beyond what plots need are pixels of a picture."""


def check_page(page: str, gate: Mapping[str, Any], pictures: Mapping[str, bytes]) -> None:
    """Raise Damage unless a report is one that we write.

    Args:
        page: the report, with a style sheet that must be ours.
        gate: a ``gate.json`` that was found to be sound: the only digests that a report quotes are its own.
        pictures: PNG files that it may show, by name; none where the verdict is not ``pass``.
    """
    start, style = "<!DOCTYPE html>\n", f"<style>{template('report.css').rstrip()}</style>"
    digests = {value for value in gate["digests"].values() if value is not None}
    if not page.startswith(start) or page.count(style) != 1:
        raise Damage("does not begin as a report does, or has another style sheet than ours")
    shown = {base64.b64encode(png).decode() for png in pictures.values()}
    open_: list[str] = []
    count: Counter[str] = Counter()
    texts: list[str] = []
    pieces: list[str] = []
    for piece, closing, name, attributes, slash in _tokens(page.removeprefix(start).replace(style, "")):
        if piece is not None:
            pieces.append(piece)
            continue
        texts += ["".join(pieces)] if pieces else []
        pieces = []
        if name not in ELEMENTS:
            raise Damage(f"has an element <{name}>, which no report has")
        if closing:
            if attributes or slash or not open_ or open_.pop() != name:
                raise Damage(f"is not well formed at a closing </{name}>")
            continue
        tinted = _check_attributes(name, attributes, shown, texts)
        count.update([name, "h"] if tinted else [name])
        if count[name] > MOST.get(name, 20_000) or count["h"] > MOST["h"]:
            raise Damage(f"has more elements <{name}> than plots and tables need")
        if name not in VOID:
            open_.append(name)
    plain = [html.unescape(text) for text in [*texts, "".join(pieces)]]
    if no_language(plain, digests) or any(word not in digests for text in plain for word in DIGEST.findall(text)):
        raise Damage("holds a text that is no language: encoded data, or a digest of something else")
    if open_:
        raise Damage(f"is not well formed: <{open_[-1]}> is not closed")


def _tokens(page: str) -> Iterator[tuple[str | None, str, str, str, str]]:
    place = 0
    while place < len(page):
        match = _TOKEN.match(page, place)
        if match is None:
            raise Damage(f"is not in a report's notation: a comment, a script or a damaged element (character {place:,})")
        yield match[1], match[2] or "", match[3] or "", match[4] or "", match[5] or ""
        place = match.end()


def _check_attributes(element: str, attributes: str, shown: set[str], texts: list[str]) -> bool:
    """Raise Damage for an attribute that the element cannot have, and add the others that are ``texts``; whether it tints a heat table."""
    allowed, names, tinted = ELEMENTS[element], set(), False
    for match in _ATTRIBUTE.finditer(attributes):
        name, value = match[1], match[2]
        kind = allowed.get(name)
        if kind is None or name in names:
            raise Damage(f"has an attribute {name} of <{element}>, which no report has")
        names.add(name)
        if kind == _PICTURE:
            if value.removeprefix("data:image/png;base64,") not in shown or not value.startswith("data:"):
                raise Damage("shows a picture that is none of the release's")
        elif kind == _TEXT:
            texts.append(value)
        elif re.fullmatch(kind, value) is None:
            raise Damage(f"has an attribute {name} of <{element}> with another value than a report's")
        tinted = tinted or (element == "td" and name == "class" and re.search(r"h[0-7]", value) is not None)
    return tinted
