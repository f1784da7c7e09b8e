"""The tests of recorded traffic run wherever its folder is. Only without the folder are they skipped."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fakes.recorded import FOLDERS, SHARED, recorded


@pytest.mark.corpus
@pytest.mark.skipif(not SHARED.is_dir(), reason="no recorded traffic beside the checkout")
@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_each_folder_has_recorded_traffic(folder: Path) -> None:
    found = recorded(folder)
    assert any(each.request for each in found)
    assert any(each.response for each in found)


def test_recorded_traffic_may_be_missing_only_as_a_whole(tmp_path: Path) -> None:
    assert recorded(tmp_path / "shared" / "corpus") == []
    (tmp_path / "shared" / "corpus").mkdir(parents=True)
    for name in ("corpus", "recordings"):
        with pytest.raises(FileNotFoundError, match="no recorded traffic"):
            recorded(tmp_path / "shared" / name)
