"""The Malmo-protocol server, spoken to by a client written here from the protocol; MineRL's own client is in test_minerl_contract.py."""

import json
import socket
import struct
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from worldpack_env.goals import bearing
from worldpack_env.worlds import make_world
from worldpack_env.worlds.blocks import FULL, LEAF, LIQUID, OPEN, PARTIAL, TRUNK, SurveyedBlocks, kind_of
from worldpack_env.worlds.malmo_server import MalmoServer, MissionError, Player, parse_commands, parse_mission
from worldpack_env.worlds.minerl import walk_blocked
from worldpack_env.worlds.terrain import ORIGIN, load_terrain
from worldpack_env.worlds.voxel import VoxelWorld
from worldpack_model.geometry import TICKS_PER_STEP, to_local, wrap_degrees

MISSION = """<MissionInit xmlns="http://ProjectMalmo.microsoft.com"><Mission><AgentSection mode="Survival">
<AgentStart>{placement}</AgentStart><AgentHandlers><VideoProducer want_depth="false"><Width>80 </Width><Height>64</Height></VideoProducer>
{grid}</AgentHandlers></AgentSection></Mission></MissionInit>"""
PLACEMENT = '<Placement x="{}" y="{}" z="{}" yaw="{}" pitch="{}"/>'
GRID = """<ObservationFromGrid><Grid name="near" absoluteCoords="{absolute}"><min x="-3" y="0" z="2"/><max x="4" y="60" z="5"/></Grid>
</ObservationFromGrid>"""


class Client:
    """Speaks Malmo's protocol."""

    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=30.0)
        self.send("<MalmoEnv0.37.0/>")

    def send(self, text: str) -> None:
        self.sock.sendall(struct.pack("!I", len(text.encode())) + text.encode())

    def receive(self) -> bytes:
        def exactly(count: int) -> bytes:
            data = b""
            while len(data) < count:
                part = self.sock.recv(count - len(data))
                if not part:
                    raise EOFError
                data += part
            return data

        return exactly(struct.unpack("!I", exactly(4))[0])

    def begin(self, *, seed: int, pose: list[float] | None = None, grid: str = "") -> dict[str, object]:
        self.send("<Quit/>")
        assert self.receive() == struct.pack("!I", 1)
        self.send(MISSION.format(placement="" if pose is None else PLACEMENT.format(*pose), grid=grid))
        self.send(f"uid:0:0:1:true:{seed}")
        assert self.receive() == struct.pack("!I", 1)
        self.send("<Peek/>")
        self.picture, info, done = self.receive(), json.loads(self.receive()), self.receive()
        assert done == b"\0"
        return dict(info)

    def step(self, commands: str) -> dict[str, float]:
        self.send(f"<StepClient0>{commands}</StepClient0 >")
        self.picture, outcome, info = self.receive(), self.receive(), json.loads(self.receive())
        assert struct.unpack("!dbb", outcome) == (0.0, 0, 1)
        self.send("<StepServer></StepServer>")
        return dict(info)


@pytest.fixture
def connect() -> Iterator[Callable[[], Client]]:
    clients = []

    def make() -> Client:
        clients.append(Client(server.port))
        return clients[-1]

    with MalmoServer() as server:
        yield make
        for client in clients:
            client.sock.close()


Connect = Callable[[], Client]


def pose_of(info: dict[str, object]) -> np.ndarray:
    return np.array([info[name] for name in ("xpos", "ypos", "zpos", "yaw", "pitch")], np.float64)


