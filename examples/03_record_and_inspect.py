"""Records loops in the engine, reads them back, and writes one as a strip of frames.

Usage: python examples/03_record_and_inspect.py --out episodes --episodes 4
"""

import argparse
from pathlib import Path

import cv2
import numpy as np

from worldpack_env.recorder import RecordConfig, record
from worldpack_model.evaluation import strip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("episodes"))
    parser.add_argument("--episodes", type=int, default=4)
    parser.add_argument("--nav-range", type=int, default=5, help="blocks from A to B")
    parser.add_argument("--workers", type=int, default=1)
    args = parser.parse_args()

    index = record(RecordConfig(out=args.out, episodes=args.episodes, mix={f"ABA-{args.nav_range}": 1.0}, split="val", workers=args.workers))
    for entry in index:
        episode = index.read(entry)  # checks the checksums
        walked = np.hypot(*np.diff(episode.poses[:, [0, 2]], axis=0).T).sum()
        print(f"{entry.stem}: {len(episode)} frames, {walked:.1f} blocks, the way home begins at frame {episode.turn_index}")
    picture = args.out / "strip.png"
    cv2.imwrite(str(picture), np.ascontiguousarray(strip([index.read(0).frames], 12, scale=2)[..., ::-1]))
    print(f"wrote {picture}")


if __name__ == "__main__":
    main()
