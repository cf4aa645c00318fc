"""How fast a training step is, and how fast a host prepares images."""
