"""D4RL's mazes (https://github.com/Farama-Foundation/D4RL, Apache 2.0): rows of cells."""

MAZES = {  # wall #, start R, goal G
    "umaze": """\
#####
#R..#
###.#
#G..#
#####""",
    "medium": """\
########
#R.##..#
#..#...#
##...###
#..#...#
#.#..#.#
#...#.G#
########""",
    "large": """\
############
#R...#.....#
#.##.#.#.#.#
#......#...#
#.####.###.#
#..#.#.....#
##.#.#.#.###
#..#...#.G.#
############""",
}


def maze_rows(name: str) -> list[str]:
    """The rows of a maze, each a string of its cells."""
    return MAZES[name].split("\n")


def find_cell(rows: list[str], letter: str) -> tuple[int, int]:
    """Row and column of the first cell with this letter."""
    for i, row in enumerate(rows):
        if letter in row:
            return i, row.index(letter)
    raise ValueError(f"the maze {rows} has no cell {letter!r}")
