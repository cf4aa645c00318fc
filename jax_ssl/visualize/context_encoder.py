"""Images with a hole, the hole painted, and the truth.

Paper: Pathak et al. 2016, https://arxiv.org/abs/1604.07379, Fig. 1 and 4
"""

import numpy as np
from PIL import Image

from jax_ssl.visualize import pictures


def draw(shown: dict[str, np.ndarray]) -> dict[str, Image.Image]:
    """shown: `holes` (rows, 3, S, S, 3): seen, painted and true."""
    return {"holes": page(dict(zip(("seen", "painted", "truth"), columns_of(shown))))}


def compare(shown: dict[str, dict]) -> dict[str, Image.Image]:
    """The same images painted by several runs. shown: {run: what it showed, as of `draw`}.

    What is seen stands at the left of all, or beside each run where their holes or their images differ.
    """
    runs = {run: columns_of(showed) for run, showed in shown.items()}
    seen, _, truth = next(iter(runs.values()))
    if all(np.array_equal(seen, own) for own, _, _ in runs.values()):
        columns = {"seen": seen} | {run: painted for run, (_, painted, _) in runs.items()}
    else:
        pairs = [((f"{run} sees", own), (run, painted)) for run, (own, painted, _) in runs.items()]
        columns = dict(column for pair in pairs for column in pair)
    return {"holes": page(columns | {"truth": truth})}


def columns_of(shown: dict[str, np.ndarray]) -> np.ndarray:
    """(3, rows, S, S, 3)"""
    return np.moveaxis(shown["holes"], 1, 0)


def page(columns: dict[str, np.ndarray]) -> Image.Image:
    """One page of {title: images (rows, S, S, 3)}."""
    side = pictures.cell(len(columns))
    return pictures.sheet([pictures.fit(column, side) for column in columns.values()], columns)
