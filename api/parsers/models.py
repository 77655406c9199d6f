"""`lco models`, and the stages and tools that run without the platform."""

from api.parsers.base import Commands, add, group

STAGES = {
    "train": "lco.train",
    "sft": "lco.sft",
    "pairs": "lco.pairs",
    "dpo": "lco.dpo",
    "evaluate": "evaluation.run",
}
"""Command -> the module that a job of this kind runs, too."""
ANALYSES = {name: f"lco.analysis.{name}" for name in ("dynamics", "convexity", "theory")}
"""What `lco analyze` can do -> the module that does it."""
TOOLS = {
    "score": ("evaluation.scoring", "grade outputs that exist already, without the platform: lco score --help"),
    "report": ("evaluation.report", "write an evaluation as one HTML file: RUN_DIR"),
}
"""Command -> the module that does it by itself, and its help."""
_MODELS = "api.commands.models"


def add_commands(commands: Commands) -> None:
    """Adds these commands."""
    for name, module in STAGES.items():
        # Listed for the help alone: main() hands their arguments to the module, which has a parser of its own.
        text = f"run one stage without the platform: python -m {module} CONFIG RUN_DIR"
        if name == "evaluate":
            text = "evaluate a model without the platform: CHECKPOINT --benchmarks NAME,..., or CONFIG RUN_DIR"
        commands.add_parser(name, help=text)
    known = group(commands, "analyze", "the paper's analyses: figures and numbers, without the platform", "ANALYSIS")
    for name, module in ANALYSES.items():
        known.add_parser(name, help=f"python -m {module} OUT_DIR")
    for name, (_, text) in TOOLS.items():
        commands.add_parser(name, help=text)
    models = group(commands, "models", "import, register and list models")
    importing = add(
        models, "import", f"{_MODELS}:import_model", "make a GGUF file available as model:NAME, on this machine"
    )
    importing.add_argument("name", metavar="NAME")
    importing.add_argument("--gguf", metavar="PATH", help="a GGUF file of your own")
    register = add(models, "register", f"{_MODELS}:register", "make a model known to the platform as model:NAME")
    register.add_argument("name", metavar="NAME", help="without --hub a directory below the models root")
    register.add_argument("--hub", metavar="OWNER/NAME", help="fetch it from the hub")
    register.add_argument("--revision", metavar="COMMIT", help="of the hub: 40 hexadecimal digits")
    register.add_argument("--wait", action="store_true", help="until it is fetched")
    register.add_argument("--json", action="store_true", help="as JSON")
    listing = add(models, "list", f"{_MODELS}:list_models", "list registered models")
    listing.add_argument("--local", action="store_true", help="directories below the models root instead")
    listing.add_argument("--json", action="store_true", help="as JSON")
    for name, text in (("show", "print a registered model as JSON"), ("remove", "forget a registered model")):
        add(models, name, f"{_MODELS}:{name}", text).add_argument("model", metavar="NAME", help="or its id")
