"""The paper's networks: one description each, built natively in every framework.

`spec`, `families` and `weights` need NumPy alone; `torch`, `tensorflow` and `jax` hold an
`AnytimeNet` each. Nothing is imported here:
`from loss_balance.reference_models.torch import AnytimeNet` loads torch alone.
"""
