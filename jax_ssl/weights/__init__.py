"""Given weights, from a run folder or from an official file of another library, as one `Encoder`."""

from jax_ssl.weights.load import load, load_mae, load_predictor

__all__ = ["load", "load_mae", "load_predictor"]
