"""Faults that are not an exchange's, so that they have no row in the matrix: what happens, and the tests for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Other:
    """A fault, what happens, and the tests, each as a path and a name below `tests/`."""

    fault: str
    outcome: str
    tests: tuple[str, ...]


_AUDIT = "telemetry/test_audit_serving.py"
_WORKERS: Final = "serve/test_workers.py"
_SOCKET: Final = "serve/test_unix_socket.py"

OTHERS: Final = [
    Other(
        "a stranger holds 560 connections to the admin port, idle or with half a request",
        "probes, metrics and the page are answered; the stranger loses its oldest connections",
        (
            "admin/test_port.py::test_port_answers_whatever_a_stranger_holds_open",
            "admin/test_port.py::test_stranger_takes_only_its_own_places",
        ),
    ),
    Other(
        "a web page reads the admin port through a name of its own",
        "421, except for probes",
        ("admin/test_host.py::test_only_probes_may_use_a_strange_name",),
    ),
    Other(
        "connections to the listener say nothing, or garbage, or end half a handshake",
        "they are closed in time, and others are served",
        (
            "serve/test_ports.py::test_half_open_connection_is_closed_in_time",
            "serve/test_ports.py::test_garbage_in_plain_text_leaves_nothing_behind",
            "serve/test_ports.py::test_garbage_instead_of_tls_leaves_nothing_behind",
        ),
    ),
    Other(
        "Envoy's ping arrives while the process is busy",
        "it is answered at once",
        ("serve/test_ports.py::test_ping_of_envoy_is_answered_while_the_event_loop_is_busy",),
    ),
    Other(
        "a call fails late, while the breaker's probe is under way",
        "the breaker admits no second probe",
        ("aim/test_breaker.py::test_end_of_an_earlier_call_says_nothing_about_the_probe",),
    ),
    Other(
        "the breaker's probe ends without a result",
        "the breaker admits another",
        ("aim/test_breaker.py::test_probe_that_ends_without_a_result_allows_another",),
    ),
    Other(
        "an internal error before a gRPC stream is served",
        "the stream is not counted, so a drain does not wait for it",
        ("processor/test_servicer.py::test_stream_that_cannot_be_made_is_not_counted",),
    ),
    Other(
        "the gauge of streams cannot be written",
        "the exchange is served; it counts until its end and no longer, so a drain does not wait in vain",
        ("processor/test_counts.py::test_gauge_that_fails_leaves_no_stream_behind",),
    ),
    Other(
        "Envoy does not take a refusal or a rewritten body",
        "it counts as held until Envoy takes it",
        (
            "processor/test_counts.py::test_message_that_envoy_does_not_take_counts_as_held",
            "processor/test_counts.py::test_rewritten_answer_that_envoy_does_not_take_counts_as_held",
        ),
    ),
    Other(
        "Aim reads less than the model writes",
        "reading from Envoy pauses once 64 KiB wait for Aim",
        ("processor/test_servicer.py::test_aim_that_is_behind_pauses_reading",),
    ),
    Other(
        "a key file is rewritten in place",
        "the old key or the new one is used, not a part of it, unless the writer pauses for 0.1 s in the middle. "
        "Then that part is used until about a second after the rest has come",
        (
            "config/test_keys.py::test_file_that_is_rewritten_in_place_gives_the_old_or_the_new_key",
            "config/test_keys.py::test_first_key_is_not_a_part_of_one_either",
        ),
    ),
    Other(
        "reading the settings file, or a file that it names, hangs",
        "the old settings stay in force; traffic and probes go on; a record says so",
        (
            "serve/test_serve.py::TestReload::test_file_that_hangs_stops_nothing",
            "serve/test_reload.py::test_file_that_hangs_stops_nothing",
        ),
    ),
    Other(
        "the settings file is rewritten in place",
        "the old settings stay in force until it has not changed for 0.5 s, at most 10 s; an empty file is refused",
        (
            "serve/test_reload.py::test_file_that_is_rewritten_in_steps_is_read_once_it_is_whole",
            "serve/test_serve.py::TestReload::test_emptied_file_is_refused",
        ),
    ),
    Other(
        "reading a key file begins to hang",
        "the last key stays in use; a record says so",
        ("config/test_keys.py::test_file_that_begins_to_hang_is_told_when_its_key_is_used",),
    ),
    Other(
        "the start waits for a file that hangs",
        "it says so on stderr after 5 s, and waits",
        ("serve/test_serve.py::TestServe::test_start_that_hangs_is_told",),
    ),
    Other(
        "the soft limit of open files is low, or standard error is closed",
        "the process raises its limit; no socket gets the number of standard error",
        (
            "serve/test_serve.py::TestServe::test_process_repairs_what_it_is_started_with",
            "serve/test_serve.py::TestServe::test_too_low_a_limit_of_open_files_is_told",
        ),
    ),
    Other(
        "a worker hangs, and the process is told to stop, twice",
        "it is killed 8 s after the second signal, or after the drain",
        ("serve/test_workers.py::test_second_signal_ends_workers_that_hang_too",),
    ),
    Other(
        "reading a certificate hangs",
        "the last one stays in use; new connections are served",
        ("serve/test_serve.py::TestServe::test_certificate_that_hangs_stops_nothing",),
    ),
    Other(
        "a look-up of Aim's name hangs while the process stops",
        "the process ends all the same",
        ("serve/test_serve.py::TestLookUp::test_look_up_that_hangs_does_not_delay_the_end",),
    ),
    Other(
        "TLS handshakes fail, thousands of times",
        "the log says so once in 10 s, and nothing blocks",
        (
            "telemetry/test_grpc_log.py::test_failed_handshake_is_logged",
            "telemetry/test_grpc_log.py::test_failed_handshakes_block_nothing_while_nobody_reads",
        ),
    ),
    Other(
        "nothing reads the log, or the audit log on stdout",
        "lines are lost and counted; traffic goes on",
        (
            "telemetry/test_logging.py::test_lines_wait_for_a_reader_that_stopped",
            "telemetry/test_audit.py::test_stopped_reader_of_stdout_delays_nothing",
        ),
    ),
    Other(
        "writing the audit file hangs",
        "up to 8192 lines, of at most 8 MiB, wait; older ones are lost and counted; starts, traffic and stops go on",
        (
            f"{_AUDIT}::test_file_that_hangs_stops_no_start_no_traffic_and_no_end",
            "telemetry/test_audit.py::test_stopped_reader_of_a_named_pipe_delays_nothing",
            "config/test_settings.py::test_audit_file_that_hangs_prevents_no_start",
        ),
    ),
    Other(
        "two processes start at once on one unix socket",
        "one listens, the other ends with an error",
        (f"{_SOCKET}::test_of_two_that_start_at_once_one_listens",),
    ),
    Other(
        "a process is killed while it opens its unix socket",
        "the next one removes what is left",
        (f"{_SOCKET}::test_what_a_killed_process_left_is_removed",),
    ),
    Other(
        "a worker hangs",
        "503 from `/readyz` after 5 s; it is killed after a minute, and started again",
        (
            f"{_WORKERS}::test_worker_that_hangs_is_not_ready",
            f"{_WORKERS}::test_worker_that_hangs_for_long_is_restarted",
        ),
    ),
    Other(
        "a worker hangs at its start",
        "it is killed after three minutes and started again, after longer pauses each time, up to 10 s",
        (f"{_WORKERS}::test_worker_that_hangs_at_its_start_is_restarted",),
    ),
    Other(
        "a worker is restarted while reading a key hangs",
        "it serves after seconds; until the key can be read, it fails detections with `key_refused`",
        (f"{_WORKERS}::test_worker_is_restarted_though_its_key_cannot_be_read",),
    ),
    Other(
        "a worker is restarted while reading `aim.ca_file` or a certificate hangs",
        "it hangs at its start, see above; the other workers serve, but `/readyz` is 503",
        (f"{_WORKERS}::test_worker_that_hangs_at_its_start_is_restarted",),
    ),
    Other(
        "the supervisor is killed",
        "its workers drain and end",
        (f"{_WORKERS}::test_no_worker_outlives_its_supervisor",),
    ),
]
