"""The commands of `loss-balance`, a module each."""