def test_ticks_are_the_embedded_worlds(connect: Connect) -> None:
    client, direct = connect(), VoxelWorld((64, 80))
    begun = direct.reset(4)
    assert pose_of(client.begin(seed=4)) == pytest.approx(begun.pose)
    start = [*begun.pose[:3].tolist(), 170.0, -5.25]
    view = direct.reset(4, start)
    assert np.array_equal(pose_of(client.begin(seed=4, pose=start)), start)
    rng = np.random.default_rng(2)
    beyond = False
    for _ in range(60):
        action = np.zeros(9, np.float32)
        action[:7], action[7:] = rng.random(7) < 0.3, rng.uniform(-10, 30, 2)
        keys = "\n".join(
            f"{key} {int(held)}" for key, held in zip(("forward", "back", "left", "right", "jump", "sneak", "sprint"), action, strict=False)
        )
        view = direct.step(action)
        for tick in range(TICKS_PER_STEP):
            turn = f"camera {float(action[7])} {float(action[8])}" if tick == 0 else "camera 0.0 0.0"
            info = client.step(f"{keys}\nattack 0\n{turn}")
        pose = pose_of(info)
        beyond |= abs(pose[3]) > 180.0
        pose[3] = wrap_degrees(pose[3])
        assert pose == pytest.approx(view.pose, abs=1e-9)
        assert np.array_equal(np.frombuffer(client.picture, np.uint8).reshape(64, 80, 3)[::-1], view.frame), "rows come bottom up"
    assert beyond, "the yaw grows beyond a turn, as Minecraft's does"


def test_two_players_do_not_meet(connect: Connect) -> None:
    one, two = connect(), connect()
    here, there = pose_of(one.begin(seed=1)), pose_of(two.begin(seed=2))
    for _ in range(8):
        moved = pose_of(one.step("forward 1"))
    assert np.abs(moved - here)[[0, 2]].max() > 0.5
    assert pose_of(two.step("forward 0"))[[0, 2]] == pytest.approx(there[[0, 2]])


@pytest.mark.parametrize("absolute", ["true", "false"])
def test_grids(connect: Connect, absolute: str) -> None:
    info = connect().begin(seed=4, grid=GRID.format(absolute=absolute))
    names = np.array(info["near"]).reshape(61, 4, 8)  # y, z, x
    corner = np.array([-3, 0, 2]) + (0 if absolute == "true" else np.floor(pose_of(info)[:3]).astype(int))
    blocks = load_terrain(4).blocks
    for i, j, k in [(0, 0, 0), (7, 9, 3), (2, 12, 1), (5, 13, 2), (3, 60, 3)]:
        x, y, z = corner + np.array([i, j, k])
        solid = y < 48 and blocks[x - ORIGIN[0], y, z - ORIGIN[1]] != 0
        assert (names[j, k, i] != "air") == solid


@pytest.mark.parametrize("message", ["<Peek/>", "<StepClient0>forward 1</StepClient0 >", "hello", "<MissionInit>"])
def test_what_is_not_of_the_protocol_ends_the_connection(connect: Connect, message: str) -> None:
    client = connect()
    client.send(message)
    if message == "<MissionInit>":
        client.send("token")
    with pytest.raises((EOFError, ConnectionError)):
        client.receive()
    assert pose_of(connect().begin(seed=1))[1] > 0, "others are served on"


def test_missions_are_checked() -> None:
    good = MISSION.format(placement=PLACEMENT.format(1.5, 20, -3.25, 90, 5), grid=GRID.format(absolute="true"))
    mission = parse_mission(good, "uid:0:0:1:true:77")
    assert mission.size == (64, 80) and mission.seed == 77 and mission.pose is not None
    assert mission.pose.tolist() == [1.5, 20.0, -3.25, 90.0, 5.0]
    assert mission.grids[0].corner == (-3, 0, 2) and mission.grids[0].size == (8, 61, 4) and mission.grids[0].absolute
    assert 0 <= parse_mission(good, "uid:0:0:1:true").seed < 2**31, "a seed is drawn where none is told"
    for wrong in (good.replace("Width", "Breadth"), good[:-4], '<!DOCTYPE a [<!ENTITY b "c">]>' + good, good.replace('x="4"', 'x="-9"')):
        with pytest.raises(MissionError):
            parse_mission(wrong, "uid:0:0:1:true:77")
    with pytest.raises(MissionError):
        parse_mission(good, "uid")
    assert parse_commands("forward 1\nuse 1\n\ncamera -3.5 20.0").tolist() == [1, 0, 0, 0, 0, 0, 0, -3.5, 20.0]
    with pytest.raises(ValueError, match="x"):
        parse_commands("camera x 1")


