"""What pydantic found wrong with external input, told on one line."""

from pydantic import ValidationError


def first_fault(error: ValidationError) -> str:
    """The first complaint: the key, what is expected and the value seen; then how many more there are."""
    faults = error.errors(include_url=False)
    fault = faults[0]
    at = ".".join(str(part) for part in fault["loc"]) + ": " * bool(fault["loc"])
    seen = repr(fault["input"])
    seen = seen if len(seen) <= 60 else f"{seen[:57]}…"
    texts = {
        "extra_forbidden": f"{at}unknown key (its value is {seen})",
        "missing": f"{at}missing, expected a value",
        "json_invalid": f"not JSON ({fault['msg'].removeprefix('Invalid JSON: ')})",
        "value_error": at + fault["msg"].removeprefix("Value error, "),
    }
    told = texts.get(fault["type"], f"{at}{fault['msg'].replace('Input should', 'should')}, got {seen}")
    return told if len(faults) == 1 else f"{told} (and {len(faults) - 1} more)"
