"""How densely Python files are written: what CONTRIBUTING.md bounds and tests/test_sizes.py checks.

    python tests/density.py FILE...

A code line is a line with a token other than comments, docstrings and line ends.
"""

import ast
import io
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

WIDE = 90  # columns; the linter's own limit is 100
LAYOUT = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
}


@dataclass
class Density:
    tokens_per_line: float  # of code
    wide_share: float  # of code lines with more than WIDE columns
    lines: int
    longest_function: str
    longest_function_lines: int  # from its `def` to its end
    format_switches: int  # comments that switch the formatter off


def docstring_lines(tree: ast.AST) -> set[int]:
    """The lines, from 1, of strings that stand alone as statements."""
    found = set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.Expr) or not isinstance(node.value, ast.Constant):
            continue
        if isinstance(node.value.value, str):
            found.update(range(node.lineno, node.end_lineno + 1))
    return found


def functions(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(number of lines, name) of each function, of nested ones too."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node.end_lineno - node.lineno + 1, node.name


def measure(source: str) -> Density:
    """Density of a module's text."""
    tree = ast.parse(source)
    docstrings = docstring_lines(tree)
    tokens = 0
    code_lines = set()
    format_switches = 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            format_switches += "fmt: skip" in token.string or "fmt: off" in token.string
        if token.type in LAYOUT or token.start[0] in docstrings:
            continue
        tokens += 1
        code_lines.update(range(token.start[0], token.end[0] + 1))
    lines = source.splitlines()
    wide = sum(len(lines[number - 1]) > WIDE for number in code_lines)
    length, name = max(functions(tree), default=(0, "-"))
    return Density(
        tokens_per_line=tokens / max(1, len(code_lines)),
        wide_share=wide / max(1, len(code_lines)),
        lines=len(lines),
        longest_function=name,
        longest_function_lines=length,
        format_switches=format_switches,
    )


def main(paths: list[str]) -> int:
    for path in paths:
        found = measure(Path(path).read_text(encoding="utf-8"))
        print(
            f"{path}: {found.tokens_per_line:.2f} tokens per code line, "
            f"{found.wide_share:.1%} over {WIDE} columns, {found.lines} lines, "
            f"longest function {found.longest_function} {found.longest_function_lines}, "
            f"formatter switched off {found.format_switches} times"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
