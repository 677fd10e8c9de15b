"""What any function multiplies and adds, as its framework tells: one module each.

All count what `AnytimeSpec.costs` counts: convolutions and matrix products, padding included, one
multiply-add for two operations; nothing else.
"""
