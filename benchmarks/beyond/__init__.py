"""The study of docs/results/beyond.md: what beats AdaLoss, trained and tabulated by one command."""
