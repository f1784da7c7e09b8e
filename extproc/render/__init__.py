"""Renders configuration: Envoy bootstraps and the resources of meshes, for `extproc render`."""
