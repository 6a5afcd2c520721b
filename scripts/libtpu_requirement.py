"""Prints the requirement on libtpu of the installed JAX, which works with one only."""

from importlib.metadata import requires

for requirement in requires("jax") or []:
    name, _, marker = requirement.partition(";")
    if name.startswith("libtpu") and "'tpu'" in marker.replace('"', "'"):
        print(name.strip())
