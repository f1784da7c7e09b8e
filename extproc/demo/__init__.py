"""`extproc demo`: the sidecar at work on one machine, between a real Envoy, a model and Aim.

    plan -> chain (child, envoy, model, observed) -> client -> scenes -> screen, all led by show

This package alone may print texts: those that pass here are its own, or its user's.
"""

from extproc.core.errors import ExtprocError


class DemoFailed(ExtprocError):
    """The demo cannot go on; the message says why, in words for its user."""
