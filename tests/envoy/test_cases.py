"""A table of exchanges through a real Envoy: what is sent and answered, and what client, upstream and Aim get.

The rows are in the modules `cases_*`, the harness is `tests.envoy.case`.
"""

from __future__ import annotations

from collections import Counter

import pytest

from tests.envoy import (
    cases_aim,
    cases_answers,
    cases_bedrock,
    cases_dialects,
    cases_encodings,
    cases_files,
    cases_http,
    cases_mcp,
    cases_others,
)
from tests.envoy.case import Case, run
from tests.fakes.rig import Rigs

ROWS: list[Case] = [
    *cases_dialects.ROWS,
    *cases_others.ROWS,
    *cases_bedrock.ROWS,
    *cases_files.ROWS,
    *cases_mcp.ROWS,
    *cases_encodings.ROWS,
    *cases_http.ROWS,
    *cases_aim.ROWS,
    *cases_answers.ROWS,
]


@pytest.mark.asyncio(loop_scope="package")
@pytest.mark.parametrize("case", ROWS, ids=lambda case: case.id)
async def test_exchange_matches_its_row(rigs: Rigs, case: Case) -> None:
    await run(rigs, case)


def test_every_row_has_a_name_of_its_own() -> None:
    assert [name for name, count in Counter(case.id for case in ROWS).items() if count > 1] == []
