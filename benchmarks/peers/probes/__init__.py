"""One module for each thing that is measured; each takes a way and says what came."""
