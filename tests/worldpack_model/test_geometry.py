"""Conventions: yaw 0 looks to +z and grows clockwise, pitch + looks down, action t leads to frame t + 1."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from worldpack_model import geometry as g

angles = st.floats(-720, 720)


def test_forward_vector_of_the_four_sides() -> None:
    assert g.forward_vector([0, 90, 180, -90]) == pytest.approx(np.array([[0, 0, 1], [-1, 0, 0], [0, 0, -1], [1, 0, 0]]), abs=1e-12)
    assert g.forward_vector(0.0, 90.0) == pytest.approx(np.array([0, -1, 0]), abs=1e-12)  # looking down


@given(angles)
def test_wrap_is_in_range_and_keeps_the_direction(angle: float) -> None:
    wrapped = float(g.wrap_degrees(angle))
    assert -180 <= wrapped < 180
    assert math.cos(math.radians(angle)) == pytest.approx(math.cos(math.radians(wrapped)), abs=1e-9)


def test_local_frame_right_is_minus_x_at_yaw_zero() -> None:
    assert g.to_local([-1.0, 2.0, 3.0], 0.0) == pytest.approx(np.array([1.0, 2.0, 3.0]))


@given(angles, st.tuples(*[st.floats(-50, 50)] * 3))
def test_local_and_back(yaw: float, delta: tuple[float, float, float]) -> None:
    assert g.from_local(g.to_local(delta, yaw), yaw) == pytest.approx(np.array(delta), abs=1e-9)
    torch_local = g.to_local_torch(torch.tensor(delta, dtype=torch.float64), torch.tensor(yaw, dtype=torch.float64))
    assert torch_local.numpy() == pytest.approx(g.to_local(delta, yaw), abs=1e-9)


def test_yaw_towards() -> None:
    assert g.yaw_towards([0, 0, 0], [[0, 5, 1], [-1, 0, 0], [1, 0, 1]]) == pytest.approx(np.array([0, 90, -45]))


def test_camera_rays_field_of_view() -> None:
    rays = g.camera_rays(400, 400)
    top = math.degrees(math.atan2(rays[0, 200, 1], rays[0, 200, 2]))
    assert top == pytest.approx(35.0, abs=0.2)
    assert rays[0, 0, 0] < 0 < rays[0, 0, 1], "the first ray is the upper left one"


def test_world_rays_agree_with_the_view_direction() -> None:
    poses = torch.tensor([[0.0, 0, 0, 30.0, 20.0], [0, 0, 0, -120.0, -45.0]])
    rays = g.world_rays_torch(torch.tensor([0.0, 0.0, 1.0]), poses)
    assert rays.numpy() == pytest.approx(g.forward_vector(poses[:, 3].numpy(), poses[:, 4].numpy()), abs=1e-6)
    up = g.world_rays_torch(torch.tensor([0.0, 1.0, 0.0]), poses[:1])
    assert float(up[0, 1]) > 0, "the picture's top stays up"


def test_loopnav_units_and_back() -> None:
    pose = np.array([1.5, 64.0, -3.25, 135.0, 12.0])
    assert g.loopnav_to_pose(g.pose_to_loopnav(pose)) == pytest.approx(pose)
    # reference/worldpack.md 1.3: a recorded mineflayer yaw of -3.196 walks towards +z
    assert g.forward_vector(g.loopnav_to_pose({"x": 0, "y": 0, "z": 0, "yaw": -3.196, "pitch": 0})[3])[2] > 0.99
    assert g.camera_from_loopnav(g.camera_to_loopnav(3.0, -22.5)) == pytest.approx((3.0, -22.5))


@pytest.mark.parametrize(
    ("pose", "message"),
    [([0, 0, 0, 0], "shape"), ([0, math.nan, 0, 0, 0], "not finite"), ([0, 0, 0, 0, 95], "pitch")],
)
def test_bad_poses_are_named(pose: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        g.check_pose(pose)


def test_bad_actions_are_named() -> None:
    with pytest.raises(ValueError, match="expected \\(..., 9\\): forward, back"):
        g.check_action(np.zeros(4))
    with pytest.raises(ValueError, match="not finite"):
        g.check_action(np.full(9, np.inf))
