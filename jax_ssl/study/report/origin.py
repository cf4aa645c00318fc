"""The last parts of the page: the config beside its preset, and how to make the run again."""

import json
import shlex

from jax_ssl.study.report.facts import Facts, nearest_preset
from jax_ssl.study.report.html import Html, behind, join, shell, table, tag
from jax_ssl.study.report.sections import folder_of, section

COMMIT = 12  # letters of a commit that name it


def settings(facts: Facts) -> Html:
    """The config as a difference from the nearest preset, and the whole of it behind."""
    near, whole = (
        nearest_preset(facts.config),
        tag("pre", json.dumps(facts.config, indent=1, sort_keys=True), tabindex="0"),
    )
    if near is None:
        told = tag("p", "The method is a module of the user's own, so there is no preset to compare with.")
    elif not near.changed:
        told = tag("p", "The same as the preset ", tag("code", near.preset), ".")
    else:
        show = lambda value: "–" if value is None else json.dumps(value)
        rows = [(key, show(there), show(here)) for key, (there, here) in near.changed.items()]
        told = join(tag("p", "What differs from the preset ", tag("code", near.preset), ":"),
                    table(("key", near.preset, "this run"), rows, "Difference from the preset"))  # fmt: skip
    return section("config", "Config", told, behind("The whole config", whole))


def reproduce(facts: Facts) -> Html:
    """The command, and with which versions on which machine it was given."""
    started = facts.started
    near = nearest_preset(facts.config)
    if started.get("command"):
        command, told = started["command"], "The run was started by:"
    elif near:
        flags = [f"--config.{key}={here!r}" for key, (_, here) in near.changed.items() if here is not None]
        command = " ".join(["python -m jax_ssl train", f"--config={near.preset}", *map(shlex.quote, flags)])
        told = "How it was started was not recorded. By its config, it is:"
    else:
        return section("reproduce", "How to reproduce it", tag("p", "Start from the config above."))
    versions = {"hardware": started.get("hardware")} | (started.get("versions") or {})
    rows = [tag("div", tag("dt", name), tag("dd", version[:COMMIT if name == "commit" else None]))
            for name, version in versions.items() if version]  # fmt: skip
    rows.append(tag("div", tag("dt", "seed"), tag("dd", facts.config.get("seed", 0))))
    again = ["The page again: ", shell(f"python -m jax_ssl report --run={folder_of(facts)}")]
    return section("reproduce", "How to reproduce it", tag("p", told), tag("pre", shell(command), tabindex="0"),
                   tag("dl", rows, class_="facts many"), tag("p", again, class_="fine"))  # fmt: skip
