"""``python -m worldpack_agents``."""

import sys

from worldpack_agents.cli import main

sys.exit(main())
