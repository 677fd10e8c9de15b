"""What a network is made of, without a framework: parts, their costs and their weights."""
