"""Imagination and Reality behind the one protocol."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import ArrayLike

from tests.worldpack_env.fakes import NOISE, SEED, STEP, TURN, CountingWorld, FakeModel, MissionWorld, make_start
from worldpack_env.actions import make_action_set
from worldpack_env.imagination import Imagination, load_world_model
from worldpack_env.reality import Reality
from worldpack_env.simulator import Views
from worldpack_env.starts import StartBank
from worldpack_env.worlds import BackendUnavailable, EpisodeLost, WorldView
from worldpack_model.config import PRESETS
from worldpack_model.world_model import WorldPack

NAV = make_action_set("nav-4")


def counting(name: str, *, frame_size: tuple[int, int]) -> CountingWorld:
    """Factory."""
    return CountingWorld(frame_size)


def same(a: Views, b: Views) -> None:
    """Asserts that two views are the same."""
    for name in ("frames", "poses", "blocked", "failed", "retrieved"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), name)


def test_imagination_remembers_contexts_of_one_length_together() -> None:
    model = FakeModel()
    simulator = Imagination(model, 4)  # type: ignore[arg-type]
    starts = [make_start(seed=i, context=k) for i, k in enumerate((3, 5, 3, 5))]
    views = simulator.start([0, 1, 2, 3], starts, [7, 8, 9, 10])
    assert model.remembered == [([0, 2], (2, 3, 40, 40, 3)), ([1, 3], (2, 5, 40, 40, 3))]
    assert views.frames[:, 0, 0, 0].tolist() == [2, 4, 2, 4]
    assert views.frames[:, 0, 1, 0].tolist() == [0, 1, 2, 3]
    assert views.retrieved.tolist() == [[-1, -1, -1]] * 4
    assert not views.failed.any()
    views = simulator.step([3, 0], NAV.batch_to_nav([0, 2], 2))
    assert views.frames[:, STEP[0], STEP[1], 0].tolist() == [5, 3]
    assert views.frames[:, TURN[0], TURN[1], 0].tolist() == [128, 150]
    assert views.retrieved.tolist() == [[0, 2, -1], [0, 1, -1]]
    assert simulator.memory.length.tolist() == [4, 5, 3, 6]


def test_imagined_noise_comes_from_the_seed_alone() -> None:
    def play(slots: list[int], seeds: list[int]) -> list[list[int]]:
        simulator = Imagination(FakeModel(), 4)  # type: ignore[arg-type]
        simulator.start(slots, [make_start()] * len(slots), seeds)
        shown = [simulator.step(slots, NAV.batch_to_nav([0] * len(slots), len(slots))).frames for _ in range(4)]
        return np.stack(shown)[:, :, NOISE[0], NOISE[1], 0].T.tolist()

    both = play([0, 1], [5, 6])
    assert play([3], [6]) == both[1:]
    assert play([2, 0], [6, 5]) == both[::-1]
    assert both[0] != both[1]


def test_a_lost_slot_keeps_its_last_good_frame_and_the_others_go_on() -> None:
    model = FakeModel()
    simulator = Imagination(model, 2)  # type: ignore[arg-type]
    simulator.start([0, 1], [make_start(), make_start()], [1, 2])
    step = NAV.batch_to_nav([3, 3], 2)
    before = simulator.step([0, 1], step)
    model.lose = {1}
    after = simulator.step([0, 1], step)
    assert after.failed.tolist() == [False, True]
    np.testing.assert_array_equal(after.frames[1], before.frames[1])
    np.testing.assert_array_equal(after.poses[1], before.poses[1])
    assert after.frames[0, 0, 0, 0] == before.frames[0, 0, 0, 0] + 1
    assert np.isfinite(after.poses).all()


def test_imagination_branches_with_memory_and_generator() -> None:
    simulator = Imagination(FakeModel(), 3)  # type: ignore[arg-type]
    simulator.start([0, 1], [make_start(seed=4), make_start(seed=9, context=6)], [1, 2])
    step = NAV.batch_to_nav([0, 2], 2)
    simulator.step([0, 1], step)
    kept = simulator.snapshot([0, 1])
    futures = [simulator.step([0, 1], step) for _ in range(3)]
    simulator.restore([2, 0], kept)  # into other slots
    for future in futures:
        same(simulator.step([2, 0], step), future)


def test_views_are_copies() -> None:
    simulator = Imagination(FakeModel(), 1)  # type: ignore[arg-type]
    views = simulator.start([0], [make_start()], [1])
    kept = views.frames.copy()
    simulator.step([0], NAV.batch_to_nav([0], 1))
    np.testing.assert_array_equal(views.frames, kept)


def test_bad_simulators() -> None:
    with pytest.raises(ValueError, match="num_slots is 0"):
        Imagination(FakeModel(), 0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="evaluations is 0"):
        Imagination(FakeModel(), 1, evaluations=0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no motion named 'drwan'.*Did you mean 'drawn'"):
        Imagination(FakeModel(), 1, motion="drwan")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="num_slots is 0"):
        Reality("counting", 0, factory=counting)
    with pytest.raises(ValueError, match="no world named 'voxl'.*voxel"):
        Reality("voxl", 1)


def test_a_loaded_model_passes_through() -> None:
    model: Any = FakeModel()
    assert load_world_model(model) is model


@pytest.fixture(scope="module")
def debug_model() -> WorldPack:
    """An untrained model whose output layers are not zero."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = WorldPack(PRESETS["debug"]).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                if not parameter.any():
                    parameter.normal_(0, 0.05)
    return model


