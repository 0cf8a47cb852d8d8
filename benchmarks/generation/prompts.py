"""Prompts for the generation runs, written for them: beginnings of programs, and questions.

A prompt's `given` is the beginning of the text that is judged, and the constraint reads it as its prefix; `asked`
stands before it and is not part of the text.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Prompt:
    asked: str
    given: str
    chat: bool = False
    """`asked` is a user's message, to be wrapped by the model's chat template."""


# As in HumanEval (Chen et al. 2021, arXiv:2107.03374): a signature and a docstring, to be completed.
_PYTHON = [
    ("def longest_run(values: list[int]) -> int:", "Length of the longest stretch of equal neighbours.",
     "longest_run([1, 1, 2])", "2"),
    ("def is_rotation(left: str, right: str) -> bool:", "Whether one text is the other, turned around some place.",
     "is_rotation('abc', 'cab')", "True"),
    ("def digits_sum(number: int) -> int:", "The sum of the decimal digits of a number that is not negative.",
     "digits_sum(407)", "11"),
    ("def flatten(items: list) -> list:", "All members of nested lists, in order.", "flatten([1, [2, [3]]])",
     "[1, 2, 3]"),
    ("def count_vowels(text: str) -> dict[str, int]:", "How often each vowel occurs.", "count_vowels('banana')",
     "{'a': 3}"),
    ("def second_largest(values: list[float]) -> float | None:", "The second largest of the different values, or None.",
     "second_largest([3.0, 1.0])", "1.0"),
    ("def merge(left: list[int], right: list[int]) -> list[int]:", "Two sorted lists as one sorted list.",
     "merge([1, 4], [2])", "[1, 2, 4]"),
    ("def is_prime(n: int) -> bool:", "Whether n has no divisor but one and itself.", "is_prime(7)", "True"),
    ("def caesar(text: str, shift: int) -> str:", "Every letter moved in the alphabet; others stay.",
     "caesar('ab z', 1)", "'bc a'"),
    ("def transpose(rows: list[list[int]]) -> list[list[int]]:", "Rows become columns.", "transpose([[1, 2], [3, 4]])",
     "[[1, 3], [2, 4]]"),
    ("def gcd(a: int, b: int) -> int:", "The greatest common divisor.", "gcd(12, 18)", "6"),
    ("def words_by_length(text: str) -> dict[int, list[str]]:", "The words of a text, sorted into lists by length.",
     "words_by_length('a bc d')", "{1: ['a', 'd'], 2: ['bc']}"),
    ("def balanced(text: str) -> bool:", "Whether all brackets are closed in the right order.", "balanced('([])')",
     "True"),
    ("def fibonacci(n: int) -> list[int]:", "The first n numbers of Fibonacci.", "fibonacci(4)", "[0, 1, 1, 2]"),
    ("def median(values: list[float]) -> float:", "The middle of the values, or the mean of the two in the middle.",
     "median([3.0, 1.0, 2.0])", "2.0"),
    ("def without_duplicates(items: list) -> list:", "Items in order, each kept the first time only.",
     "without_duplicates([1, 2, 1])", "[1, 2]"),
    ("def to_roman(number: int) -> str:", "A number from 1 to 3999 in Roman numerals.", "to_roman(14)", "'XIV'"),
    ("def spiral(n: int) -> list[list[int]]:", "The numbers from 1 to n squared, in a spiral.", "spiral(2)",
     "[[1, 2], [4, 3]]"),
    ("def parse_pairs(line: str) -> dict[str, str]:", "Reads 'a=1;b=2'.", "parse_pairs('a=1')", "{'a': '1'}"),
    ("async def first_of(tasks: list) -> object:", "The result of the task that is done first.",
     "asyncio.run(first_of([one()]))", "1"),
]  # fmt: skip
_GO = [
    ("Reverse returns the text with its runes in the other order.", "Reverse(text string) string"),
    ("Max returns the largest of the values, and false if there are none.", "Max(values []int) (int, bool)"),
    ("WordCount counts how often each word occurs.", "WordCount(text string) map[string]int"),
    ("Contains says whether target is in values, which are sorted.", "Contains(values []int, target int) bool"),
    ("Squares sends the squares of 1 to n and closes the channel.", "Squares(n int, out chan<- int)"),
    ("Filter keeps what keep says.", "Filter(items []string, keep func(string) bool) []string"),
    ("Factorial of n.", "Factorial(n uint64) uint64"),
    ("ReadLines returns the lines of a reader.", "ReadLines(r io.Reader) ([]string, error)"),
    ("Gcd returns the greatest common divisor.", "Gcd(a, b int) int"),
    ("Invert swaps keys and values.", "Invert(table map[string]int) map[int]string"),
]
_JSON = [
    "a book with title, author, year and a list of tags", "a customer with an address and two telephone numbers",
    "a recipe with its ingredients and their amounts", "the weather of three days", "a configuration of a web server",
    "a chess position", "an invoice with three items and the total", "a film with its cast",
    "a train journey with two changes", "a student's marks", "the nutrition facts of an apple",
    "a git commit", "a music playlist", "a point in space with a label", "a small tree of files and folders",
]  # fmt: skip
_SQL = [
    "the names of all customers from Berlin", "how many orders each customer has", "the ten dearest products",
    "customers without orders", "the average price by category, dearest first", "orders of the last month with names",
    "products that were never ordered", "the total of each order above 100", "the newest order of each customer",
    "pairs of customers from the same city", "the second page of products, twenty a page",
    "products with 'tea' in their name", "the share of orders by status", "customers with more than five orders",
    "the month with the highest total",
]  # fmt: skip
_TABLES = (
    "customers(id, name, city), orders(id, customer_id, created, status), products(id, name, category, price), "
    "items(order_id, product_id, amount)"
)


def prompts(language: str) -> list[Prompt]:
    match language:
        case "python":
            return [
                Prompt("", f'{signature}\n    """{says}\n\n    >>> {call}\n    {answer}\n    """\n')
                for signature, says, call, answer in _PYTHON
            ]
        case "go":
            return [Prompt("", f"package tasks\n\n// {says}\nfunc {signature} {{\n") for says, signature in _GO]
        case "json":
            return [Prompt(f"Answer with one JSON object that describes {what}.", "", chat=True) for what in _JSON]
        case "sql":
            return [Prompt(f"-- Tables: {_TABLES}\n-- Query: {what}\n", "SELECT ") for what in _SQL]
    raise KeyError(language)
