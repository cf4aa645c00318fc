"""Puts the parts together into one HTML file, and writes it into the folder of the run.

The file needs nothing from outside: a content policy in its head forbids every request, and its style and its program
are allowed by their hashes. The same folder gives the same bytes: the page has no clock but the run's own.
"""

import base64
import hashlib
from pathlib import Path

from etils import epath

from jax_ssl import paths
from jax_ssl.errors import DataError, UserError
from jax_ssl.study.report import facts as facts_of
from jax_ssl.study.report import features, numbers, origin, pictures, sections, seen
from jax_ssl.study.report.html import Html, join, plain, tag

NAME = "report.html"
ICON = "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 8 8'%3E%3Ccircle cx='4' cy='4' " \
    "r='3' fill='%230072b2'/%3E%3C/svg%3E"  # fmt: skip


def write(folder, out=None, look: bool = True, table=None, say=print) -> epath.Path:
    """Writes the page of a run and returns its path. Raises UserError.

    out: a file; default RUN/report.html. look: with what the network sees, for which its images are read and their
    features extracted; what can't be looked at is said in one line, and the page is written without it. table: a
    frozen.Table of the run, if it has just been measured.
    """
    facts = facts_of.read(folder)
    found = None
    if look:
        try:
            found = features.see(folder, facts, table, say)
        except (UserError, DataError) as error:
            say(f"the page has no map and no neighbours: {error}")
    text = run_page(facts, found)
    path = paths.resolve(out) if out else facts.folder / NAME
    paths.write(path, text)
    return path


def run_page(facts, found) -> str:
    """The page of a run. found: the Seen of its network, or None."""
    names = facts.class_names
    parts = [sections.result(facts), sections.health(facts), sections.curves(facts), numbers.numbers(facts),
             pictures.pictures(facts)]  # fmt: skip
    if found is not None:
        parts += [seen.neighbours(found, names), seen.plane_map(found, names), seen.confusion(found, names)]
    else:
        told = ["Nearest neighbours, a map of the images and the confusion of a probe are made by ",
                tag("code", f"report --run={sections.folder_of(facts)}"), "."]  # fmt: skip
        parts.append(sections.section("map", "Map", tag("p", told)))
    parts += [origin.settings(facts), origin.reproduce(facts)]
    title = f"{facts.method}, {facts.name}"
    return document(title, sections.header(facts), [part for part in parts if part is not None])


def document(title: str, header: Html, parts: list[Html]) -> str:
    """A whole page of a header and sections."""
    style, program = source("page.css"), source("page.js")
    policy = (f"default-src 'none'; img-src data:; style-src {digest(style)}; script-src {digest(program)}; "
              "base-uri 'none'; form-action 'none'")  # fmt: skip
    head = tag(
        "head", tag("meta", charset="utf-8"), tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"), tag("meta", name="referrer", content="no-referrer"),
        tag("title", title), tag("link", rel="icon", href=ICON), tag("style", Html(style)),
    )  # fmt: skip
    skip = tag("a", "Skip to the result", href="#main", class_="skip")
    body = tag("body", skip, tag("div", contents(parts), tag("main", header, parts, id="main", tabindex="-1"),
               class_="page"), tag("script", Html(program)))  # fmt: skip
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


def contents(parts: list[Html]) -> Html:
    """Links to the sections: each part begins with its id, and has its title in an h2."""
    links = []
    for part in parts:
        name = part.partition('id="')[2].partition('"')[0].removesuffix("-title")
        title = plain(Html(part.partition("<h2")[2].partition(">")[2].partition("</h2>")[0]))
        links.append(tag("li", tag("a", title, href=f"#{name}")))
    return tag("nav", tag("ol", join(links)), aria_label="On this page")


def source(name: str) -> str:
    """A file that is installed beside this one."""
    return Path(__file__).with_name(name).read_text()


def digest(text: str) -> str:
    """A hash as a content policy names it."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
