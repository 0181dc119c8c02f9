"""Whatever a worker does wrong is one clear error in time, never a picture; none of it needs MineRL."""

import ast
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from worldpack_env.worlds import BackendUnavailable, World, minerl_worker
from worldpack_env.worlds.minerl import WORKER as minerl_worker_path
from worldpack_env.worlds.minerl import MineRLWorld, Patience, find_python, find_server
from worldpack_env.worlds.worker_process import WorkerFault, WorkerProcess, WorkerRefusal

WORKER = Path(__file__).with_name("faulty_minerl_worker.py")
FORWARD = np.array([1, 0, 0, 0, 0, 0, 0, 0, 400.0], np.float32)
STRAIGHT = np.array([1, 0, 0, 0, 0, 0, 0, 0, 0], np.float32)
QUICK = Patience(connect=30.0, open=30.0, reset=10.0, step=10.0, close=5.0)
SHORT = Patience(connect=30.0, open=30.0, reset=1.0, step=1.0, close=1.0)

Make = Callable[..., MineRLWorld]


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    made: list[MineRLWorld] = []

    def maker(
        fault: str = "none@none", *, patience: Patience = QUICK, restarts: int = 0, once: Path | None = None, mission: str | None = None
    ) -> MineRLWorld:
        monkeypatch.setenv("FAULT", fault)
        if once is not None:
            monkeypatch.setenv("FAULT_ONCE", str(once))
        settings = {"patience": patience, "restarts": restarts, "mission": mission}
        made.append(MineRLWorld(python=sys.executable, worker=WORKER, backend="auto", **settings))  # type: ignore[arg-type]
        return made[-1]

    yield maker
    for world in made:
        world.close()


def pid_of(world: MineRLWorld) -> int:
    assert world._worker is not None
    return world._worker.pid


