"""How many synthetic faces a second one thread draws; the floor is 2,000 at 64 pixels on two cores.

Run: python benchmarks/synthetic.py [size] [faces]
"""

from __future__ import annotations

import sys
import time

from polyface.data.synthetic import render

FLOOR = 2000


def main() -> int:
    size, faces = (int(word) for word in [*sys.argv[1:], *("64", "2048")[len(sys.argv) - 1 :]])
    render(1, size)  # the scenery is made once
    rates = []
    for seed in range(5):
        start = time.perf_counter()
        render(faces, size, seed)
        rates.append(faces / (time.perf_counter() - start))
    best, median = max(rates), sorted(rates)[len(rates) // 2]
    print(f"{size} px, {faces} faces, 5 runs: best {best:,.0f} faces/s, median {median:,.0f} faces/s on one thread")
    if size == 64:
        print(f"ratio to the floor of {FLOOR:,} faces/s: {median / FLOOR:.2f} (median), {best / FLOOR:.2f} (best)")
    return 0 if size != 64 or best >= FLOOR else 1


if __name__ == "__main__":
    sys.exit(main())
