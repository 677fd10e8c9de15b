"""A learner in each framework, what they have in common, and how one is made."""
