"""Factors of both Gramians of one system: no slower than two single ones.

    python -m benchmarks.both_gramians [--quick] [--json OUT]

The same as ``lqo-mor bench --only both_gramians``.
"""

import sys

from lqo_mor.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["bench", "--only", "both_gramians", *sys.argv[1:]]))
