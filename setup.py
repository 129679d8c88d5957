"""What pyproject.toml cannot say: targets/ lies beside the package, and travels in the wheel inside it, as edgekit/_targets."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["edgekit", "edgekit.*"]), "edgekit._targets"],
    package_dir={"edgekit._targets": "targets"},
    package_data={"edgekit": ["py.typed", "schema/*.json"], "edgekit._targets": ["**/*"]},
)
