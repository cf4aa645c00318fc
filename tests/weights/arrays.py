"""What is in a file of weights, read as a whole."""

import numpy as np

from jax_ssl.weights.read import networks, open_file


def read(path) -> dict[str, np.ndarray]:
    """{name: array} of the only network of a file, in the file's own dtypes."""
    found = networks(open_file(path).tree)
    (tensors,) = [found[""]] if "" in found else found.values()
    return {name: np.asarray(tensor) for name, tensor in tensors.items()}
