"""The problems: weather, digits and their measures, early exits, two differential equations."""
