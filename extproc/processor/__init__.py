"""The ext_proc service: one gRPC stream of Envoy is one exchange."""
