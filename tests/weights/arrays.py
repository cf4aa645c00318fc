"""What is in a file of weights, read as a whole."""

import numpy as np

from jax_ssl.weights.find import choose
from jax_ssl.weights.read import networks, open_file


def read(path) -> dict[str, np.ndarray]:
    """{name: array} of the only network of a file, in the file's own dtypes. Raises UserError as the library does."""
    file = open_file(path)
    found = networks(file.tree)
    if not found:
        choose(file, None)  # says that there is none
    (tensors,) = [found[""]] if "" in found else found.values()
    return {name: np.asarray(tensor) for name, tensor in tensors.items()}
