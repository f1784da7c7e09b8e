"""One module for each provider API: which places of its documents hold text, and the shape of its refusals."""
