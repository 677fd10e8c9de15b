"""Finds the packages of the wheel; all else about it is in pyproject.toml.

The root folders are packages inside `loss_balance`, whether or not its links to them were checked
out as links. pyproject.toml's own `packages.find` knows no such prefix.
"""

from setuptools import find_packages, setup

ROOTS = {f"loss_balance.{name}": name for name in ("backends", "reference_models", "experiments")}
LINKS = [pattern for name in ROOTS.values() for pattern in (name, f"{name}.*")]

packages = [f"loss_balance.{name}" for name in find_packages("loss_balance", exclude=LINKS)]
for package, folder in ROOTS.items():
    packages += [package, *(f"{package}.{name}" for name in find_packages(folder))]

setup(packages=["loss_balance", *packages], package_dir=ROOTS)
