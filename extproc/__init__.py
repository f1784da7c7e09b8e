"""Envoy external processor that puts Aim Security's guards on LLM traffic.

Envoy opens one gRPC stream for each HTTP exchange. `processor` serves it: `processor.wire` decodes Envoy's messages to
events, `processor.driver` hands each event to the exchange and performs the commands that it returns. Verdicts of Aim
and deadlines come back as events.

`core` decides. `core.exchange.Exchange` takes an event and the time, and returns commands. It does no I/O and reads no
clock. Its two legs, and streamed answers, are state machines written as tables. `core.dialects` knows the providers'
APIs; `core.content` reads and rewrites bodies so that unchanged bytes stay unchanged.

All packages, lowest first. A package imports only from lower ones; an import contract checks it.

    core                      decides
    config                    the settings, where they come from, and the keys
    telemetry                 metrics, logs, the audit log and traces, without prompts or answers
    aim                       the client of Aim: detections over REST, sessions over websocket
    processor                 the ext_proc service
    render, admin, report     configuration for Envoy and the meshes; the admin port; reports from the audit log
    check, serve, local_aim   finds problems of a deployment; the serving process; an Aim for trials
    demo                      everything on one machine, with a real Envoy
    cli                       the commands

docs/architecture.md says more.
"""

from importlib.metadata import version

__version__ = version("aim-extproc")
