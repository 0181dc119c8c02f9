"""CompressedMemory: what is kept, what is dropped, slots do not touch each other."""

import pytest
import torch

from worldpack_model.config import MemoryConfig
from worldpack_model.memory import STRETCH, CompressedMemory


def make(slots: int = 3, recent: int = 4, **kinds: float) -> CompressedMemory:
    return CompressedMemory(MemoryConfig(**kinds), num_slots=slots, recent=recent, latent_shape=(1, 1, 1))  # type: ignore[arg-type]


def add(memory: CompressedMemory, slots: list[int], x: float, *, imagined: bool = False) -> None:
    n = len(slots)
    poses = torch.zeros(n, 5, dtype=torch.float64)
    poses[:, 0] = x
    memory.append(slots, torch.full((n, 1, 1, 1), x), poses, torch.full((n, 9), x), imagined=imagined)


def steps_of(memory: CompressedMemory, slot: int) -> list[int]:
    return sorted(s for s in memory.steps[slot].tolist() if s >= 0)


def test_new_places_are_all_kept_and_latents_stay_with_their_poses() -> None:
    memory = make()
    for i in range(200):
        add(memory, [0, 2], float(i))
    assert steps_of(memory, 0) == list(range(200))
    held = memory.steps[0] >= 0
    assert torch.equal(memory.latents[0, held, 0, 0, 0].double(), memory.steps[0, held].double())
    assert torch.equal(memory.poses[0, held, 0], memory.steps[0, held].double())
    assert steps_of(memory, 1) == []


def test_standing_still_keeps_one_keyframe_besides_the_recent() -> None:
    memory = make()
    for _ in range(50):
        add(memory, [1], 7.0)
    assert steps_of(memory, 1) == [0, 46, 47, 48, 49]
    assert memory.length.tolist() == [0, 50, 0]


def test_memory_is_bounded_and_imagined_frames_go_first() -> None:
    memory = make(slots=1, capacity=10)
    for i in range(6):
        add(memory, [0], float(i))
    for i in range(6, 60):
        add(memory, [0], float(i), imagined=True)
    assert memory.latents.shape[1] == 4 + STRETCH, "columns come in whole stretches"
    kept = steps_of(memory, 0)
    assert kept[:6] == [0, 1, 2, 3, 4, 5], "real frames outlive imagined ones"
    assert kept[-4:] == [56, 57, 58, 59]


def test_full_of_real_frames_drops_the_oldest() -> None:
    memory = make(slots=1, capacity=5)
    for i in range(30):
        add(memory, [0], float(i))
    assert steps_of(memory, 0) == list(range(21, 30))


def test_clear_and_snapshot_touch_only_their_slots() -> None:
    memory = make()
    for i in range(100):
        add(memory, [0, 1, 2], float(i))
    before = memory.snapshot([0, 2])
    saved = memory.snapshot([1])
    memory.clear([1])
    assert steps_of(memory, 1) == []
    for name, value in memory.snapshot([0, 2]).tensors.items():
        assert torch.equal(value, before.tensors[name])
    for i in range(30):
        add(memory, [1], 1000.0 + i)
    memory.restore([1], saved)
    for name, value in memory.snapshot([1]).tensors.items():
        assert torch.equal(value, saved.tensors[name]), name


def test_restore_into_a_smaller_memory_grows_it() -> None:
    big, small = make(slots=1), make(slots=2)
    for i in range(300):
        add(big, [0], float(i))
    small.restore([1], big.snapshot([0]))
    assert steps_of(small, 1) == list(range(300))


def test_a_real_frame_takes_the_place_of_an_imagined_one_of_its_pose() -> None:
    memory = make(slots=2)
    for i in range(20):
        add(memory, [0, 1], float(i), imagined=True)
    for i in range(20):  # the same places, seen
        add(memory, [0], float(i))
        add(memory, [1], float(i), imagined=True)
    for i in range(100, 104):  # those before leave the ring
        add(memory, [0, 1], float(i))
    held = memory.steps[:, memory.recent :] >= 0
    assert held.sum(1).tolist() == [20, 20]
    made = memory.imagined[:, memory.recent :]
    assert not made[0, held[0]].any() and made[1, held[1]].all()
    assert sorted(memory.steps[0, memory.recent :][held[0]].tolist()) == list(range(20, 40))
    assert sorted(memory.steps[1, memory.recent :][held[1]].tolist()) == list(range(20)), "one invention is no better than another"
    at = memory.poses[0, memory.recent :, 0][held[0]]
    assert torch.equal(memory.latents[0, memory.recent :, 0, 0, 0][held[0]].double(), at)
    again = make(slots=1)
    for i in (*range(20), *range(20)):  # real ones stay
        add(again, [0], float(i), imagined=i >= 20)
    assert steps_of(again, 0) == [*range(20), *range(36, 40)]