@pytest.fixture(scope="module")
def voxel_bank() -> StartBank:
    """Two starts of the embedded world."""
    return StartBank.from_world("voxel", loop="ABA", nav_range=5, size=2)


def test_the_world_model_itself_imagines_and_branches(debug_model: WorldPack, voxel_bank: StartBank) -> None:
    simulator = Imagination(debug_model, 2)
    views = simulator.start([0, 1], [voxel_bank[0], voxel_bank[1]], [3, 4])
    np.testing.assert_array_equal(views.frames[0], voxel_bank[0].frames[-1])
    np.testing.assert_array_equal(views.poses[1], voxel_bank[1].poses[-1])
    step = NAV.batch_to_nav([2, 0], 2)
    first = simulator.step([0, 1], step)
    assert first.retrieved.shape == views.retrieved.shape
    assert (first.retrieved.max(axis=1) >= 0).all()
    kept = simulator.snapshot([0, 1])
    future = simulator.step([0, 1], step)
    simulator.restore([0, 1], kept)
    same(simulator.step([0, 1], step), future)


def test_slots_of_the_world_model_do_not_depend_on_each_other(debug_model: WorldPack, voxel_bank: StartBank) -> None:
    def play(count: int) -> list[Views]:
        simulator = Imagination(debug_model, 3)
        slots = list(range(count))
        simulator.start(slots, [voxel_bank[i % 2] for i in slots], [10 + i for i in slots])
        return [simulator.step(slots, NAV.batch_to_nav([2] * count, count)) for _ in range(3)]

    for alone, together in zip(play(1), play(3), strict=True):
        # Matrix products of other batch sizes may round differently: one grey level at most.
        assert np.abs(alone.frames[0].astype(int) - together.frames[0].astype(int)).max() <= 1
        np.testing.assert_allclose(alone.poses[0], together.poses[0], atol=1e-4)
        np.testing.assert_array_equal(alone.retrieved[0], together.retrieved[0])


def test_reality_opens_the_very_first_frame_of_a_start(voxel_bank: StartBank) -> None:
    simulator = Reality("voxel", 2)
    views = simulator.start([1, 0], [voxel_bank[0], voxel_bank[1]], [0, 0])
    for i in range(2):
        np.testing.assert_array_equal(views.frames[i], voxel_bank[i].frames[-1])
        np.testing.assert_array_equal(views.poses[i], voxel_bank[i].poses[-1])
    assert views.retrieved.shape == (2, 0)
    simulator.close()
    simulator.close()


