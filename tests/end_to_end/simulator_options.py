"""The options that the presets' simulators have, read from their sources; they are in simulator_options.json.

    python simulator_options.py openpi=CHECKOUT polaris=CHECKOUT sim-evals=CHECKOUT            # compare
    python simulator_options.py openpi=CHECKOUT polaris=CHECKOUT sim-evals=CHECKOUT --write

All of them make their command line from a dataclass or a function's parameters with tyro: a name's underscores become
hyphens, and the fields of a dataclass stand behind the name of the parameter or field that holds it.
"""

import ast
import json
import pathlib
import subprocess
import sys

RECORDED = pathlib.Path(__file__).with_suffix(".json")
# The checkout, the file, and what tyro is given there.
SIMULATORS = {
    "aloha_sim": ("openpi", "examples/aloha_sim/main.py", "main"),
    "libero": ("openpi", "examples/libero/main.py", "eval_libero"),
    "polaris": ("polaris", "src/polaris/config.py", "EvalArgs"),
    "sim_evals": ("sim-evals", "run_eval.py", "main"),
}


def options(definitions, name):
    """Every option of a function or dataclass, those without a default with '=' at the end."""
    definition = definitions[name]
    if isinstance(definition, ast.FunctionDef):
        arguments = definition.args.args
        needed = len(arguments) - len(definition.args.defaults)
        fields = [(argument.arg, argument.annotation, place < needed) for place, argument in enumerate(arguments)]
    else:
        statements = [statement for statement in definition.body if isinstance(statement, ast.AnnAssign)]
        fields = [(statement.target.id, statement.annotation, statement.value is None) for statement in statements]
    found = []
    for field, annotation, is_needed in fields:
        field = field.replace("_", "-")
        inner = ast.unparse(annotation)
        if inner in definitions:
            found += [f"{field}.{option}" for option in options(definitions, inner)]
        else:
            found.append(field + "=" * is_needed)
    return found


def read(checkouts):
    recorded = {}
    for simulator, (source, file, name) in SIMULATORS.items():
        checkout = checkouts[source]
        tree = ast.parse(subprocess.check_output(["git", "-C", checkout, "show", f"HEAD:{file}"], text=True))
        definitions = {node.name: node for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
        recorded[simulator] = {
            "source": source,
            "commit": subprocess.check_output(["git", "-C", checkout, "rev-parse", "HEAD"], text=True).strip(),
            "file": file,
            "options": ["--" + option for option in options(definitions, name)],
        }
    return recorded


def main():
    arguments = [argument for argument in sys.argv[1:] if argument != "--write"]
    found = read(dict(argument.split("=", 1) for argument in arguments))
    if "--write" in sys.argv:
        RECORDED.write_text(json.dumps(found, indent=2) + "\n")
        return
    recorded = json.loads(RECORDED.read_text())
    different = [name for name in SIMULATORS if found[name]["options"] != recorded[name]["options"]]
    for name in different:
        print(f"{name}: found {found[name]['options']}, recorded {recorded[name]['options']}")
    sys.exit(1 if different else 0)


if __name__ == "__main__":
    main()
