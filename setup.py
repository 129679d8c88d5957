"""What pyproject.toml cannot say: targets/ lies beside the package, and travels in the wheel inside it, as edgekit/_targets."""

from setuptools import find_namespace_packages, find_packages, setup

_TARGETS = "edgekit._targets"

setup(
    packages=[
        *find_packages(include=["edgekit", "edgekit.*"]),
        _TARGETS,
        *(f"{_TARGETS}.{folder}" for folder in find_namespace_packages("targets")),
    ],
    package_dir={_TARGETS: "targets"},
    package_data={"edgekit": ["py.typed", "schema/*.json"], _TARGETS: ["**/*"]},
)
