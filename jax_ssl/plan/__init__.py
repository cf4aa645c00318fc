"""Programs for TPU pods that you don't have: whether they fit, how fast they can be at most, and what is published."""
