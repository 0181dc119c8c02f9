"""The whole loop with a tiny untrained model and the real embedded world: train, compare, report."""

import base64
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch

from worldpack_agents.demo import DemoConfig, demo
from worldpack_agents.figures import video
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
    assert all(seed >= 950_000 for seed in data["world_seeds"]), "held-out worlds"
    assert data["provenance"]["commit"] is None or len(data["provenance"]["commit"]) >= 40
    assert len(data["replay"]["psnr_db"]) == len(data["replay"]["position_error_blocks"]) > 0


class Reader(HTMLParser):
    """Notes what a page refers to, and that every element that must be closed is, in order."""

    VOID = ("meta", "img", "br", "path", "rect", "use", "image")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.references: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.references += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


def test_report_page_needs_nothing_else(finished: Path) -> None:
    page = (finished / "report.html").read_text()
    reader = Reader()
    reader.feed(page)
    assert reader.open == []
    outside = [r for r in reader.references if not r.startswith(("data:image/", "#"))]
    assert outside == []
    assert "http" not in re.sub(r"data:image/[^'\"]*", "", page)
    assert sum(r.startswith("data:image/webp") for r in reader.references) == 4, "videos"
    assert reader.tags.count("svg") >= 4 + 2, "maps and charts"
    assert page.index("side by side") < page.index("<table>"), "pictures first"
    assert "{{" not in page
    inner = [r[1:] for r in reader.references if r.startswith("#")]
    assert all(f'id="{name}"' in page for name in inner)
    used, given = set(re.findall(r"var\(--(\w+)\)", page)), set(re.findall(r"--(\w+):", page))
    assert used <= given
    assert "#0102" not in page and "#0103" not in page and "#0104" not in page, "stand-in colours are all replaced"


def test_videos_show_both_frame_by_frame() -> None:
    from PIL import Image

    left, right = (np.full((5, 8, 8, 3), colour, np.uint8) for colour in (10, 200))
    left[:, 0, 0] = np.arange(5)[:, None] * 40
    picture = Image.open(io.BytesIO(base64.b64decode(video(left, right).partition(",")[2])))
    assert picture.n_frames == 5
    assert picture.size == (18, 8)
    for step in range(5):
        picture.seek(step)
        shown = np.asarray(picture.convert("RGB"))
        assert np.array_equal(shown[:, :8], left[step]), "lossless"
        assert np.array_equal(shown[:, 10:], right[step])
    with pytest.raises(ValueError, match="expected two equal"):
        video(left, right[:3])


def test_a_finished_demo_trains_no_more(finished: Path) -> None:
    before = sorted(p.name for p in (finished / "agent" / "checkpoints").iterdir())
    demo(DemoConfig(out=finished, model=str(finished.parent / "model"), smoke=True))
    assert sorted(p.name for p in (finished / "agent" / "checkpoints").iterdir()) == before
