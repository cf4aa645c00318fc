"""The verbs of `python -m jax_ssl`: one file each, with its HELP, its flags, its checks and its call."""
