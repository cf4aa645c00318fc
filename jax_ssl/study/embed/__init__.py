"""Features of a folder of images as a file: made batch by batch, taken up again after a kill, in three formats."""