def test_reality_stands_where_the_context_ends() -> None:
    start = make_start(context=3)
    start.poses[:, 2] = [0.0, 1.0, 2.0]
    start.poses[:, 3] = [0.0, 10.0, 20.0]
    views = Reality("counting", 1, factory=counting).start([0], [start], [0])
    assert views.poses.tolist() == [[0.0, 64.0, 2.0, 20.0, 0.0]]


def test_a_turn_shows_in_the_very_next_real_frame(voxel_bank: StartBank) -> None:
    simulator = Reality("voxel", 1)
    start = voxel_bank[0]
    first = simulator.start([0], [start], [0])
    right = simulator.step([0], NAV.batch_to_nav([2], 1))
    turn = (right.poses[0, 3] - first.poses[0, 3] + 180) % 360 - 180
    assert turn == pytest.approx(22.5)
    # The frame is the one an engine shows that stands there with the turned head, and not the one before.
    pose = start.poses[-1].copy()
    pose[3] += 22.5
    shown = simulator.worlds[0].reset(start.seed, pose).frame
    np.testing.assert_array_equal(right.frames[0], shown)
    assert (right.frames[0] != first.frames[0]).any()


def test_reality_branches_where_its_engine_can() -> None:
    simulator = Reality("counting", 2, factory=counting)
    simulator.start([0, 1], [make_start(seed=3), make_start(seed=4)], [0, 0])
    step = NAV.batch_to_nav([0, 1], 2)
    simulator.step([0, 1], step)
    kept = simulator.snapshot([0, 1])
    future = simulator.step([0, 1], step)
    simulator.restore([1, 0], kept)
    same(simulator.step([1, 0], step), future)


def test_reality_says_when_an_engine_cannot_branch(monkeypatch: pytest.MonkeyPatch) -> None:
    simulator = Reality("counting", 1, factory=counting)
    simulator.start([0], [make_start()], [0])
    monkeypatch.delattr(CountingWorld, "snapshot")
    monkeypatch.delattr(CountingWorld, "restore")
    with pytest.raises(NotImplementedError, match="'counting' cannot copy its state"):
        simulator.snapshot([0])
    with pytest.raises(NotImplementedError, match="'counting' cannot copy its state"):
        simulator.restore([0], [None])


def test_reality_refuses_starts_of_another_engine() -> None:
    with pytest.raises(ValueError, match="engine 'counting', this is 'voxel'"):
        Reality("voxel", 1).start([0], [make_start()], [0])


def test_no_engine_is_left_open_when_a_later_one_cannot_be_had() -> None:
    made: list[CountingWorld] = []

    def failing(name: str, *, frame_size: tuple[int, int]) -> CountingWorld:
        if len(made) == 2:
            raise RuntimeError("no more engines")
        made.append(CountingWorld(frame_size))
        return made[-1]

    with pytest.raises(RuntimeError, match="no more engines"):
        Reality("counting", 3, factory=failing)
    assert [world.closed for world in made] == [1, 1]


def test_seed_pixel_tells_the_world() -> None:
    simulator = Reality("counting", 1, factory=counting)
    views = simulator.start([0], [make_start(seed=42)], [0])
    assert views.frames[0][SEED][0] == 42


def test_an_episode_that_an_engine_loses_has_failed_on_its_last_view() -> None:
    class Losing(CountingWorld):
        def step(self, action: ArrayLike) -> WorldView:
            if self.steps == 1 and self.seed == 3:
                raise EpisodeLost("The player drowned.")
            return super().step(action)

    simulator = Reality("counting", 2, factory=lambda name, *, frame_size: Losing(frame_size))
    simulator.start([0, 1], [make_start(seed=3), make_start(seed=4)], [0, 0])
    actions = np.zeros((2, 9), np.float32)
    before = simulator.step([0, 1], actions)
    assert not before.failed.any()
    after = simulator.step([0, 1], actions)
    assert after.failed.tolist() == [True, False]
    assert np.array_equal(after.frames[0], before.frames[0]) and np.array_equal(after.poses[0], before.poses[0])
    assert not np.array_equal(after.frames[1], before.frames[1])
    assert simulator.failure == "the engine 'counting' lost them, last with: The player drowned"
    again = simulator.start([0], [make_start(seed=4)], [0])
    assert not again.failed.any() and not simulator.step([0], actions[:1]).failed.any()
    simulator.close()


