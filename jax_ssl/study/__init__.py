"""What is done with finished runs and files of weights: numbers, pictures, suites, seals."""
