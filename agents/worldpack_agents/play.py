"""Walking through an episode by hand, in imagination or in the engine, in an OpenCV window."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from typing import Annotated, Any, Final

import numpy as np
import tyro

from worldpack_agents.env_config import EnvConfig, Where, make_envs

WINDOW: Final = "worldpack"
KEYS: Final = {"w": 0, "a": 1, "d": 2, "s": 4, "q": 5, "e": 6, " ": 7}
"""Key -> action of ``nav-8``: walk, turn left, turn right, back, strafe left, strafe right, wait."""
HELP: Final = "w walk · a d turn · s back · q e sideways · space wait · n next episode · Esc leave"


@dataclass(frozen=True)
class PlayConfig:
    """Walk by hand: w walk, a d turn, s back, q e sideways, space wait, n next episode, Esc leave."""

    where: Annotated[Where, tyro.conf.arg(name="in")] = "imagined"
    """imagined: in the world model. real: in the engine."""
    env: Annotated[EnvConfig, tyro.conf.arg(name="")] = field(default_factory=lambda: EnvConfig(split="test", num_starts=16, action_set="nav-8"))
    """The task; needs the action set nav-8."""
    seed: int = 0
    """Seed of everything random."""

    def __post_init__(self) -> None:
        """Checks the action set.

        Raises:
            ValueError: if it is not the one that the keys stand for.
        """
        if self.env.action_set != "nav-8":
            raise ValueError(f"The keys stand for the actions of nav-8, not of {self.env.action_set}; leave --action-set out.")


class Session:
    """One player's episodes, without a window: what keys do and what is shown."""

    def __init__(self, env: Any, *, seed: int) -> None:
        """Begins the first episode in ``env``, a batch of one with ``render_mode='rgb_array'`` and no autoreset."""
        self._env, self.over = env, False
        self._env.reset(seed=seed)

    def press(self, key: str) -> bool:
        """Does what ``key`` means; returns False for the key that leaves. Steps are ignored after an episode's end."""
        if key == "\x1b":
            return False
        if key == "n":
            self._env.reset(options={"reset_mask": np.ones(1, np.bool_)})
            self.over = False
        elif key in KEYS and not self.over:
            _, _, terminated, truncated, _ = self._env.step(np.array([KEYS[key]]))
            self.over = bool(terminated[0] or truncated[0])
        return True

    def picture(self) -> Any:
        """The rendered picture ``(h, w, 3) uint8`` RGB."""
        return self._env.render()[0]


def check_display() -> None:
    """Checks that a window can be opened.

    Raises:
        RuntimeError: if there is no display, or this OpenCV has no windows; the message says what to do.
    """
    import cv2

    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise RuntimeError("There is no display to open a window on; run `worldpack play` on a desktop, or use ssh -X.")
    try:
        cv2.namedWindow(WINDOW)
    except cv2.error as error:
        raise RuntimeError(
            "This OpenCV was built without windows; run: pip uninstall opencv-python-headless, then pip install opencv-python."
        ) from error


def play_by_hand(config: PlayConfig) -> None:
    """Opens the window and plays until Esc is pressed or the window is closed.

    Raises:
        RuntimeError: if no window can be opened.
        BackendUnavailable: if the engine cannot run here.
    """
    check_display()
    import cv2

    env: Any = make_envs(config.env, config.where, num_envs=1, autoreset="disabled", render_mode="rgb_array")
    try:
        session = Session(env, seed=config.seed)
        goes_on = True
        while goes_on and cv2.getWindowProperty(WINDOW, cv2.WND_PROP_VISIBLE) >= 1:
            cv2.imshow(WINDOW, np.ascontiguousarray(session.picture()[..., ::-1]))
            cv2.setWindowTitle(WINDOW, f"{WINDOW}: {'episode over, n for the next' if session.over else HELP}")
            code = cv2.waitKey(50)
            goes_on = session.press(chr(code & 0xFF).lower()) if code >= 0 else True
    finally:
        env.close()
        cv2.destroyAllWindows()