def test_engines_that_say_so_are_started_and_stepped_at_the_same_time() -> None:
    meeting = threading.Barrier(2)

    class Apart(CountingWorld):
        concurrent = True

        def reset(self, seed: int, pose: ArrayLike | None = None) -> WorldView:
            meeting.wait(20)  # broken unless the other engine is at work as well
            return super().reset(seed, pose)

        def step(self, action: ArrayLike) -> WorldView:
            meeting.wait(20)
            return super().step(action)

    apart = Reality("counting", 2, factory=lambda name, *, frame_size: Apart(frame_size))
    together = Reality("counting", 2, factory=counting)
    starts, actions = [make_start(seed=3), make_start(seed=4)], NAV.batch_to_nav([0, 1], 2)
    same(apart.start([1, 0], starts, [0, 0]), together.start([1, 0], starts, [0, 0]))
    for _ in range(3):
        same(apart.step([1, 0], actions), together.step([1, 0], actions))
    apart.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("engine")]


def test_an_engine_that_fails_waits_for_those_at_work() -> None:
    fails = threading.Event()

    class Slow(CountingWorld):
        concurrent = True

        def step(self, action: ArrayLike) -> WorldView:
            if self.seed == 3:
                fails.set()
                raise BackendUnavailable("The engine is gone.")
            assert fails.wait(20)
            return super().step(action)

    simulator = Reality("counting", 2, factory=lambda name, *, frame_size: Slow(frame_size))
    simulator.start([0, 1], [make_start(seed=3), make_start(seed=4)], [0, 0])
    with pytest.raises(BackendUnavailable, match="The engine is gone"):
        simulator.step([0, 1], np.zeros((2, 9), np.float32))
    other = simulator.worlds[1]
    assert isinstance(other, CountingWorld) and other.steps == 1
    simulator.close()


def test_a_lost_step_of_a_mission_pays_nothing() -> None:
    class Losing(MissionWorld):
        def step(self, action: ArrayLike) -> WorldView:
            if self.steps == 1 and self.seed == 3:
                raise EpisodeLost("The player drowned.")
            return super().step(action)

    simulator = Reality("counting", 2, mission="navigate", factory=lambda name, *, frame_size, mission: Losing(frame_size, mission=mission))
    views = simulator.start([0, 1], [make_start(seed=3), make_start(seed=4)], [0, 0])
    assert views.mission is not None and views.mission.tolist() == [[0, 0, 0, 0, 64], [0, 0, 0, 0, 64]]
    for _ in range(2):
        views = simulator.step([0, 1], np.zeros((2, 9), np.float32))
    assert views.mission is not None and views.failed.tolist() == [True, False]
    assert views.mission.tolist() == [[0, 0, 0, 10, 63], [1, 0, 0, 20, 62]], "the last view, but its reward is not paid twice"


def test_what_happens_is_told_with_the_view_and_an_engine_may_lose_its_episode_over_it() -> None:
    class Losing(CountingWorld):
        def events(self) -> tuple[str, ...]:
            if self.steps == 4 and self.seed == 3:
                raise EpisodeLost("The process died.")
            return super().events()

    simulator = Reality("counting", 2, event="log", factory=lambda name, *, frame_size: Losing(frame_size))
    views = [simulator.start([0, 1], [make_start(seed=3), make_start(seed=4)], [0, 0])]
    views += [simulator.step([0, 1], np.zeros((2, 9), np.float32)) for _ in range(4)]
    told = [view.event for view in views]
    assert [event is not None and event.tolist() for event in told] == [[False] * 2] * 3 + [[True] * 2, [False] * 2]
    assert [view.failed.tolist() for view in views] == [[False] * 2] * 4 + [[True, False]]
    assert Reality("counting", 1, factory=counting).start([0], [make_start()], [0]).event is None
