"""One file a method; the file name is its name in the config. Each has `make(backbone, clock, **config.method)`."""
