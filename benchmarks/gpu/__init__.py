"""What one call on a GPU brings back: `benchmarks/gpu.sh` runs a module of this folder per part."""
