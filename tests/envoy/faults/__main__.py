"""Write the tables of docs/reliability.md: `python -m tests.envoy.faults`."""

from __future__ import annotations

from tests.envoy.faults.page import PAGE, current

PAGE.write_text(current(PAGE.read_text()))
