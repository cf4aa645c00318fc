"""What surrounds the loop of a run: what it checks and tells first, what it writes, how it survives."""
