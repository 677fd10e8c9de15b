"""The problems: hourly weather, an early-exit network, a Poisson and a Burgers equation."""
