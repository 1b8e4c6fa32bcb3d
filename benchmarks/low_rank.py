"""A dense system with one input and 4096 states: a Gramian factor inside a minute and 2 GiB.

    python -m benchmarks.low_rank [--quick] [--json OUT]

The same as ``lqo-mor bench --only low_rank``.
"""

import sys

from lqo_mor.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["bench", "--only", "low_rank", *sys.argv[1:]]))
