"""`lco datasets`."""

from api.parsers.base import Commands, add, group

_DATASETS = "api.commands.datasets"


def add_commands(commands: Commands) -> None:
    """Adds these commands."""
    datasets = group(commands, "datasets", "upload, list and preview data sets")
    upload = add(datasets, "upload", f"{_DATASETS}:upload", "make rows available as dataset:NAME")
    upload.add_argument("name", metavar="NAME")
    upload.add_argument("file", metavar="FILE", help="JSON Lines, CSV or Parquet, by its suffix")
    upload.add_argument(
        "--text-fields", metavar="a,b", type=lambda text: text.split(","), default=[], help="must hold text in each row"
    )
    upload.add_argument("--json", action="store_true", help="as JSON")
    listing = add(datasets, "list", f"{_DATASETS}:list_datasets", "list versions of data sets")
    listing.add_argument("--name", metavar="NAME", help="only of this data set")
    listing.add_argument("--limit", type=int, default=20, help="at most this many (default 20)")
    listing.add_argument("--json", action="store_true", help="as JSON")
    show = add(datasets, "show", f"{_DATASETS}:show", "print a version of a data set as JSON")
    preview = add(datasets, "preview", f"{_DATASETS}:preview", "print rows of a data set")
    for command in (show, preview):
        command.add_argument("dataset", metavar="NAME[@VERSION]", help="or an id")
    preview.add_argument("--limit", type=int, default=10, help="at most this many (default 10)")
    preview.add_argument("--after", type=int, default=0, metavar="N", help="begin after row N")
    preview.add_argument("--json", action="store_true", help="as JSON")
