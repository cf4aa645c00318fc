"""Where images come from: sources, their order, the random draws of every view, and the pipelines that make batches."""
