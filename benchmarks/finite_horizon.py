"""Dense equations over a finite horizon: at most twice the time of the infinite one.

    python -m benchmarks.finite_horizon [--quick] [--json OUT]

The same as ``lqo-mor bench --only finite_horizon``.
"""

import sys

from lqo_mor.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["bench", "--only", "finite_horizon", *sys.argv[1:]]))
