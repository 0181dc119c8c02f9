"""Asks MineRL's own Python, whose interpreter runs this, what the worker's specification is to it; prints JSON.

Usage: python minerl_probe.py WORKER BACKEND
"""

import importlib.util
import json
import os
import sys

import numpy as np
from lxml import etree

here = os.path.dirname(os.path.abspath(__file__))
sys.path[:] = [path for path in sys.path if os.path.abspath(path) != here]
spec = importlib.util.spec_from_file_location("worldpack_minerl_worker", sys.argv[1])
worker = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = worker
spec.loader.exec_module(worker)

name = worker.find_backend(sys.argv[2])
backend = worker.BACKENDS[name]
if name == "minestudio":
    worker.MineRLEngine._prepare_minestudio(9000)
walk = worker.make_spec(backend, (64, 80))
told = {
    "backend": name,
    "actions": {key: str(space) for key, space in walk.action_space.spaces.items()},
    "camera": [float(walk.action_space.spaces["camera"].low.min()), float(walk.action_space.spaces["camera"].high.max())],
    "pov": list(walk.observation_space.spaces["pov"].shape),
    "pov_type": str(walk.observation_space.spaces["pov"].dtype),
    "observations": sorted(walk.observation_space.spaces),
    "spawn_xml": walk.to_xml(),
}
walk.pose, walk.grid = [1e-7, 64.0, -12.3456789012345, -179.5, 1 / 3], ((-5, 60, 7), (10, 4, 2))
walk.reset()
told["xml"] = walk.to_xml()
# MineRL's own handlers turn an action into the lines that go to the game, and what comes back into an observation.
action = {**dict.fromkeys(worker.KEYS, 0), "forward": 1, "sprint": 1, "camera": np.array([-3.25, 22.5])}
told["lines"] = [handler.to_hero(action[handler.to_string()]) for handler in walk.actionables if handler.to_string() in action]
rows = np.arange(64 * 80 * 3, dtype=np.uint32).astype(np.uint8)
info = {"pov": rows.tobytes(), "xpos": 1.5, "ypos": 64.0, "zpos": -2.5, "yaw": 725.0, "pitch": 10.0, "sea_level": 63, "blocks": ["stone"]}
seen = {handler.to_string(): handler.from_hero(info) for handler in walk.observables}
told["pose"] = seen["pose"]
told["flipped"] = bool((seen["pov"] == rows.reshape(64, 80, 3)[::-1]).all())
told["blocks"] = walk.blocks
told["empty_picture"] = [h.from_hero({**info, "pov": b""}) is None for h in walk.observables if h.to_string() == "pov"]
try:
    [h.from_hero({"xpos": 1.0}) for h in walk.observables if h.to_string() == "pose"]
except worker.EngineError as error:
    told["poseless"] = str(error)
if name == "minerl-0.4":
    from minerl.herobraine.env_specs.navigate_specs import Navigate

    navigate = Navigate(dense=False, extreme=False)
    fake = navigate.make(fake=True)
    first = fake.reset()
    action = navigate.action_space.no_op()
    action["forward"] = 1
    observation, reward, done, _ = fake.step(action)
    told["navigate"] = {
        "pov": list(observation["pov"].shape),
        "compass": str(navigate.observation_space.spaces["compass"]),
        "angle": float(np.asarray(first["compass"]["angle"])),
    }
    told["missions"] = {}
    for mission, dense in worker.MISSIONS.items():
        ours = worker.make_spec(backend, (64, 64), mission)
        told["missions"][mission] = {
            "ours": ours.to_xml().replace("<ObservationFromFullStats/>", ""),
            "theirs": Navigate(dense=dense, extreme=False).to_xml(),
            "observations": sorted(ours.observation_space.spaces),
        }
        ours.pose = walk.pose
        ours.reset()
        told["missions"][mission]["placed"] = ours.to_xml()
# Malmo's own schema lies beside its Java code.
schemas = os.path.join(os.path.dirname(importlib.import_module(backend.package).__file__), "Malmo", "Schemas", "Mission.xsd")
schema = etree.XMLSchema(etree.parse(schemas))
told["schema"] = []
for text in (told["spawn_xml"], told["xml"]):
    if not schema.validate(etree.fromstring(text.encode())):
        told["schema"] += [str(error) for error in schema.error_log]
for mission in told.get("missions", {}).values():
    valid = schema.validate(etree.fromstring(mission.pop("placed").encode()))
    mission["schema"] = [] if valid else [str(error) for error in schema.error_log]
sys.stdout.write("\nJSON" + json.dumps(told) + "\n")
