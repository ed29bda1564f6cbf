#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Reads a QR code (ISO/IEC 18004) that ssdtf-admin wrote as SVG, and prints its text.

    tests/qr_read.py FILE.svg...

Written from the standard, not from the library that makes them: versions 1 to 13, level M, bytes.
Nothing is mended: where a codeword is wrong, the check of its block fails, and so do we.
"""
import re
import sys

QUIET = 4
# version: codewords for correction in each block, (blocks, data codewords in each)...; level M
BLOCKS = {1: (10, (1, 16)), 2: (16, (1, 28)), 3: (26, (1, 44)), 4: (18, (2, 32)), 5: (24, (2, 43)),
          6: (16, (4, 27)), 7: (18, (4, 31)), 8: (22, (2, 38), (2, 39)),
          9: (22, (3, 36), (2, 37)), 10: (26, (4, 43), (1, 44)), 11: (30, (1, 50), (4, 51)),
          12: (22, (6, 36), (2, 37)), 13: (22, (8, 37), (1, 38))}
MASKS = (lambda i, j: (i + j) % 2, lambda i, j: i % 2, lambda i, j: j % 3,
         lambda i, j: (i + j) % 3, lambda i, j: (i // 2 + j // 3) % 2,
         lambda i, j: i * j % 2 + i * j % 3, lambda i, j: (i * j % 2 + i * j % 3) % 2,
         lambda i, j: ((i + j) % 2 + i * j % 3) % 2)


def modules(svg):
    """Rows of booleans, without the margin, which is checked to be there."""
    side = int(re.search(r'viewBox="0 0 (\d+) \1"', svg)[1])
    grid = [[False] * side for _ in range(side)]
    paths = re.findall(r'<path ([^>]*)d="([^"]*)"', svg)
    ground = f"M0 0h{side}v{side}h-{side}z"
    if len(paths) != 2 or "#fff" not in paths[0][0] or paths[0][1] != ground:
        raise ValueError("no white ground under one black path")
    runs = re.findall(r"M(\d+) (\d+)h(\d+)v1h-(\d+)z", paths[1][1])
    if "".join("M%s %sh%sv1h-%sz" % run for run in runs) != paths[1][1]:
        raise ValueError("something else in the path")
    for x, y, n, _ in (map(int, run) for run in runs):
        for i in range(x, x + n):
            grid[y][i] = True
    inner = [row[QUIET:-QUIET] for row in grid[QUIET:-QUIET]]
    if sum(map(sum, grid)) != sum(map(sum, inner)):
        raise ValueError("the margin is not empty")
    return inner


def fixed(version, size):
    """The modules that carry no data."""
    taken = {(i, 6) for i in range(size)} | {(6, i) for i in range(size)}
    for top, left in ((0, 0), (0, size - 8), (size - 8, 0)):
        high = 9 if top == 0 else 8
        wide = 9 if left == 0 else 8
        taken |= {(top + i, left + j) for i in range(high) for j in range(wide)}
    if version >= 2:
        last = size - 7
        between = version // 7  # of the first and the last, up to version 13
        at = [6] + [6 + (last - 6) // 2] * between + [last]
        for i in at:
            for j in at:
                if (i, j) not in ((6, 6), (6, last), (last, 6)):
                    taken |= {(i + a, j + b) for a in range(-2, 3) for b in range(-2, 3)}
    if version >= 7:
        taken |= {(i, size - 11 + j) for i in range(6) for j in range(3)}
        taken |= {(size - 11 + j, i) for i in range(6) for j in range(3)}
    return taken


def codewords(grid, version):
    size = len(grid)
    form = int("".join(str(int(grid[8][j])) for j in range(5)), 2) ^ 0x5412 >> 10
    if form >> 3:
        raise ValueError("not level M")
    mask = MASKS[form & 7]
    taken = fixed(version, size)
    bits, upwards = [], True
    for right in [j for j in range(size - 1, 6, -2)] + [5, 3, 1]:
        for i in range(size - 1, -1, -1) if upwards else range(size):
            for j in (right, right - 1):
                if (i, j) not in taken:
                    bits.append(int(grid[i][j]) ^ (mask(i, j) == 0))
        upwards = not upwards
    return [int("".join(map(str, bits[i:i + 8])), 2) for i in range(0, len(bits) // 8 * 8, 8)]


def check(block, n):
    """The n last codewords fit those before them: powers of 2 in GF(256) are roots."""
    power = 1
    for _ in range(n):
        value = 0
        for word in block:
            product = 0
            for bit in range(7, -1, -1):
                product = product << 1 ^ (0x11d if product & 0x80 else 0)
                product ^= value if power >> bit & 1 else 0
            value = product ^ word
        if value:
            raise ValueError("a codeword is wrong")
        power = power << 1 ^ (0x11d if power & 0x80 else 0)


def read(svg):
    grid = modules(svg)
    version = (len(grid) - 17) // 4
    correction, *groups = BLOCKS[version]
    sizes = [n for count, n in groups for _ in range(count)]
    words = iter(codewords(grid, version))
    blocks = [[] for _ in sizes]
    for i in range(max(sizes)):
        for block, n in zip(blocks, sizes):
            if i < n:
                block.append(next(words))
    data = [word for block in blocks for word in block]
    for _ in range(correction):
        for block in blocks:
            block.append(next(words))
    for block in blocks:
        check(block, correction)
    bits = "".join(f"{word:08b}" for word in data)
    width = 8 if version < 10 else 16
    if bits[:4] != "0100":
        raise ValueError("not in bytes")
    n = int(bits[4:4 + width], 2)
    start = 4 + width
    return bytes(int(bits[start + 8 * i:start + 8 * i + 8], 2) for i in range(n)).decode()


if __name__ == "__main__":
    for path in sys.argv[1:]:
        with open(path, encoding="utf-8") as f:
            print(read(f.read()))
