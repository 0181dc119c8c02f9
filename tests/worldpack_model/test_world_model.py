"""The model as a simulator: slots are independent, seeds decide, bad input is named, a failure stays in its slot."""

import dataclasses
import shutil
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.worldpack_model.conftest import turning_episode
from worldpack_model import transformer
from worldpack_model.autoencoder import tensor_to_frames
from worldpack_model.compiler import check_compiler
from worldpack_model.config import PRESETS, MemoryConfig, ModelConfig
from worldpack_model.packing import Context
from worldpack_model.world_model import WorldPack, _Stages

ACTIONS = np.zeros((3, 9), np.float32)
ACTIONS[:, 0], ACTIONS[1, 8] = 1, 22.5


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(s) for s in seeds]


def start(model: WorldPack, slots: int, *, given: int = 15):
    memory = model.new_memory(slots)
    for slot in range(slots):
        e = turning_episode(slot)
        model.remember(memory, [slot], e.frames[None, :given], e.poses[None, :given], e.actions[None, : given - 1])
    return memory


def test_shapes_and_memory(model: WorldPack) -> None:
    memory = start(model, 3)
    p = model.predict(memory, [0, 2], ACTIONS[:2], generators(0, 1))
    assert p.frames.shape == (2, 64, 64, 3)
    assert p.frames.dtype == np.uint8
    assert p.poses.shape == (2, 5)
    assert p.retrieved.shape == (2, model.config.packing.retrieved)
    assert p.retrieved[p.retrieved >= 0].max() < 15 - model.config.packing.recent + 1
    assert memory.length.tolist() == [16, 15, 16]
    assert bool(memory.imagined[0].any())
    assert not bool(memory.imagined[1].any())


def test_slots_do_not_depend_on_the_batch(model: WorldPack) -> None:
    def run(order: list[int]) -> dict[int, np.ndarray]:
        memory, gens = start(model, 3), generators(10, 11, 12)
        shown = {}
        for _ in range(4):
            p = model.predict(memory, order, ACTIONS[order], [gens[i] for i in order])
            shown = dict(zip(order, p.frames, strict=True))
        return shown

    together, swapped, alone = run([0, 1, 2]), run([2, 0, 1]), run([1])
    for i in (0, 1, 2):
        assert np.abs(together[i].astype(int) - swapped[i].astype(int)).max() <= 1
    assert np.abs(together[1].astype(int) - alone[1].astype(int)).max() <= 1


def test_motion_that_is_drawn_comes_from_the_slots_own_seed(model: WorldPack) -> None:
    def run(order: list[int]) -> np.ndarray:
        memory, gens = start(model, 3), generators(10, 11, 12)
        shown = [model.predict(memory, order, ACTIONS[order], [gens[i] for i in order], motion="drawn") for _ in range(6)]
        return np.stack([p.poses[order.index(1)] for p in shown])

    assert run([0, 1, 2]) == pytest.approx(run([2, 0, 1]), abs=1e-4)
    memory = start(model, 3)
    gens = generators(10, 11, 12)
    likeliest = np.stack([model.predict(memory, [1], ACTIONS[[1]], [gens[1]]).poses[0] for _ in range(6)])
    assert np.abs(run([1]) - likeliest).max() > 1e-3, "an untrained model is sure of nothing"


def test_same_seed_same_rollout_whatever_the_global_generators_do(model: WorldPack) -> None:
    def run(disturb: int) -> np.ndarray:
        torch.manual_seed(disturb)
        np.random.seed(disturb)
        memory, gens = start(model, 1), generators(3)
        return np.stack([model.predict(memory, [0], ACTIONS[:1], gens).frames[0] for _ in range(3)])

    state = torch.get_rng_state()
    start_again = start(model, 1)
    model.predict(start_again, [0], ACTIONS[:1], generators(0))
    assert torch.equal(state, torch.get_rng_state())
    assert np.array_equal(run(1), run(2))


def test_branching_from_a_snapshot(model: WorldPack) -> None:
    memory, gens = start(model, 2), generators(0, 1)
    model.predict(memory, [0, 1], ACTIONS[:2], gens)
    saved, state = memory.snapshot([0]), gens[0].get_state()
    first = model.predict(memory, [0], ACTIONS[:1], gens[:1])
    memory.restore([1], saved)
    gens[1].set_state(state)
    second = model.predict(memory, [1], ACTIONS[:1], gens[1:])
    assert np.array_equal(first.frames, second.frames)
    assert np.array_equal(first.poses, second.poses)


def test_given_poses_are_used(model: WorldPack) -> None:
    memory, pose = start(model, 1), np.array([[5.0, 1.0, 2.0, 90.0, 0.0]])
    p = model.predict(memory, [0], ACTIONS[:1], generators(0), poses=pose)
    assert p.poses == pytest.approx(pose)


