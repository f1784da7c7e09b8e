"""`extproc demo`: runs the sidecar on one machine with a real Envoy, a model and Aim, and shows five scenes.

    plan -> chain (child, envoy, model, observed) -> client -> scenes -> screen, all led by show

Only this package may print prompts and answers, because they are its own or its user's.
"""

from extproc.core.errors import ExtprocError


class DemoFailed(ExtprocError):
    """The demo cannot continue; the message tells the user why."""
