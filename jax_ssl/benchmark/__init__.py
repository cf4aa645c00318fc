"""How fast a step computes, and how fast a host prepares images."""