def test_a_failed_slot_fails_alone(model: WorldPack) -> None:
    healthy = start(model, 3)
    expected = model.predict(healthy, [0, 2], ACTIONS[[0, 2]], generators(0, 2))
    memory = start(model, 3)
    memory.latents[1, memory.newest_column([1])] = torch.nan
    p = model.predict(memory, [0, 1, 2], ACTIONS, generators(0, 1, 2))
    assert p.finite.tolist() == [True, False, True]
    assert not p.frames[1].any()
    assert memory.length.tolist() == [16, 15, 16]
    assert np.abs(p.frames[[0, 2]].astype(int) - expected.frames.astype(int)).max() <= 1


def test_unused_frames_change_nothing(model: WorldPack) -> None:
    """Empty memory equals no memory."""
    f = model.config.packing.frames
    used = torch.zeros(1, f, dtype=torch.bool)
    used[0, 0] = True
    poses, query = torch.zeros(1, f, 5, dtype=torch.float64), torch.zeros(1, 5, dtype=torch.float64)
    noise = torch.randn(1, *model.latent_shape)
    latents = torch.randn(1, f, *model.latent_shape)

    def show(latents: torch.Tensor, poses: torch.Tensor) -> torch.Tensor:
        context = Context(latents, poses, torch.ones(1, f, dtype=torch.int64), torch.zeros(1, f, dtype=torch.bool), used)
        with torch.no_grad():
            return model.imagine(context, query, torch.zeros(1, 9), torch.zeros(1, 3), noise, 2)

    other, moved = latents.clone(), poses.clone()
    other[:, 1:] += 5
    moved[:, 1:, :4] += 50
    assert torch.equal(show(latents, poses), show(other, moved))
    other[:, 0] += 1
    assert not torch.equal(show(latents, poses), show(other, poses)), "the used frame does matter"


def test_rigid_motion_of_all_poses_changes_nothing(model: WorldPack) -> None:
    """A turn of the whole world by a right angle and a shift leave the pictures as they are (up to rounding)."""
    shown = []
    for turn in (0.0, 90.0, 450.0):
        memory = model.new_memory(1)
        e = turning_episode(0)
        poses = e.poses.copy()
        if turn:
            poses[:, 0], poses[:, 2] = -e.poses[:, 2] + 64, e.poses[:, 0] - 32
            poses[:, 3] += turn
        model.remember(memory, [0], e.frames[None, :15], poses[None, :15])
        target = poses[None, 15]
        shown.append(model.predict(memory, [0], e.actions[None, 14], generators(0), poses=target).frames.astype(int))
    assert np.abs(shown[0] - shown[1]).max() <= 2
    assert np.abs(shown[0] - shown[2]).max() <= 2


def test_paper_geometry_builds_and_steps() -> None:
    import dataclasses

    debug = PRESETS["debug"]
    config: ModelConfig = dataclasses.replace(debug, transformer=dataclasses.replace(debug.transformer, geometry="paper"))
    model = WorldPack(config).eval()
    assert model.predict(start(model, 1), [0], ACTIONS[:1], generators(0)).finite.all()


def test_bad_input_is_named(model: WorldPack) -> None:
    memory = start(model, 2)
    with pytest.raises(ValueError, match="2 slots need actions \\(2, 9\\)"):
        model.predict(memory, [0, 1], ACTIONS, generators(0, 1))
    with pytest.raises(ValueError, match="not finite"):
        model.predict(memory, [0], np.full((1, 9), np.nan, np.float32), generators(0))
    with pytest.raises(ValueError, match="expected \\(n, 64, 64, 3\\) uint8"):
        model.remember(memory, [0], np.zeros((1, 1, 32, 32, 3), np.uint8), np.zeros((1, 1, 5)))
    with pytest.raises(ValueError, match="do not fit"):
        model.remember(memory, [0], np.zeros((1, 2, 64, 64, 3), np.uint8), np.zeros((1, 3, 5)))
    with pytest.raises(RuntimeError, match="remember"):
        model.predict(model.new_memory(1), [0], ACTIONS[:1], generators(0))
    for wrong, message in (
        ({"poses": np.zeros((3, 5))}, "expected \\(2, 5\\)"),
        ({"poses": np.zeros(5)}, "expected \\(2, 5\\)"),
        ({"evaluations": 0}, "evaluations is 0"),
        ({"motion": "drwan"}, "no motion named 'drwan'"),
    ):
        with pytest.raises(ValueError, match=message):
            model.predict(memory, [0, 1], ACTIONS[:2], generators(0, 1), **wrong)  # type: ignore[arg-type]


class NothingWaits(TorchDispatchMode):
    """Refuses what reads back from a device, which makes the host wait: numbers read out of tensors, and sizes that depend on what is in them."""

    WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "unique", "is_nonzero", "repeat_interleave.Tensor")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func).removeprefix("aten.")
        assert not any(name == wait or name.startswith(f"{wait}.") for wait in self.WAITS), f"{func} waits for the device"
        if name.startswith(("index.", "index_put")):
            assert not any(index is not None and index.dtype == torch.bool for index in args[1]), f"{func} with a mask waits for the device"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("known", [False, True])
