# SPDX-License-Identifier: MIT
"""A picture of numbers over time: steps, drawn as SVG by hand."""
import os
from html import escape

from weirlib import ROOT

FOLDER = os.environ.get("WEIR_PLOTS", os.path.join(ROOT, "build-tests", "plots"))
COLOURS = ("#1f5fbf", "#c0392b", "#7f8c8d", "#27ae60")
WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 900, 360, 50, 40, 40


def draw(name, title, series):
    """series: {label: [(seconds, number), ...]}. The path of the picture."""
    points = [p for line in series.values() for p in line]
    end, top = max(t for t, _ in points) or 1, max(n for _, n in points) or 1

    def x(t):
        return LEFT + (WIDTH - LEFT - 20) * t / end

    def y(n):
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * n / top
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" font-family="sans-serif" font-size="12">',
           f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/><text x="{LEFT}" y="20" font-size="14">{escape(title)}</text>']
    for n in range(0, int(top) + 1, max(1, int(top) // 8)):
        out.append(f'<path d="M{LEFT} {y(n):.1f}H{WIDTH - 20}" stroke="#ddd"/><text x="{LEFT - 8}" y="{y(n) + 4:.1f}" text-anchor="end">{n}</text>')
    for t in range(0, int(end) + 1, max(1, int(end) // 10)):
        out.append(f'<text x="{x(t):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{t} s</text>')
    for i, (label, line) in enumerate(series.items()):
        d, last = "", None
        for t, n in line:
            if last is None:
                d = f"M{x(t):.1f} {y(n):.1f}"
            elif n != last:
                d += f"H{x(t):.1f}V{y(n):.1f}"
            last = n
        d += f"H{x(line[-1][0]):.1f}"
        colour = COLOURS[i % len(COLOURS)]
        out.append(f'<path d="{d}" fill="none" stroke="{colour}" stroke-width="2"/>'
                   f'<text x="{LEFT + 120 * i + 200}" y="{HEIGHT - 6}" fill="{colour}">{escape(label)}</text>')
    os.makedirs(FOLDER, exist_ok=True)
    path = os.path.join(FOLDER, name + ".svg")
    with open(path, "w") as f:
        f.write("\n".join(out) + "\n</svg>\n")
    return path
