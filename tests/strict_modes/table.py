"""Print which cases run under each mode alone: `python -m tests.strict_modes.table`, some minutes.

A row is a package, a column a mode; a cell counts calls forward and gradients. Calls that fail are listed below.
"""

from __future__ import annotations

import collections

from tests.strict_modes.modes import MODES, run
from tests.strict_modes.test_every_public_name import BOTH, CASES


def main() -> None:
    ran, tried, failures = collections.Counter(), collections.Counter(), []
    for name, gradient in BOTH:
        package = name.partition(".")[0] if "." in name else "attention functions"
        for mode in MODES:
            tried[package, mode, gradient] += 1
            try:
                found = run(CASES[name], (mode,), gradient)
                failure = "gives float64" if any(x.dtype == "float64" for x in found) else ""
            except Exception as error:
                failure = f"{type(error).__name__}: {str(error).splitlines()[0][:100]}"
            ran[package, mode, gradient] += not failure
            if failure:
                reason = dict(CASES[name].excepted).get(mode)
                direction = "gradient" if gradient else "forward"
                failures.append(f"{name}, {direction}, {mode}: {f'excepted: {reason}' if reason else failure}")
    print(f"| | {' | '.join(MODES)} |\n|---|{'---|' * len(MODES)}")
    for package in dict.fromkeys(package for package, *_ in tried):
        for gradient in (False, True):
            cells = [f"{ran[package, mode, gradient]} of {tried[package, mode, gradient]}" for mode in MODES]
            if any(tried[package, mode, gradient] for mode in MODES):
                print(f"| {package}, {'gradient' if gradient else 'forward'} | {' | '.join(cells)} |")
    print(*failures, sep="\n")


if __name__ == "__main__":
    main()