def test_what_blocks_are_to_a_walker() -> None:
    assert [kind_of(name) for name in ("air", "minecraft:water", "cactus", "leaves", "log2", "stone", "no such")] == [
        OPEN, LIQUID, PARTIAL, LEAF, TRUNK, FULL, FULL,
    ]  # fmt: skip
    modern = {"minecraft:grass": OPEN, "grass_block": FULL, "block.minecraft.oak_leaves": LEAF, "birch_log": TRUNK, "kelp": LIQUID,
              "oak_fence_gate": PARTIAL, "poppy": OPEN, "red_tulip": OPEN, "redstone_wall_torch": OPEN, "stone": FULL}  # fmt: skip
    assert {name: kind_of(name, modern=True) for name in modern} == modern
    palette = ["air", "stone", "leaves", "log", "water", "fence"]
    columns = {  # from below
        "open ground": [1, 1, 0, 0, 0, 0],
        "under leaves": [1, 1, 0, 0, 2, 2],
        "a trunk": [1, 1, 3, 3, 2, 0],
        "water": [1, 4, 0, 0, 0, 0],
        "leaves at head height": [1, 1, 0, 2, 0, 0],
        "a fence": [1, 5, 0, 0, 0, 0],
        "too high": [1, 1, 1, 1, 1, 0],
        "nothing": [0, 0, 0, 0, 0, 0],
    }
    ids = np.array(list(columns.values()), np.uint16).T[:, None, :]  # y, z, x
    survey = SurveyedBlocks.from_names((10, 60, -4), palette, ids)
    surface = survey.surface()
    assert surface.origin == (10, -4) and surface.heights.shape == (8, 1)
    assert surface.walkable[:, 0].tolist() == [True, True, False, False, False, False, False, False]
    assert surface.heights[:4, 0].tolist() == [62, 62, 62, 62]
    solid = survey.solid([12, 61, -4], (2, 3, 1))
    assert solid is not None and solid[:, :, 0].tolist() == [[True, True, True], [False, False, False]]
    assert survey.solid([12, 61, -4], (2, 3, 2)) is None
    with pytest.raises(ValueError, match="palette"):
        SurveyedBlocks.from_names((0, 0, 0), palette[:2], ids)


def test_blocked_walks_are_seen_in_poses_alone() -> None:
    world, rng = VoxelWorld(ticks_per_step=1), np.random.default_rng(1)
    spawn, agree, walls = world.reset(0).pose, 0, 0
    for i in range(300):
        if i % 50 == 0:
            before = world.reset(0, [*spawn[:3], rng.uniform(-180, 180), 0.0]).pose
        action = np.zeros(9, np.float32)
        action[:7], action[8] = rng.random(7) < (0.8, 0.1, 0.15, 0.15, 0.3, 0.1, 0.3), rng.uniform(-20, 20)
        track, blocked = [before], False
        for tick in range(TICKS_PER_STEP):
            view = world.step(action if tick == 0 else np.append(action[:7], [0, 0]))
            track.append(view.pose)
            blocked |= view.blocked
        before = view.pose
        agree += walk_blocked(np.stack(track), [int(key) for key in action[:7]]) == blocked
        walls += blocked
    assert agree == 300 and walls > 30


def test_ticks_per_step_is_checked() -> None:
    with pytest.raises(ValueError, match="ticks_per_step"):
        VoxelWorld(ticks_per_step=0)
    assert make_world("voxel").frame_size == (64, 64)


DECORATOR = """<NavigationDecorator><randomPlacementProperties><maxRandomizedRadius>64</maxRandomizedRadius><block>diamond_block</block>
</randomPlacementProperties><maxRandomizedDistance>8</maxRandomizedDistance><randomizeCompassLocation>{}</randomizeCompassLocation>
</NavigationDecorator>"""
PAY = """<RewardForTouchingBlockType><Block type="diamond_block" behaviour="onceOnly" reward="100.0"/></RewardForTouchingBlockType>
<RewardForDistanceTraveledToCompassTarget rewardPerBlock="2"/><AgentQuitFromTouchingBlockType><Block type="diamond_block"/>
</AgentQuitFromTouchingBlockType><ServerQuitFromTimeUp timeLimitMs="1000"/>"""


