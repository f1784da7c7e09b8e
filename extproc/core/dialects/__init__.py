"""The providers' APIs as tables of rules, the walker that reads documents by them, and the shapes of refusals."""
