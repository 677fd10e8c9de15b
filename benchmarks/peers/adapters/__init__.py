"""Other packages' balancers, ours and none, each behind `benchmarks.peers.interface.Way`."""
