"""The whole loop with a tiny untrained model and the real embedded world: train, compare, report."""

import json
import re
from pathlib import Path

import pytest
import torch

from worldpack_agents.demo import DemoConfig, demo
from worldpack_agents.report import COLUMNS, table_rows
from worldpack_model.checkpoint import save_model
from worldpack_model.config import PRESETS
from worldpack_model.world_model import WorldPack


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("demo")
    torch.manual_seed(0)
    save_model(WorldPack(PRESETS["debug"]).eval(), out / "model")
    result = demo(DemoConfig(out=out / "run", model=str(out / "model"), smoke=True))
    assert len(table_rows(result.data)) == 4
    return out / "run"


def test_report_json_says_everything(finished: Path) -> None:
    data = json.loads((finished / "report.json").read_text())
    assert [a["agent"] for a in data["agents"]] == ["agent", "random"]
    for agent in data["agents"]:
        for where in ("real", "imagined"):
            assert agent[where]["episodes"] == 6
            for key, _, _ in COLUMNS:
                assert agent[where][key]["low"] <= agent[where][key]["mean"] <= agent[where][key]["high"]
    assert all(950_000 <= seed for seed in data["world_seeds"]), "held-out worlds"
    assert data["provenance"]["commit"] is None or len(data["provenance"]["commit"]) >= 40
    assert len(data["replay"]["psnr_db"]) == len(data["replay"]["position_error_blocks"]) > 0


def test_report_page_needs_nothing_else(finished: Path) -> None:
    page = (finished / "report.html").read_text()
    sources = re.findall(r"src='([^']{0,30})", page)
    assert len(sources) >= 5
    assert all(source.startswith("data:image/") for source in sources)
    assert "http" not in re.sub(r"data:image/[^']*", "", page)
    assert page.index("side by side") < page.index("<table>"), "pictures first"


def test_a_finished_demo_trains_no_more(finished: Path) -> None:
    before = sorted(p.name for p in (finished / "agent" / "checkpoints").iterdir())
    demo(DemoConfig(out=finished, model=str(finished.parent / "model"), smoke=True))
    assert sorted(p.name for p in (finished / "agent" / "checkpoints").iterdir()) == before
