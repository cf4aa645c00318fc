"""HTML in which all text is escaped, unless it was made by `tag`. So no name of a class or file can do anything."""

import html
import re
from collections.abc import Iterable

CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffe\uffff]")
OF_HTML = {"meta", "link", "img", "input", "br", "source"}  # without an end tag
VOID = OF_HTML | {"line", "path", "circle", "rect", "polygon"}


class Html(str):
    """Text that is HTML already."""


def escape(value) -> Html:
    """Any value as HTML that shows it as text."""
    if isinstance(value, Html):
        return value
    text = CONTROL.sub("\ufffd", str(value)).encode("utf-8", "backslashreplace").decode()
    text = re.sub(r"(?<=\d) %", "\u00a0%", text)  # a number and its sign stay on one line
    return Html(html.escape(text))


def join(*parts) -> Html:
    """Parts one after the other; lists are flattened, None and "" are left out."""
    found = []
    for part in parts:
        if part is None:
            continue
        of_parts = isinstance(part, Iterable) and not isinstance(part, str)
        found.append(join(*part) if of_parts else escape(part))
    return Html("".join(found))


def tag(name: str, /, *children, **attributes) -> Html:
    """An element. Attributes are keywords: `class_` is class, `aria_label` is aria-label; None and False are absent."""
    words = [name]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        key = key.rstrip("_").replace("_", "-")
        words.append(key if value is True else f'{key}="{escape(value)}"')
    opened = "<" + " ".join(words)
    if name in VOID and not children:
        return Html(f"{opened}/>" if name not in OF_HTML else f"{opened}>")
    return Html(f"{opened}>{join(*children)}</{name}>")


def table(header: Iterable, rows: Iterable[Iterable], caption: str, numbers: Iterable[int] = ()) -> Html:
    """A table whose first column names the rows. caption: read by screen readers. numbers: columns set to the right."""
    numbers = set(numbers)
    style = lambda place: "number" if place in numbers else None
    head = [tag("th", cell, scope="col", class_=style(place)) for place, cell in enumerate(header)]
    body = [
        tag("tr", [tag("th", cell, scope="row", class_=style(place)) if place == 0 else
                   tag("td", cell, class_=style(place)) for place, cell in enumerate(row)])
        for row in rows
    ]  # fmt: skip
    inner = tag("table", tag("caption", caption, class_="unseen"), tag("thead", tag("tr", head)), tag("tbody", body))
    # A wide table scrolls inside its frame, and a frame that scrolls has to be reached by the keyboard.
    return tag("div", inner, class_="scroll", tabindex="0", role="region", aria_label=f"Table: {caption}")


def behind(summary: str, *content) -> Html:
    """Content that the reader opens."""
    return tag("details", tag("summary", summary), *content)


def shell(command: str) -> Html:
    """A command whose words are not broken at their hyphens."""
    return Html(" ".join(tag("span", word, class_="word") for word in command.split(" ")))


def plain(text: Html) -> str:
    """HTML as text."""
    return html.unescape(re.sub("<[^>]*>", "", text))
