"""Folders of deployment files: what is in one, and how one is written. NumPy only.

Each framework's `exporting` fills them; `reference_models.onnx` reads those of ONNX.
"""

from loss_balance.reference_models.exports.about import About, Exit, of_spec
from loss_balance.reference_models.exports.writing import Written

__all__ = ["About", "Exit", "Written", "of_spec"]
