"""The families of the paper, each as a function that gives an `AnytimeSpec`."""
