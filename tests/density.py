"""How densely Python files are written: what CONTRIBUTING.md bounds and tests/test_sizes.py checks.

    python tests/density.py FILE...

A code line is a line with a token other than comments, docstrings and line ends. A string is one
token, an f-string too, whatever the version of Python makes of it.
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


FSTRING_START = getattr(tokenize, "FSTRING_START", None)  # Python 3.12 takes f-strings apart
FSTRING_END = getattr(tokenize, "FSTRING_END", None)


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


def code_tokens(source: str) -> Iterator[tuple[int, int]]:
    """(first, last) line of each token of code, docstrings included."""
    begun = []  # the first lines of the f-strings that are open
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == FSTRING_START:
            begun.append(token.start[0])
        elif token.type == FSTRING_END:
            first = begun.pop()
            if not begun:
                yield first, token.end[0]
        elif not begun and token.type not in LAYOUT:
            yield token.start[0], token.end[0]


def count_format_switches(source: str) -> int:
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = [token.string for token in tokens if token.type == tokenize.COMMENT]
    return sum("fmt: skip" in comment or "fmt: off" in comment for comment in comments)


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
    for first, last in code_tokens(source):
        if first not in docstrings:
            tokens += 1
            code_lines.update(range(first, last + 1))
    lines = source.splitlines()
    wide = sum(len(lines[number - 1]) > WIDE for number in code_lines)
    length, name = max(functions(tree), default=(0, "-"))
    return Density(
        tokens_per_line=tokens / max(1, len(code_lines)),
        wide_share=wide / max(1, len(code_lines)),
        lines=len(lines),
        longest_function=name,
        longest_function_lines=length,
        format_switches=count_format_switches(source),
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
