"""`lco datasets`."""

from api.parsers.base import Commands, add, group

_DATASETS = "api.commands.datasets"


def add_commands(commands: Commands) -> None:
    """Adds these commands."""
    datasets = group(commands, "datasets", "upload, list and preview data sets")
    upload = add(datasets, "upload", f"{_DATASETS}:upload", "make rows available as dataset:NAME")
    upload.add_argument("name", metavar="NAME")
    upload.add_argument(
        "file",
        metavar="FILE",
        help="JSON Lines, CSV or Parquet, by its suffix; or hub:ORG/NAME@REVISION/PATH, which is downloaded here",
    )
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
    split = add(datasets, "split", f"{_DATASETS}:split", "make data sets NAME-PART by the hash of a key")
    split.add_argument("dataset", metavar="NAME[@VERSION]", help="or an id")
    split.add_argument("--part", action="append", required=True, metavar="train=0.9", help="its share of the keys")
    split.add_argument("--key", metavar="FIELD", help="rows with one value are in one part (default: the whole row)")
    keep = add(datasets, "keep", f"{_DATASETS}:keep", "make a data set of the pairs or completions of a run")
    keep.add_argument("name", metavar="NAME")
    keep.add_argument("id", metavar="RUN")
    keep.add_argument("--output", metavar="NAME", help="pairs, completions or rows (default: the only one there is)")
    for command in (split, keep):
        command.add_argument("--json", action="store_true", help="as JSON")
