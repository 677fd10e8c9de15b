"""How well schemes train, ours and other packages', on problems that others have set."""
