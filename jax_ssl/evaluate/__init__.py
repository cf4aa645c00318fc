"""Measures of a network: kNN, linear probe, fine-tuning, attention against object outlines."""
