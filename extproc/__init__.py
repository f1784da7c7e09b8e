"""Envoy external processor that puts Aim Security's guards on LLM traffic.

Envoy opens one gRPC stream for each HTTP exchange. `processor` serves it: `processor.wire` decodes Envoy's messages to
events, `processor.driver` hands each event to the exchange and performs the commands that it returns. Verdicts of Aim
and deadlines come back as events.

`core` decides. `core.exchange.Exchange` takes an event and the time, and returns commands. It does no I/O and reads no
clock. Its two legs, and streamed answers, are state machines written as tables. `core.dialects` knows the providers'
APIs; `core.content` reads and rewrites bodies so that unchanged bytes stay unchanged.

The other packages, from the lowest to the highest (a package imports only from lower ones; import contracts check it):

    config       the settings, where they come from, and the keys
    telemetry    metrics, logs, the audit log and traces, none with content
    aim          the client of Aim: detections over REST, sessions over websocket
    render       configuration for Envoy and the meshes
    admin        the admin port: health, metrics and the status page
    serve        one serving process or several: start, reload and drain
    check, demo, local_aim   finding problems of a deployment; trials without an account
    cli          the commands

docs/architecture.md says more.
"""

from importlib.metadata import version

__version__ = version("aim-extproc")
