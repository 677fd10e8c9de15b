"""The study of docs/beyond.md: what beats AdaLoss, trained and tabulated by one command."""