def test_a_snapshot_must_fit() -> None:
    big = make(slots=1, capacity=600)
    for i in range(500):
        add(big, [0], float(i))
    small = make(slots=1, capacity=200)
    with pytest.raises(ValueError, match="holds 496 keyframes, this memory at most 200"):
        small.restore([0], big.snapshot([0]))
    other = make(slots=1, recent=7)
    with pytest.raises(ValueError, match=r"with 4 newest frames of \(1, 1, 1\), this one has 7"):
        other.restore([0], big.snapshot([0]))
    big.clear([0])
    for i in range(150):
        add(big, [0], float(i))
    small.restore([0], big.snapshot([0]))  # columns were made for more, but it fits
    assert steps_of(small, 0) == list(range(150))
    for i in range(150, 400):
        add(small, [0], float(i))
    assert len(steps_of(small, 0)) == 204


def test_errors() -> None:
    memory = make()
    with pytest.raises(RuntimeError, match="remember"):
        memory.newest_column([0])
    with pytest.raises(ValueError, match="within 0 .. 2"):
        memory.clear([3])
    with pytest.raises(ValueError, match="twice"):
        memory.clear([1, 1])
    with pytest.raises(ValueError, match="snapshot holds 1"):
        memory.restore([0, 1], memory.snapshot([2]))


def test_the_last_way_and_action_are_known_and_forgotten() -> None:
    memory = make(recent=1)
    add(memory, [0, 2], 3.0)
    assert memory.motion[0].tolist() == [0, 0, 0], "nobody knows what came before the first frame"
    add(memory, [0], 5.0)
    assert memory.motion[[0, 2]].tolist() == [[2, 0, 0], [0, 0, 0]]
    assert memory.actions[[0, 2], 0].tolist() == [5, 3]
    saved = memory.snapshot([0])
    memory.clear([0])
    assert not memory.motion.any()
    assert memory.actions[0].tolist() == [0] * 9
    memory.restore([1], saved)
    assert memory.motion[1].tolist() == [2, 0, 0]
    assert memory.actions[1].tolist() == [5] * 9


def spread_out(count: int, seed: int = 0) -> tuple[CompressedMemory, torch.Tensor]:
    """A slot that walked far: nothing lies twice within a block."""
    generator = torch.Generator().manual_seed(seed)
    way = torch.randn(count, 3, generator=generator, dtype=torch.float64) * torch.tensor([1.5, 0.3, 1.5]) + torch.tensor([1.0, 0.0, 0.4])
    poses = torch.cat([way.cumsum(0), torch.rand(count, 2, generator=generator, dtype=torch.float64) * 90], dim=1)
    memory = make(slots=2, capacity=3000, nearby=256, min_distance=0.0)
    for i in range(count):
        memory.append([1], torch.full((1, 1, 1, 1), float(i % 7)), poses[i][None], torch.zeros(1, 9), imagined=i % 3 == 0)
    return memory, poses


def test_a_long_history_is_looked_at_where_it_is_near() -> None:
    memory, poses = spread_out(2000)
    assert int(memory.keyframes[1]) == 1996
    for query in (poses[10], poses[777], poses[1500] + torch.tensor([0.7, 0.0, -0.4, 0.0, 0.0])):
        columns = memory.near([1], query[None])[0]
        assert len(columns) == 4 + 256
        assert len(set(columns.tolist())) == len(columns)
        steps = memory.steps[1, columns]
        assert set(range(1996, 2000)) <= set(steps.tolist()), "the newest frames always"
        nearest = (poses[:, :3] - query[:3]).norm(dim=1).topk(12, largest=False).indices
        assert set(nearest.tolist()) <= set(steps.tolist())


def test_short_histories_are_looked_at_whole() -> None:
    memory, poses = spread_out(200)
    assert set(memory.steps[1, memory.near([1], poses[:1])[0]].tolist()) == set(range(200))


def test_boxes_hold_their_keyframes() -> None:
    memory, _ = spread_out(700)
    for add_more in (False, True):
        if add_more:  # beyond the capacity, where frames give way
            memory.config = MemoryConfig(capacity=640, nearby=256, min_distance=0.0)
            for i in range(100):
                memory.append([1], torch.zeros(1, 1, 1, 1), torch.full((1, 5), 1000.0 + i, dtype=torch.float64), torch.zeros(1, 9), imagined=True)
        held = memory.poses[1, 4:, :3].reshape(-1, STRETCH, 3)
        there = (memory.steps[1, 4:] >= 0).reshape(-1, STRETCH, 1)
        boxes = memory.boxes[1][there.any(1)[:, 0]]
        low, high = held.masked_fill(~there, torch.inf).amin(1), held.masked_fill(~there, -torch.inf).amax(1)
        assert torch.equal(boxes[:, 0], low[there.any(1)[:, 0]])
        assert torch.equal(boxes[:, 1], high[there.any(1)[:, 0]])
    memory.clear([1])
    assert bool(memory.boxes[1].isnan().all())


def test_a_snapshot_brings_a_long_history_back() -> None:
    memory, poses = spread_out(900)
    other = make(slots=3, capacity=3000, nearby=256, min_distance=0.0)
    other.restore([2], memory.snapshot([1]))
    assert torch.equal(other.near([2], poses[:1]), memory.near([1], poses[:1]))
    assert torch.equal(other.steps[2, other.near([2], poses[:1])[0]], memory.steps[1, memory.near([1], poses[:1])[0]])
