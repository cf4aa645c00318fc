"""How far a value is from a recorded one."""

import numpy as np


def relative_error(value, golden):
    """Norm of the difference over the norm of `golden`; arrays of one shape."""
    return np.linalg.norm(np.asarray(value) - golden) / np.linalg.norm(golden)
