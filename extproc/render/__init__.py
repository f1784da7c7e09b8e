"""What `extproc render` prints: Envoy bootstraps and the resources of meshes."""
