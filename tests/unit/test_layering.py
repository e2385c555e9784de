"""Imports point down only: docs/architecture.md, 'The layers'."""

import ast
from pathlib import Path

import emuvisor

ROOT = Path(emuvisor.__file__).parent

LAYERS = (
    {"errors"},
    {"units", "holes", "serving"},
    {"bus", "memory", "firmware"},
    {"cpu", "devices", "images", "net", "store"},
    {"machine"},
    {"host"},
    {"migration"},
    {"manager"},
    {"vnc", "metrics", "daemon", "qmp"},
    {"tui"},
    {"cli"},
    {"__init__", "__main__"},
)
LAYER_OF = {name: number for number, names in enumerate(LAYERS) for name in names}


def imported_packages(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [
                f"{node.module}.{alias.name}" if node.module == "emuvisor" else str(node.module)
                for alias in node.names
            ]
        else:
            continue
        found |= {name.split(".")[1] for name in names if name.startswith("emuvisor.")}
    return found


def package_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def test_every_package_has_a_layer() -> None:
    found = {package_of(path) for path in ROOT.rglob("*.py")}
    assert found <= set(LAYER_OF), f"no layer for {sorted(found - set(LAYER_OF))}"


def test_imports_point_down() -> None:
    wrong = []
    for path in sorted(ROOT.rglob("*.py")):
        here = package_of(path)
        for there in sorted(imported_packages(path)):
            if there != here and LAYER_OF.get(there, 0) >= LAYER_OF[here]:
                wrong.append(
                    f"{path.relative_to(ROOT)} (layer {LAYER_OF[here]}) imports {there} (layer {LAYER_OF[there]})"
                )
    assert not wrong, "\n".join(wrong)


def test_only_the_cpu_package_knows_unicorn() -> None:
    for path in sorted(ROOT.rglob("*.py")):
        if package_of(path) == "cpu":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names = (
                [a.name for a in node.names]
                if isinstance(node, ast.Import)
                else [str(node.module)]
                if isinstance(node, ast.ImportFrom)
                else []
            )
            assert not any(name.split(".")[0] == "unicorn" for name in names), path