def quest(seed: int, *, pose: list[float] | None = None, beside: str = "true", pay: str = PAY) -> Player:
    """A player of a mission of MineRL's Navigate."""
    text = MISSION.format(placement="" if pose is None else PLACEMENT.format(*pose), grid=DECORATOR.format(beside) + pay)
    return Player(parse_mission(text, f"uid:0:0:1:true:{seed}"))


def told(player: Player) -> dict[str, float]:
    return dict(json.loads(player.info))


@pytest.mark.parametrize("seed", range(4))
def test_a_block_is_hidden_as_navigate_says(seed: int) -> None:
    player, plain = quest(seed), VoxelWorld((64, 80))
    spawn = np.floor(plain.reset(seed).pose[:3])
    assert player.goal is not None and np.array_equal(player.goal, quest(seed).goal), "by the seed alone"
    assert np.hypot(*(player.goal - spawn)[[0, 2]]) == pytest.approx(64.0, abs=1.5)
    above = [*(player.goal + np.array([0.5, 1.0, 0.5])), 0.0, 90.0]
    assert not np.array_equal(player.world.render(above)[32, 40], plain.render(above)[32, 40]), "a block of another kind"
    info = told(player)
    assert -180.0 <= info["compassAngle"] <= 180.0
    assert info["distanceToCompassTarget"] == pytest.approx(64.0, abs=16.0), "the compass points beside it"
    straight = quest(seed, beside="false")
    local = to_local((straight.goal - straight.view.pose[:3])[None], straight.view.pose[3:4])  # type: ignore[operator]
    assert told(straight)["compassAngle"] == pytest.approx(float(bearing(local)[0]))
    turned = quest(seed, beside="false")
    turned.tick("camera 0 30.0")
    moved = told(straight)["compassAngle"] - told(turned)["compassAngle"]
    assert moved % 360.0 == pytest.approx(30.0), "what lies ahead is to the left after a turn to the right"


def test_touching_the_block_pays_and_ends_the_mission() -> None:
    goal = quest(1).goal
    assert goal is not None
    heights, (x0, z0) = VoxelWorld((64, 80)), (0, 0)
    heights.reset(1)
    surface = heights.surface()
    x0, z0 = surface.origin
    ways = ((1, 0, 90.0), (-1, 0, -90.0), (0, 1, 180.0), (0, -1, 0.0))
    dx, dz, yaw = next((dx, dz, yaw) for dx, dz, yaw in ways if surface.heights[goal[0] + dx - x0, goal[2] + dz - z0] == goal[1] + 1)
    beside = [goal[0] + 0.5 + 0.9 * dx, goal[1] + 1.0, goal[2] + 0.5 + 0.9 * dz, yaw, 0.0]
    player = quest(1, pose=beside)
    player.tick("forward 0")
    assert not player.done and player.reward == pytest.approx(0.0, abs=0.2)
    rewards = []
    while not player.done and len(rewards) < 15:
        before = player._away
        player.tick("forward 1")
        rewards.append(player.reward)
    assert player.done and rewards[-1] == pytest.approx(100.0 + 2.0 * (before - player._away))
    assert max(map(abs, rewards[:-1]), default=0.0) < 1.0, "nothing but the way before"
    player.tick("forward 0")
    assert abs(player.reward) < 1.0, "paid once"
    free = quest(1, pose=beside, pay="")
    for _ in range(15):
        free.tick("forward 1")
        assert free.reward == 0.0 and not free.done, "only what the mission asks for"


def test_a_mission_ends_when_its_time_is_up(connect: Connect) -> None:
    player = quest(2)
    for tick in range(20):
        assert not player.done, tick
        player.tick("forward 0")
    assert player.done and parse_mission(MISSION.format(placement="", grid=""), "uid:0:0:1:true:2").ticks is None
