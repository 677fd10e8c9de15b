"""An anytime network as a service: who is answered when, and the shell that speaks HTTP."""
