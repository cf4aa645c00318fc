"""Experiments: one file a method, presets by name, `configs/simclr.py:cifar`. Installed as `jax_ssl.configs`."""
