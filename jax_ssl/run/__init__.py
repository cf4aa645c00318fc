"""Everything around the training loop: checks, first lines, files that a run writes, and how it survives failures."""