def test_a_step_reads_nothing_back_from_the_device_but_its_result(known: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a processor nothing is ever waited for, but the operations that would are seen; results are copied by ``cpu()``, which is none of them."""
    monkeypatch.setattr("worldpack_model.motion._AT_HAND", ())  # as a GPU does it
    model = WorldPack(dataclasses.replace(PRESETS["debug"], memory=MemoryConfig(capacity=8, min_distance=0.1)))
    slots, rng, threads = 3, np.random.default_rng(0), torch.get_num_threads()
    memory = model.new_memory(slots)
    frames = rng.integers(0, 256, (slots, 14, 64, 64, 3), dtype=np.uint8)
    poses = np.zeros((slots, 14, 5))
    poses[..., 0] = np.arange(14)
    generators = [torch.Generator().manual_seed(i) for i in range(slots)]
    actions = np.zeros((slots, 9), np.float32)
    actions[:, 0] = 1
    torch.set_num_threads(1)  # a mode sees its own thread alone
    try:
        model.remember(memory, range(slots), frames, poses)
        with NothingWaits():
            for step in range(12):  # beyond the capacity
                poses[:, 0, 0] = 14 + step
                prediction = model.predict(memory, range(slots), actions, generators, poses=poses[:, 0] if known else None)
        assert prediction.finite.all()
        with pytest.raises(AssertionError, match="waits for the device"), NothingWaits():
            bool(memory.imagined.any())
    finally:
        torch.set_num_threads(threads)
    assert memory.length.tolist() == [26] * 3


def test_decoding_in_bfloat16_moves_pixels_by_about_a_grey_level() -> None:
    model = WorldPack.from_pretrained("voxel-64", device="cpu", precision="float32")
    latents = model.encode(turning_episode(0).frames)
    exact = model.decode(latents).astype(int)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        rounded = tensor_to_frames(model.autoencoder.decode(latents).float()).numpy().astype(int)
    off = np.abs(rounded - exact)
    assert off.max() <= 3
    assert 0 < off.mean() < 0.5


@pytest.mark.parametrize("masked", [None, "some", "none"])
def test_attention_by_products_is_the_fused_one(masked: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn((2, 3, n, 64), generator=generator).bfloat16() for n in (16, 40, 40))
    used = None if masked is None else torch.rand((2, 1, 1, 40), generator=generator) < (0.5 if masked == "some" else 2.0)
    results = []
    for products in (False, True):
        monkeypatch.setattr(transformer, "_PRODUCTS_ARE_FASTER", products)
        with torch.no_grad():
            results.append(transformer._attend(q, k, v, used).float())
    exact = torch.nn.functional.scaled_dot_product_attention(q.float(), k.float(), v.float(), attn_mask=used)
    assert not torch.equal(*results), "they round differently, so both were asked"
    for result in results:
        assert (result - exact).abs().max() < 0.02, "a few roundings of bfloat16"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own compiler uses what torch has deprecated
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler, and there is no g++")
def test_compiled_for_some_rows_only() -> None:
    torch.manual_seed(0)
    plain = WorldPack(PRESETS["debug"]).eval()
    names, torch_threads = set(plain.state_dict()), torch.get_num_threads()
    try:
        torch.set_num_threads(1)

        def shown(slots: int) -> tuple[np.ndarray, ...]:
            memory, gens = start(plain, slots), generators(*range(slots))
            made = [plain.predict(memory, range(slots), ACTIONS[:slots], gens) for _ in range(3)]
            return np.stack([p.frames for p in made]), np.stack([p.poses for p in made]), np.stack([p.retrieved for p in made])

        before = [shown(slots) for slots in (1, 2, 3)]
        plain.compile_for(3)
        calls = []
        assert plain._compiled is not None
        plain._compiled = _Stages(
            **{
                name: lambda *a, f=f, name=name: calls.append((name, len(a[0].latents if isinstance(a[0], Context) else a[0]))) or f(*a)
                for name, f in plain._compiled._asdict().items()
            }
        )
        after = [shown(slots) for slots in (1, 2, 3)]
    finally:
        torch.set_num_threads(torch_threads)
    assert set(calls) == {(name, 3) for name in _Stages._fields}, "all that can be compiled is, and two rows are filled up to three; one row is not"
    assert len(calls) == 2 * 3 * (len(_Stages._fields) + plain.config.diffusion.evaluations - 1)
    for (frames, poses, retrieved), other in zip(before, after, strict=True):
        assert np.abs(frames.astype(int) - other[0].astype(int)).max() <= 1
        assert np.abs(poses - other[1]).max() < 1e-5
        assert np.array_equal(retrieved, other[2])
    assert set(plain.state_dict()) == names, "compiled code is no part of the weights"


def test_no_compiler_is_said(model: WorldPack, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any, **kwargs: Any) -> Any:
        raise OSError("no g++ found")

    check_compiler.cache_clear()
    monkeypatch.setattr(torch, "compile", broken)
    with pytest.raises(RuntimeError, match="no g\\+\\+ found.*C\\+\\+ compiler"):
        model.compile_for(2)
