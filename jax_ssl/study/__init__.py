"""Measures and draws finished runs and files of weights; runs suites of small runs; makes the table of seals."""
