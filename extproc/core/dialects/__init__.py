"""One module for each provider API: the places of its documents that hold text, and the shape of its refusals."""
