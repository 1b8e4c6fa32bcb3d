"""A batch of diagonal cross Gramians: against NumPy, and over the cores.

    python -m benchmarks.diagonal_batch [--quick] [--json OUT]

The same as ``lqo-mor bench --only diagonal_batch``.
"""

import sys

from lqo_mor.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["bench", "--only", "diagonal_batch", *sys.argv[1:]]))
