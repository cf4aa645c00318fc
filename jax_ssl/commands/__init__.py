"""What is typed behind `python -m jax_ssl`: one file a verb, with its HELP, its flags, its checks and its call."""
