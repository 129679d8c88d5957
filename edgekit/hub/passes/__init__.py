"""The passes of the hub, one subject per file. `edgekit.hub.prepare` lists them in their order."""
