"""A diagonal Gramian: within twice the time of writing its numbers to memory.

    python -m benchmarks.diagonal [--quick] [--json OUT]

The same as ``lqo-mor bench --only diagonal``.
"""

import sys

from lqo_mor.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["bench", "--only", "diagonal", *sys.argv[1:]]))
