"""The `loss-balance` command: train networks with several weight schemes and compare them."""
