"""Training one network, the same in every framework."""
