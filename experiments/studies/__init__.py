"""What is asked of runs: comparisons of schemes, ensembles."""
