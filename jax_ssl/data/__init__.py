"""Where images come from: data sources, the order of their images, and the pipelines that make batches."""
