"""`derain doctor`: what this machine can do, and which command adds what is missing."""

from typing import Annotated

import typer

from derain.cli.extras import REQUIREMENTS


def doctor(
    strict: Annotated[bool, typer.Option("--strict", help="Exit with status 1 where something is missing.")] = False,
) -> None:
    """Say which verbs and engines work here, and what to install for the others."""
    import importlib.util
    import platform
    from importlib.metadata import PackageNotFoundError, version

    from rich.table import Table

    from derain.cli.console import Console
    from derain.runtime import engines

    needs = {"run": {"numpy": "numpy", "cv2": "opencv-python-headless", "pydantic": "pydantic"}}
    needs |= {extra: REQUIREMENTS[extra] for extra in ("train", "export", "demo", "serve")}
    table = Table("what", "here", "to add it", box=None)
    table.add_row("Python", f"{platform.python_version()}, {platform.machine()}", "")
    missing = 0
    for stage, packages in needs.items():
        absent = [name for module, name in packages.items() if importlib.util.find_spec(module) is None]
        found = []
        for name in packages.values():
            try:
                found.append(f"{name} {version(name)}")
            except PackageNotFoundError:
                continue
        missing += bool(absent)
        target = "derain" if stage == "run" else f"'derain[{stage}]'"
        fix = f"pip install {target}  (missing: {', '.join(absent)})" if absent else ""
        table.add_row(stage, ", ".join(found) or "-", fix)
    limitations = engines.limitations()
    for name, reason in engines.available().items():
        table.add_row(f"engine {name}", *(("-", reason) if reason else limitations.get(name, ("ready", ""))))
        missing += reason is not None
    Console(markup=False).print(table)
    if strict and missing:
        raise ModuleNotFoundError(f"{missing} of the above are missing: run the commands in the last column")
