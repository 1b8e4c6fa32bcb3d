"""``lqo-mor bench``: our solvers beside those of other packages."""

from __future__ import annotations

import sys
from argparse import Namespace

from lqo_mor.bench import output
from lqo_mor.bench.claims import CLAIMS, run_claims
from lqo_mor.cli.loading import Subparsers, open_console
from lqo_mor.errors import InvalidInputError


def add(subparsers: Subparsers) -> None:
    """Add the command and its arguments."""
    parser = subparsers.add_parser(
        "bench",
        help="time our solvers beside those of other packages",
        description="Time our solvers beside those of SciPy, Slycot, python-control and pyMOR, as far as they are installed.",
    )
    parser.add_argument("--quick", action="store_true", help="small sizes only: half a minute instead of several")
    parser.add_argument("--only", nargs="+", metavar="CLAIM", help="some of the comparisons, by name (default: all)")
    parser.add_argument("--json", metavar="OUT", help="write all figures to this new file")
    parser.add_argument("--plot", metavar="OUT.png", help="draw time against size into this new file (needs Matplotlib)")
    parser.set_defaults(run=run)


def run(arguments: Namespace) -> None:
    """Time our solvers beside others."""
    names = list(dict.fromkeys(arguments.only or CLAIMS))
    for name in names:
        if name not in CLAIMS:
            raise InvalidInputError(f"there is no comparison {name!r}; there are {', '.join(CLAIMS)}")
    output.check_outputs(arguments.json, arguments.plot, names)
    report = run_claims(names, arguments.quick, lambda text: print(text, file=sys.stderr, flush=True))
    console = open_console()
    try:
        for name, rows in report.rows.items():
            console.print(output.claim_table(name, rows))
            console.print()
        console.print(output.summary(report), markup=False)
    finally:  # also when nobody reads what we print
        if arguments.json:
            output.write_json(report, arguments.json)
        if arguments.plot:
            output.write_plot(report, arguments.plot)