def gone(pid: int) -> bool:
    """True if the process is ended and was waited for."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_a_good_worker(make: Make) -> None:
    world = make()
    assert isinstance(world, World)
    view = world.reset(3, [1.5, 70.0, 2.5, 0.0, 10.0])
    assert view.pose.tolist() == [1.5, 70.0, 2.5, 0.0, 10.0] and not view.blocked
    view = world.step(FORWARD)
    assert view.pose == pytest.approx([1.5, 70.0, 2.9, 40.0, 10.0]), "the yaw is wrapped"
    assert view.frame.shape == (64, 64, 3) and (view.frame == 4).all(), "the picture is the one after the last tick"
    assert world.solid([0, 60, 0], (2, 2, 2)) is None, "not surveyed"
    with pytest.raises(RuntimeError, match="before the first step"):
        world.surface()
    pid = pid_of(world)
    world.close()
    world.close()
    assert gone(pid)
    with pytest.raises(RuntimeError, match="closed"):
        world.reset(3)


def test_survey(make: Make) -> None:
    world = make()
    with pytest.raises(RuntimeError, match=r"Call reset\(\) before surface"):
        world.surface()
    world.reset(5, [0.5, 65.0, 0.5, 90.0, 0.0])
    surface = world.surface()
    assert surface.origin == (-96, -96) and surface.heights.shape == (192, 192)
    assert (surface.heights == 65).all() and surface.walkable.all()
    box = world.solid([0, 64, 0], (1, 2, 1))
    assert box is not None and box.ravel().tolist() == [True, False]
    assert world.solid([0, 54, 0], (1, 2, 1)) is None, "below what was surveyed"
    view = world.step(FORWARD)
    assert view.pose[:3] == pytest.approx([0.5, 65.0, 0.9]), "the episode goes on from its start"
    assert world.surface().heights.shape == (192, 192), "known worlds are not surveyed again"


def test_a_survey_that_does_not_bear_the_player_is_no_surface(make: Make) -> None:
    world = make("sinks@step")
    world.reset(5)
    with pytest.raises(BackendUnavailable, match="does not bear the player.*from_episodes"):
        world.surface()
    assert world.solid([0, 64, 0], (1, 2, 1)) is None


def test_what_minestudio_says_of_blocks_is_read_or_refused() -> None:
    centre, box = (40, 70, -50), (-2, 1, -1, 0, 0, 2)
    places = [(-2, -1, 0), (1, 0, 2), (0, -1, 1)]
    for origin in ((0, 0, 0), centre):
        told = [
            {"type": name, "x": x + origin[0], "y": y + origin[1], "z": z + origin[2]}
            for name, (x, y, z) in zip(("stone", "oak_log", "stone"), places, strict=True)
        ]
        names, ids = {"air": 0}, np.full((2, 3, 4), 9, np.uint16)
        minerl_worker.read_voxels(told, centre, box, names, ids)
        assert names == {"air": 0, "stone": 1, "oak_log": 2}
        assert [int(ids[y + 1, z, x + 2]) for x, y, z in places] == [1, 2, 1] and (ids == 0).sum() == 21, "what is not told is air"
    for wrong in (None, [{"name": "stone"}], [{"type": "stone", "x": 3, "y": 0, "z": 0}], {"block_name": [["stone"]]}):
        with pytest.raises(minerl_worker.EngineError, match="MineStudio tells blocks"):
            minerl_worker.read_voxels(wrong, centre, box, {"air": 0}, ids)


def test_an_engine_that_tells_no_blocks_says_what_to_do_instead() -> None:
    engine = object.__new__(minerl_worker.MineRLEngine)
    engine.name, engine.backend = "minerl", minerl_worker.BACKENDS["minerl"]
    with pytest.raises(minerl_worker.SetupError, match="start_at"):
        engine.survey(0, [0, 0], [8, 8], 4, 4)
    with pytest.raises(minerl_worker.SetupError, match="no MineRL backend 'minerrl'"):
        minerl_worker.find_backend("minerrl")
    ast.parse(minerl_worker_path.read_text(), feature_version=(3, 8))
    assert minerl_worker.decimal(1e-7) == "0.0000001" and minerl_worker.decimal(-12.5) == "-12.5"


FAULTS = [
    ("delays", "did not answer '{where}' within 1 s"),
    ("half", "did not answer '{where}' within 1 s"),
    ("garbage", "bytes that are no message"),
    ("no-json", "no JSON object"),
    ("size", "12285 bytes of data, expected 12288"),
    ("large", "12291 bytes of data, expected 12288"),
    ("stale", "answered request"),
    ("poseless", "without"),
    ("dies", "ended with status 7.*OutOfMemoryError"),
]


@pytest.mark.parametrize("where", ["reset", "step"])
@pytest.mark.parametrize(("fault", "message"), FAULTS)
def test_every_fault_is_told_in_time(make: Make, fault: str, message: str, where: str) -> None:
    world = make(f"{fault}@{where}", patience=SHORT if fault in ("delays", "half") else QUICK)
    pid = None
    if where == "step":
        world.reset(0)
        pid = pid_of(world)
    before = time.monotonic()
    with pytest.raises(BackendUnavailable, match=message.format(where=where)):
        world.step(FORWARD) if where == "step" else world.reset(0)
    assert time.monotonic() - before < 15.0
    if pid is not None:
        assert gone(pid), "a worker that failed is ended"
        with pytest.raises(RuntimeError, match=r"Call reset\(\)"):
            world.step(FORWARD)


@pytest.mark.parametrize(("fault", "message"), [("raises", "Connection timed out"), ("nan", "without 4 poses")])
def test_what_the_engine_reports_is_no_transition(make: Make, fault: str, message: str) -> None:
    world = make(f"{fault}@step")
    world.reset(0)
    with pytest.raises(BackendUnavailable, match=message):
        world.step(FORWARD)


def test_a_mission_of_minerls_own_is_handed_on(make: Make) -> None:
    world = make(mission="navigate")
    told = world.reset(0).mission
    assert told is not None and told[:4] == (0.25, False, False, -170.0) and np.isnan(told.distance), "the compass is wrapped"
    for _ in range(2):
        view = world.step(STRAIGHT)
        assert view.mission is not None and not view.mission.done and view.mission.reward == 0.25
    view = world.step(STRAIGHT)
    assert view.mission is not None and view.mission.done and view.mission.success
    assert view.pose[2] == pytest.approx(0.5 + 10 * 0.1) and not view.blocked, "it ends in the middle of a step"
    with pytest.raises(RuntimeError, match=r"Call reset\(\)"):
        world.step(STRAIGHT)
    assert world.reset(0).mission == pytest.approx(told, nan_ok=True), "the next mission"
    assert make().reset(0).mission is None


@pytest.mark.parametrize("fault", ["short", "nan-compass", "won-early"])
def test_a_mission_that_is_told_wrongly_is_no_transition(make: Make, fault: str) -> None:
    world = make(f"{fault}@reset", mission="navigate-dense")
    with pytest.raises(WorkerFault, match="without reward, end and compass"):
        world.reset(0)


def test_only_engines_that_play_a_mission_are_asked_to() -> None:
    with pytest.raises(ValueError, match="navigate, navigate-dense"):
        MineRLWorld(python=sys.executable, mission="treechop")
    assert [name for name, backend in minerl_worker.BACKENDS.items() if backend.missions] == ["minerl-0.4"]
    assert set(minerl_worker.MISSIONS) == set(MineRLWorld.missions)


def test_restarts_are_bounded(make: Make, tmp_path: Path) -> None:
    world = make("dies@reset", restarts=2, once=tmp_path / "mark")
    assert world.reset(0).frame.shape == (64, 64, 3), "the second try works"
    world = make("dies@reset", restarts=2, once=tmp_path / "no such folder" / "mark")
    with pytest.raises(BackendUnavailable):
        world.reset(0)
    assert world._faults == 3
    with pytest.raises(BackendUnavailable, match="3 times in a row"):
        world.reset(0)


def test_a_failed_reset_leaves_no_episode_of_before(make: Make, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    mark.touch()
    world = make("dies@reset", once=mark)
    world.reset(0)
    mark.unlink()
    with pytest.raises(BackendUnavailable):
        world.reset(1)
    with pytest.raises(RuntimeError, match=r"Call reset\(\)"):
        world.step(FORWARD)


def test_a_refusal_is_not_tried_again(make: Make) -> None:
    world = make("refuses@open", restarts=5)
    with pytest.raises(WorkerRefusal, match="install one"):
        world.reset(0)
    assert world._faults == 0 and world._worker is None


@pytest.mark.parametrize(("fault", "message"), [("never-connects", "did not connect within 1 s"), ("ends-at-once", "before it connected.*no module")])
def test_a_worker_that_does_not_come_up(make: Make, fault: str, message: str) -> None:
    world = make(fault, patience=Patience(connect=1.0 if fault == "never-connects" else 30.0))
    with pytest.raises(WorkerFault, match=message):
        world.reset(0)


def test_only_the_token_opens_the_door(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    true_create = socket.create_server
    intruders = []

    def create_server(*arguments: object, **options: object) -> socket.socket:
        listener = true_create(*arguments, **options)  # type: ignore[arg-type]
        intruder = socket.create_connection(listener.getsockname())
        intruder.sendall(b"0" * 64)
        intruders.append(intruder)
        return listener

    monkeypatch.setattr(socket, "create_server", create_server)
    world = make()
    assert world.reset(0).pose[1] == 4.0
    assert intruders[0].recv(1) == b"", "it was turned away"
    intruders[0].close()


def test_children_of_a_worker_end_with_it(tmp_path: Path) -> None:
    script = tmp_path / "worker.py"
    script.write_text(
        "import subprocess, sys, socket, time\n"
        "token = sys.stdin.readline().strip()\n"
        "child = subprocess.Popen(['sleep', '60'], start_new_session=True)\n"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(child.pid))\n"
        "sock = socket.create_connection(('127.0.0.1', int(sys.argv[1])))\n"
        "sock.sendall(token.encode())\n"
        "time.sleep(60)\n"
    )
    process = WorkerProcess([sys.executable, str(script)], connect_seconds=30.0)
    child = int((tmp_path / "pid").read_text())
    os.kill(child, 0)
    process.kill()
    deadline = time.monotonic() + 5.0
    while not gone(child) and time.monotonic() < deadline and "Z" not in Path(f"/proc/{child}/stat").read_text():
        time.sleep(0.05)
    state = "" if gone(child) else Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0]
    assert state in ("", "Z"), "Minecraft runs in a session of its own and ends all the same"
    assert gone(process.pid)


def test_ctrl_c_in_the_middle_of_an_answer_ends_the_worker(make: Make) -> None:
    world = make("delays@step")
    world.reset(0)
    pid = pid_of(world)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.5)
    try:
        with pytest.raises(KeyboardInterrupt):
            world.step(FORWARD)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert gone(pid)


def test_settings_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLDPACK_MINERL_PYTHON", raising=False)
    monkeypatch.delenv("WORLDPACK_MINERL_SERVER", raising=False)
    with pytest.raises(BackendUnavailable, match="worldpack doctor minerl"):
        MineRLWorld()
    with pytest.raises(BackendUnavailable, match="no program"):
        find_python("/no/such/python")
    with pytest.raises(ValueError, match="frame_size"):
        MineRLWorld((32, 64), python=sys.executable)
    with pytest.raises(ValueError, match="restarts"):
        MineRLWorld(python=sys.executable, restarts=-1)
    assert find_server() is None
    assert find_server("127.0.0.1:9000") == find_server(9000) == 9000
    for wrong in ("example.org:9000", "0", "70000", "port"):
        with pytest.raises(ValueError, match="on this machine"):
            find_server(wrong)
    world = MineRLWorld(python=sys.executable)
    with pytest.raises(RuntimeError, match=r"Call reset\(\)"):
        world.step(FORWARD)
    with pytest.raises(ValueError, match="pose"):
        world.reset(0, [0.0, 1.0])
    with pytest.raises(ValueError, match="action"):
        world.step(np.zeros((2, 9)))
